"""Many backtests of one strategy file, one for each combination of parameters, side by side in processes.

Each run has a frame name of its own, derived from its parameters, and with it records of its own: Session, Recent, and what is
kept by a signal id, which follows from it. The contracts whose keys hold no frame (``SLOTS``) can serve one run at a time; they
are there to go on with a run after a crash, which no backtest does, so each run of a sweep keeps them in the memory of its
process. Measure is shared on purpose: what one run has asked of a service, another need not ask again.
"""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from os import PathLike
from pathlib import Path
from typing import Any, Final

import msgspec

from ... import PersistMeasureAdapter
from ...config import Config
from ...contracts.adapters import adapter_of, default_registry
from ...domains import DOMAINS
from ...errors import BacktestKitError, InvalidTypeError, InvalidValueError, with_notes
from ..error_text import describe
from ..loading.parameters import Scalar, check_parameters, given_parameters
from ..loading.strategy_file import load_strategy_file, nothing_registered
from ..market.candle_import import choose_window
from ..market.stored_candles import StoredCandles
from ..registrations import check_name
from ..strategy import StrategyError, find_strategy
from .backtest import run_backtest
from .sweep_result import SweepResult, SweepRun

__all__ = ["SLOTS", "sweep"]

SLOTS: Final = ("signal", "schedule", "strategy", "risk", "interval")
"""The contracts that each run of a sweep keeps in memory."""

_BUCKET: Final = "sweep"
_GRACE_SECONDS: Final = 10.0
_STAYING: Final = ("__main__", "__mp_main__", __name__.partition(".")[0])


class _Settings(msgspec.Struct, frozen=True):
    """What all runs of a sweep have in common. ``home`` is the process that ordered them."""

    home: tuple[str, int]
    config: Config
    strategy_file: str
    strategy_name: str
    exchange_name: str
    fee_percent: float
    slippage_percent: float
    stake_usd: float


class _Task(msgspec.Struct, frozen=True):
    settings: _Settings
    symbol: str
    parameters: dict[str, Scalar]
    frame_name: str
    start_ms: int
    end_ms: int
    key: str  # of the finished run in the Measure contract

    def finished(self, **outcome: Any) -> SweepRun:
        return SweepRun(self.symbol, self.parameters, self.frame_name, self.start_ms, self.end_ms, **outcome)


def sweep(
    strategy_file: str | PathLike[str],
    grid: Mapping[str, Sequence[object]],
    *,
    symbols: Sequence[str] = ("BTCUSDT",),
    strategy_name: str | None = None,
    exchange_name: str = "binance",
    frame_name: str = "backtest",
    start_ms: int | None = None,
    end_ms: int | None = None,
    fee_percent: float = 0.1,
    slippage_percent: float = 0.1,
    stake_usd: float = 100.0,
    workers: int | None = None,
    executor: Executor | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SweepResult:
    """Backtest a strategy file with every combination of ``grid`` (the values of each ``parameter``) for every symbol.

    ``workers`` processes (default: one for each core that this process may use) share the runs, or the processes of ``executor``
    do (see ``cluster_executor``). The result does not depend on their number. They use the settings of this process, with which
    ``setup`` must have been called, and the candles that are stored. A parameter that the file does not have, a value of another
    type, a missing candle window are errors before the first run; a run that fails is a row with its error.

    ``resume=True`` takes the runs that an earlier sweep over the same file, parameters, candles and costs has finished in this
    database from there. ``progress`` is called with (runs finished, all runs). Other arguments are those of ``run_backtest``.
    A program that calls this does so below ``if __name__ == "__main__":``, since each process imports it first.
    """
    config = default_registry.mongo.config
    if config.CC_STORES["candle"] in ("memory", "dummy"):
        raise InvalidValueError("candles in the memory of this process are not seen by others", hint='setup(stores={"candle": "mongo"})')
    if workers is not None and (type(workers) is not int or workers < 1):
        raise InvalidValueError(f"workers must be an int from 1 on, got {workers!r}")
    if isinstance(symbols, str) or not symbols:
        raise InvalidTypeError('symbols must be a list of names, such as ["BTCUSDT"]')
    for what, value in (("exchange_name", exchange_name), ("frame_name", frame_name), *(("symbol", symbol) for symbol in symbols)):
        check_name(what, value)
    with _loaded(strategy_file, {}) as known:
        name = find_strategy(strategy_name).name
        typed = _typed(grid, known)
    settings = _Settings(
        home=_process(),
        config=msgspec.structs.replace(config, CC_EMBEDDED=False),  # this process owns the servers, the others only connect
        strategy_file=str(Path(strategy_file).resolve()),
        strategy_name=name,
        exchange_name=exchange_name,
        fee_percent=fee_percent,
        slippage_percent=slippage_percent,
        stake_usd=stake_usd,
    )
    windows = {symbol: choose_window(symbol, exchange_name, start_ms, end_ms)[:2] for symbol in dict.fromkeys(symbols)}
    combinations = [dict(zip(typed, values, strict=True)) for values in itertools.product(*typed.values())]
    contents = Path(strategy_file).read_bytes()
    # Part of the resume key: candles can be removed and others imported, and then a finished run used the old ones.
    candles = {symbol: StoredCandles(symbol, "1m", exchange_name).digest(*window) for symbol, window in windows.items()}
    tasks = [
        _task(settings, symbol, parameters, frame_name, window, contents, candles[symbol])
        for symbol, window in windows.items()
        for parameters in combinations
    ]
    runs: dict[int, SweepRun] = _stored(tasks) if resume else {}
    left = {index: task for index, task in enumerate(tasks) if index not in runs}
    if progress is not None:
        progress(len(runs), len(tasks))
    finished = _in_processes(left, workers or _cores()) if executor is None else _on(executor, left)
    with closing(finished):
        for index, run in finished:
            runs[index] = run
            if progress is not None:
                progress(len(runs), len(tasks))
    return SweepResult(name, exchange_name, tuple(runs[index] for index in range(len(tasks))))


def _typed(grid: Mapping[str, Sequence[object]], known: Mapping[str, Scalar]) -> dict[str, list[Scalar]]:
    """The values of the grid in the types of the parameters."""
    if not isinstance(grid, Mapping):
        raise InvalidTypeError(f'grid must be a dict such as {{"FAST": [6, 12]}}, got {type(grid).__name__}')
    typed: dict[str, list[Scalar]] = {}
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InvalidTypeError(f"grid: the values of {name!r} must be a list with at least one, got {values!r}")
        typed[name] = [check_parameters({name: value}, known)[name] for value in values]
        if len(set(typed[name])) < len(values):
            raise InvalidValueError(f"grid: {name!r} has a value twice")
    return typed


def _task(
    settings: _Settings,
    symbol: str,
    parameters: dict[str, Scalar],
    frame_name: str,
    window: tuple[int, int],
    contents: bytes,
    candles: str,
) -> _Task:
    digest = _digest(sorted(parameters.items()))
    costs = (settings.fee_percent, settings.slippage_percent, settings.stake_usd)
    order = (settings.strategy_name, settings.exchange_name, costs, symbol, parameters, frame_name, window)
    key = _digest([hashlib.sha256(contents).hexdigest(), candles, *order])
    return _Task(settings, symbol, parameters, f"{frame_name}.{digest[:12]}", *window, key)


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def _stored(tasks: Sequence[_Task]) -> dict[int, SweepRun]:
    """What earlier sweeps have finished."""
    runs = {}
    for index, row in enumerate(PersistMeasureAdapter.read_many([(_BUCKET, task.key) for task in tasks])):
        if row is not None:
            with suppress(msgspec.ValidationError):  # of another version of this library: run it again
                runs[index] = msgspec.convert(row["data"], SweepRun)
    return runs


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- the side of the caller ---


def _in_processes(tasks: Mapping[int, _Task], workers: int) -> Generator[tuple[int, SweepRun], None, None]:
    left = dict(tasks)
    while left:
        try:
            with _pool(min(workers, len(left))) as pool:
                for index, run in _on(pool, left):
                    del left[index]
                    yield index, run
        except BrokenProcessPool:
            _check_start()
            # A process died, and runs are begun in their order: one of these was it. Alone, it shows.
            for index in list(left)[:workers]:
                yield index, _alone(left.pop(index))


def _on(executor: Executor, tasks: Mapping[int, _Task]) -> Generator[tuple[int, SweepRun], None, None]:
    """Runs in the order in which they finish."""
    # Ctrl+C goes to all processes of a terminal, but is meant for this one: those that are started here inherit the blocked signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        futures = {executor.submit(_run, task): index for index, task in tasks.items()}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        for future in futures:
            future.cancel()


def _alone(task: _Task) -> SweepRun:
    try:
        with _pool(1) as pool:
            [(_, run)] = _on(pool, {0: task})
            return run
    except BrokenProcessPool:
        return task.finished(error="the process of this run died; its last words, if any, are on stderr")


def _check_start() -> None:
    """Tell a process that died of its run from one that cannot even start."""
    try:
        with _pool(1) as pool:
            pool.submit(os.getpid).result()
    except BrokenProcessPool:
        raise StrategyError(
            "the processes of the sweep cannot be started; what they say is on stderr",
            hint='a program that calls sweep() does so below if __name__ == "__main__":',
        ) from None


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that stop when this block is left by an error or Ctrl+C, and when this process dies."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit the locks of threads that it does not have
    reader, writer = context.Pipe(duplex=False)
    with closing(reader), closing(writer):
        pool = ProcessPoolExecutor(workers, context, _obey, (reader,))
        try:
            yield pool
        except BaseException:
            writer.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


# --- the side of the processes ---

_stop = threading.Event()
_one_at_a_time = threading.Lock()  # strategies, parameters and stores are those of the whole process


class _Stopped(BaseException):
    """The sweep was interrupted: no failure of this run."""


def _obey(reader: Connection) -> None:
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def _watch(reader: Connection) -> None:
    reader.poll(None)  # nothing is ever sent; the pipe ends when the caller closes it, or dies
    _stop.set()
    _one_at_a_time.acquire(timeout=_GRACE_SECONDS)  # until the run looks up, or is stuck
    os._exit(130)


def _run(task: _Task) -> SweepRun:
    settings = task.settings
    if settings.home == _process():
        raise InvalidTypeError("sweep() needs an executor of other processes", hint="ProcessPoolExecutor, or a cluster of Dask")
    with _one_at_a_time:
        try:
            default_registry.configure(settings.config)
            default_registry.install()
            for name, kind in settings.config.CC_STORES.items():
                if name in SLOTS or kind == "memory":  # new, so that what the last run left goes
                    adapter_of(DOMAINS[name]).use_memory()
            with _loaded(settings.strategy_file, task.parameters):
                result = run_backtest(
                    task.symbol,
                    settings.strategy_name,
                    exchange_name=settings.exchange_name,
                    frame_name=task.frame_name,
                    start_ms=task.start_ms,
                    end_ms=task.end_ms,
                    fee_percent=settings.fee_percent,
                    slippage_percent=settings.slippage_percent,
                    stake_usd=settings.stake_usd,
                    progress=_check_stop,
                )
            run = task.finished(totals=result.totals, signals_ignored=sum(result.signals_ignored.values()))
            note = {"id": task.key, "data": msgspec.to_builtins(run), "removed": False}
            PersistMeasureAdapter.write_measure_data(note, _BUCKET, task.key, task.end_ms)
        except BacktestKitError as error:
            return task.finished(error=with_notes(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other runs go on
            return task.finished(error=f"unexpected {describe(error)}")
        return run


def _check_stop(done: int, total: int) -> None:
    if _stop.is_set():
        raise _Stopped


@contextmanager
def _loaded(strategy_file: str | PathLike[str], given: Mapping[str, object]) -> Iterator[Mapping[str, Scalar]]:
    """A strategy file with these parameters, and with modules beside it that are imported anew; nothing of them stays."""
    folder = Path(strategy_file).resolve().parent
    aside = {name: sys.modules.pop(name) for name in _beside(folder)}
    try:
        with nothing_registered(), given_parameters(given) as known:
            load_strategy_file(strategy_file)
            yield known
    finally:
        for name in _beside(folder):
            del sys.modules[name]
        sys.modules.update(aside)


def _beside(folder: Path) -> list[str]:
    """The modules that are the user's own source in ``folder``: they may have asked for parameters when they were imported."""
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or name.partition(".")[0] in _STAYING:
            continue
        path = Path(file).resolve()
        installed = any(path.is_relative_to(prefix) for prefix in prefixes) or "site-packages" in path.parts
        if path.is_relative_to(folder) and not installed:
            found.append(name)
    return found
