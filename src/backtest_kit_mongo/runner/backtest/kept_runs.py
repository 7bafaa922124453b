"""Finished backtests, each kept as a JSON file under a run id, so that you can look at the results again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from ...arguments import text
from ...errors import BacktestKitError, InvalidValueError, StorageError, with_notes
from ...observability.profile import Report
from ...output_files import replacing
from ...servers.embedded import default_data_dir
from ..engine.result import BacktestResult
from ..loading.parameters import Scalar

__all__ = ["KeptRun", "keep_run", "list_runs", "load_run", "new_run_id", "runs_folder"]

_ID: Final = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9]{6}")


class KeptRun(msgspec.Struct, frozen=True, rename="camel"):
    """A kept backtest of one or more strategies and symbols: its results, and what produced them."""

    id: str
    """The id of the run."""
    saved: str
    """When it ended (ISO text, UTC)."""
    strategy_file: str
    """The path of the strategy file; "" if unknown."""
    parameters: dict[str, Scalar]
    """The values of ``parameter(...)`` in effect."""
    settings: dict[str, Any]
    """The options of the run."""
    results: tuple[BacktestResult, ...]
    """One result per strategy and symbol, without the statistics of the contracts."""
    failed: tuple[str, ...] = ()
    """The texts of the errors that ended runs early."""
    profile: dict[str, Any] | None = None
    """What was read and written, as ``Report.to_dict`` returns it."""

    @property
    def report(self) -> Report | None:
        """What was read and written; None without ``profile``."""
        return None if self.profile is None else Report.from_dict(self.profile)


def runs_folder() -> Path:
    """Return the folder of the kept runs, below the user's data folder. Raises StorageError if the user has no home folder."""
    try:
        return default_data_dir() / "runs"
    except RuntimeError as error:
        raise StorageError(f"cannot find a folder to keep runs in: {error}", hint="set HOME or XDG_DATA_HOME") from error


def new_run_id() -> str:
    """Return an id that no run has yet and that sorts by time: date, time of day (UTC) and microseconds."""
    while (runs_folder() / f"{(run_id := f'{datetime.now(UTC):%Y%m%d-%H%M%S-%f}')}.json").exists():
        pass
    return run_id


def keep_run(
    results: Sequence[BacktestResult],
    *,
    strategy_file: str = "",
    parameters: Mapping[str, Scalar] | None = None,
    settings: Mapping[str, Any] | None = None,
    failed: Iterable[BacktestKitError] = (),
    profile: Report | None = None,
    run_id: str | None = None,
) -> KeptRun:
    """Keep results on disk, for ``load_run`` and ``backtest-kit-mongo runs``.

    Args:
        results: the results; the statistics of the contracts in them are left out, as ``profile`` has them
        strategy_file: the path of the strategy file
        parameters: the values of its parameters
        settings: the options of the run
        failed: the errors that ended runs early
        profile: what was read and written
        run_id: the id to keep them under, of the form 20230301-143000-000000; None is a new one

    Returns:
        what was kept

    Raises:
        InvalidTypeError: ``run_id`` is not text
        InvalidValueError: ``run_id`` does not have the form of a new one
        StorageError: the file cannot be written

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 1440, 1704067200000), "BTCUSDT")
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda symbol, when: signal)
        >>> kept = runner.keep_run([runner.run_backtest("BTCUSDT")])
        >>> runner.load_run(kept.id).results[0].symbol
        'BTCUSDT'
    """
    run_id = new_run_id() if run_id is None else text("run_id", run_id)
    if not _ID.fullmatch(run_id):
        raise InvalidValueError(
            f"run_id is {run_id!r}; it must be like 20230301-143000-000000", hint="without run_id, a new one is chosen, of the present time"
        )
    run = KeptRun(
        id=run_id,
        saved=datetime.now(UTC).isoformat(timespec="seconds"),
        strategy_file=strategy_file,
        parameters=dict(parameters or {}),
        settings=dict(settings or {}),
        results=tuple(msgspec.structs.replace(result, stats={}) for result in results),
        failed=tuple(map(with_notes, failed)),
        profile=None if profile is None else profile.to_dict(),
    )
    path = runs_folder() / f"{run.id}.json"
    try:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{path.parent} cannot be created: {error.strerror or error}") from error
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    return run


def list_runs() -> Iterator[KeptRun]:
    """Yield the kept runs, newest first. A file that cannot be read is left out.

    Raises:
        StorageError: the folder cannot be read

    Examples:
        >>> from backtest_kit_mongo.runner import list_runs
        >>> [run.saved for run in list_runs()]
        []
    """
    for run_id in _ids():
        try:
            yield _load(run_id)
        except InvalidValueError:
            continue


def load_run(run_id: str) -> KeptRun:
    """Return a kept run.

    Args:
        run_id: its id or a unique prefix of it; "last" is the newest

    Raises:
        InvalidValueError: there is no such run, or the prefix is not unique
        StorageError: the file cannot be read

    Examples:
        >>> from backtest_kit_mongo.runner import keep_run, load_run
        >>> kept = keep_run([], strategy_file="sma.py")
        >>> load_run("last").strategy_file
        'sma.py'
    """
    ids = _ids()
    matching = ids[:1] if run_id == "last" else [kept_id for kept_id in ids if kept_id.startswith(run_id)] if run_id else []
    if len(matching) != 1:
        message = f"several run ids begin with {run_id!r}: {', '.join(matching[:5])}" if matching else f"there is no kept run {run_id!r}"
        raise InvalidValueError(message, hint="`backtest-kit-mongo runs list` shows the ids" if ids else "no backtest has been kept yet")
    return _load(matching[0])


def _load(run_id: str) -> KeptRun:
    path = runs_folder() / f"{run_id}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=KeptRun)
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidValueError(f"{path} is not a kept run that this version can read: {error}") from error


def _ids() -> list[str]:
    try:
        names = [path.stem for path in runs_folder().glob("*.json")]
    except OSError as error:
        raise StorageError(f"{runs_folder()} cannot be read: {error.strerror or error}") from error
    return sorted(filter(_ID.fullmatch, names), reverse=True)
