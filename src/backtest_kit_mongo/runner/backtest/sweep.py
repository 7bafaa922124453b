"""Many backtests of one strategy file, one for each combination of parameters, in parallel processes.

Each run has its own frame name, derived from its parameters, and therefore its own records: Session, Recent, and everything under a
signal id, which is derived from the frame name. The contracts without a frame in their keys (``SLOTS``) can serve only one run at a
time. They exist to resume a run after a crash, which a backtest never does, so each run of a sweep keeps them in the memory of its
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
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from os import PathLike
from pathlib import Path
from typing import Any, Final, Unpack

import msgspec

from ... import PersistMeasureAdapter
from ...arguments import whole_number
from ...config import Config
from ...contracts.adapters import adapter_of
from ...contracts.default_registry import default_registry
from ...domains import DOMAINS
from ...errors import BacktestKitError, InvalidTypeError, InvalidValueError, with_notes
from ..engine.options import Progress, RunKeywords, RunOptions
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
    """What all runs of a sweep have in common. ``home`` is the process that called ``sweep`` (host name, process id)."""

    home: tuple[str, int]
    config: Config
    strategy_file: str
    strategy_name: str
    options: RunOptions


class _Task(msgspec.Struct, frozen=True):
    settings: _Settings
    symbol: str
    parameters: dict[str, Scalar]
    frame_name: str
    window: tuple[int, int]
    key: str  # the key of the finished run in the Measure contract

    def finished(self, **outcome: Any) -> SweepRun:
        return SweepRun(self.symbol, self.parameters, self.frame_name, *self.window, **outcome)


def sweep(
    strategy_file: str | PathLike[str],
    grid: Mapping[str, Sequence[object]],
    *,
    symbols: Sequence[str] = ("BTCUSDT",),
    strategy_name: str | None = None,
    options: RunOptions | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    **keywords: Unpack[RunKeywords],
) -> SweepResult:
    """Backtest a strategy file with every combination of parameters for every symbol.

    The result does not depend on the number of processes. They use the stored candles and the settings of this process, so call
    ``setup`` first. A parameter that the file does not have, a value of another type or a missing candle window is an error before the
    first run; a run that fails becomes a row with its error. Call this below ``if __name__ == "__main__":``, because each process
    first imports your program.

    Args:
        strategy_file: the path of the file
        grid: the values of each ``parameter`` of the file
        symbols: the traded pairs
        strategy_name: a strategy of the file; None is the only one
        options: the options of the runs
        workers: how many processes; None is one for each core that this process may use
        executor: runs the backtests instead of processes of this machine, see ``cluster_executor``
        resume: True to reuse the runs that an earlier sweep over the same file, parameters, candles and costs finished in this database
        progress: called with (runs finished, all runs)
        **keywords: fields of RunOptions, which win over ``options``

    Returns:
        one run per symbol and combination, in this order

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: an argument is not valid, or candles are missing
        StrategyError: the file cannot be loaded
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> from pathlib import Path
        >>> from backtest_kit_mongo.runner import import_candles, sweep, synthetic_market
        >>> report = import_candles(synthetic_market(7, 180, 1704067200000), "BTCUSDT")
        >>> file = Path("hourly.py")
        >>> size = file.write_text('''
        ... from backtest_kit_mongo.runner import add_strategy, parameter
        ... MINUTES = parameter("MINUTES", 30)
        ... @add_strategy("hourly", "1h")
        ... def hourly(symbol, when):
        ...     return {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": MINUTES}
        ... ''')
        >>> result = sweep(file, {"MINUTES": [30, 50]}, workers=1)
        >>> [(run.parameters, run.totals.trades) for run in result.runs]
        [({'MINUTES': 30}, 2), ({'MINUTES': 50}, 2)]
    """
    config = default_registry.mongo.config
    if config.CC_STORES["candle"] in ("memory", "dummy"):
        raise InvalidValueError("other processes cannot see candles in the memory of this one", hint='setup(stores={"candle": "mongo"})')
    if workers is not None:
        workers = whole_number("workers", workers, least=1)
    if isinstance(symbols, str) or not len(symbols):
        raise InvalidTypeError('symbols must be a list of names, such as ["BTCUSDT"]')
    options = (RunOptions() if options is None else options).replaced(**keywords)
    symbols = [check_name("symbol", symbol) for symbol in symbols]
    with _loaded(strategy_file, {}) as declared:
        name = find_strategy(strategy_name).name
        typed = _typed(grid, declared)
    settings = _Settings(
        home=_process(),
        config=msgspec.structs.replace(config, CC_EMBEDDED=False),  # this process owns the servers, the others only connect
        strategy_file=str(Path(strategy_file).resolve()),
        strategy_name=name,
        options=options,
    )
    exchange_name, across_holes = options.exchange_name, options.holes == "fill"
    windows = {
        symbol: choose_window(symbol, exchange_name, options.start_ms, options.end_ms, across_holes=across_holes)[:2]
        for symbol in dict.fromkeys(symbols)
    }
    combinations = [dict(zip(typed, values, strict=True)) for values in itertools.product(*typed.values())]
    contents = Path(strategy_file).read_bytes()
    # Part of the resume key: if candles were removed and others imported, a finished run used the old ones.
    candles = {symbol: StoredCandles(symbol, "1m", exchange_name).digest(*window) for symbol, window in windows.items()}
    tasks = [
        _task(settings, symbol, parameters, window, contents, candles[symbol])
        for symbol, window in windows.items()
        for parameters in combinations
    ]
    runs: dict[int, SweepRun] = _stored(tasks) if resume else {}
    unfinished = {index: task for index, task in enumerate(tasks) if index not in runs}
    if progress is not None:
        progress(len(runs), len(tasks))
    finished = _in_processes(unfinished, workers or _cores()) if executor is None else _on(executor, unfinished)
    with closing(finished):
        for index, run in finished:
            runs[index] = run
            if progress is not None:
                progress(len(runs), len(tasks))
    return SweepResult(name, exchange_name, tuple(runs[index] for index in range(len(tasks))))


def _typed(grid: Mapping[str, Sequence[object]], declared: Mapping[str, Scalar]) -> dict[str, list[Scalar]]:
    """Return the values of the grid, converted to the types of the parameters."""
    if not isinstance(grid, Mapping):
        raise InvalidTypeError(f'grid must be a dict such as {{"FAST": [6, 12]}}, got {type(grid).__name__}')
    typed: dict[str, list[Scalar]] = {}
    for name, values in grid.items():
        if hasattr(values, "tolist"):  # an array or a Series
            values = values.tolist()
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InvalidTypeError(f"grid: the values of {name!r} must be a list of at least one value, got {values!r}")
        typed[name] = [check_parameters({name: value}, declared)[name] for value in values]
        if len(set(typed[name])) < len(values):
            raise InvalidValueError(f"grid: {name!r} lists a value twice")
    return typed


def _task(
    settings: _Settings,
    symbol: str,
    parameters: dict[str, Scalar],
    window: tuple[int, int],
    contents: bytes,
    candles: str,
) -> _Task:
    digest, options = _digest(sorted(parameters.items())), settings.options
    costs = (options.fee_percent, options.slippage_percent, options.stake_usd)
    order = [settings.strategy_name, options.exchange_name, costs, symbol, parameters, options.frame_name, window]
    order += [] if options.on_error == "stop" else [options.on_error]
    order += [] if options.holes == "stop" else [f"holes: {options.holes}"]
    key = _digest([hashlib.sha256(contents).hexdigest(), candles, *order])
    return _Task(settings, symbol, parameters, f"{options.frame_name}.{digest[:12]}", window, key)


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def _stored(tasks: Sequence[_Task]) -> dict[int, SweepRun]:
    """Return the runs that earlier sweeps have finished, by index."""
    runs = {}
    for index, row in enumerate(PersistMeasureAdapter.read_many([(_BUCKET, task.key) for task in tasks])):
        if row is not None:
            with suppress(msgspec.ValidationError):  # written by another version of this library: run it again
                runs[index] = msgspec.convert(row["data"], SweepRun)
    return runs


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# --- the side of the caller ---


def _in_processes(tasks: Mapping[int, _Task], workers: int) -> Generator[tuple[int, SweepRun], None, None]:
    unfinished = dict(tasks)
    while unfinished:
        try:
            with _pool(min(workers, len(unfinished))) as pool:
                for index, run in _on(pool, unfinished):
                    del unfinished[index]
                    yield index, run
        except BrokenProcessPool:
            _check_start()
            # A process died. Runs start in order, so one of these killed it: run each alone to find out which.
            for index in list(unfinished)[:workers]:
                yield index, _alone(unfinished.pop(index))


def _on(executor: Executor, tasks: Mapping[int, _Task]) -> Generator[tuple[int, SweepRun], None, None]:
    """Yield runs in the order in which they finish."""
    # Ctrl+C goes to all processes of a terminal, but is meant for this one. Processes started here inherit the blocked signal.
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
        return task.finished(error="the process of this run died; see stderr for its last output, if any")


def _check_start() -> None:
    """Raise StrategyError if processes cannot even start, as opposed to one that died of its run."""
    try:
        with _pool(1) as pool:
            pool.submit(os.getpid).result()
    except BrokenProcessPool:
        raise StrategyError(
            "the processes of the sweep cannot be started; see stderr for their errors",
            hint='call sweep() below if __name__ == "__main__":',
        ) from None


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes that stop when the block ends, also by an error or Ctrl+C, and when this process dies."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit locks, but not the threads that hold them
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
_one_at_a_time = threading.Lock()  # strategies, parameters and stores belong to the whole process


class _Stopped(BaseException):
    """The sweep was interrupted; this run itself did not fail."""


def _obey(reader: Connection) -> None:
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def _watch(reader: Connection) -> None:
    reader.poll(None)  # nothing is ever sent; this returns when the caller closes the pipe or dies
    _stop.set()
    _one_at_a_time.acquire(timeout=_GRACE_SECONDS)  # let the run notice; do not wait longer if it is stuck
    os._exit(130)


def _run(task: _Task) -> SweepRun:
    settings = task.settings
    if settings.home == _process():
        raise InvalidTypeError("sweep() needs an executor of other processes", hint="use ProcessPoolExecutor or a Dask cluster")
    with _one_at_a_time:
        try:
            default_registry.configure(settings.config)
            default_registry.install()
            for name, kind in settings.config.CC_STORES.items():
                if name in SLOTS or kind == "memory":  # a new store, without the records of the last run
                    adapter_of(DOMAINS[name]).use_memory()
            with _loaded(settings.strategy_file, task.parameters):
                start, end = task.window
                options = settings.options.replaced(frame_name=task.frame_name, start_ms=start, end_ms=end)
                result = run_backtest(task.symbol, settings.strategy_name, options=options, progress=_check_stop)
            run = task.finished(totals=result.totals, signals_ignored=sum(result.signals_ignored.values()))
            note = {"id": task.key, "data": msgspec.to_builtins(run), "removed": False}
            PersistMeasureAdapter.write_measure_data(note, _BUCKET, task.key, end)
        except BacktestKitError as error:
            return task.finished(error=with_notes(error))
        except Exception as error:  # noqa: BLE001 - the other runs continue, whatever the error is
            return task.finished(error=f"unexpected {describe(error)}")
        return run


def _check_stop(done: int, total: int) -> None:
    if _stop.is_set():
        raise _Stopped


@contextmanager
def _loaded(strategy_file: str | PathLike[str], given: Mapping[str, object]) -> Iterator[Mapping[str, Scalar]]:
    """Load a strategy file with these parameters, and import the modules next to it again; remove all of them after the block."""
    folder = Path(strategy_file).resolve().parent
    aside = {name: sys.modules.pop(name) for name in _beside(folder)}
    try:
        with nothing_registered(), given_parameters(given) as declared:
            load_strategy_file(strategy_file)
            yield declared
    finally:
        for name in _beside(folder):
            del sys.modules[name]
        sys.modules.update(aside)


def _beside(folder: Path) -> list[str]:
    """Return the names of modules that are the user's own source in ``folder``: they may have read parameters on import."""
    prefixes = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    own_modules = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or name.partition(".")[0] in _STAYING:
            continue
        path = Path(file).resolve()
        installed = any(path.is_relative_to(prefix) for prefix in prefixes) or "site-packages" in path.parts
        if path.is_relative_to(folder) and not installed:
            own_modules.append(name)
    return own_modules
