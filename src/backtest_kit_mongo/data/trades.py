"""Trades of other engines in the Storage contract: each row under an id of its engine and run, so that none overwrites another's."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..arguments import none_for_missing, text
from ..contracts.default_registry import default_registry
from ..contracts.registry import Registry
from ..errors import InvalidTypeError, InvalidValueError
from ..stores.base import plain
from .query import records

__all__ = ["read_trades", "write_trades"]

Row = dict[str, Any]

_OURS: Final = ("id", "engine", "run")


def write_trades(trades: Iterable[Any], engine: str, run: str = "", *, backtest: bool = True, registry: Registry | None = None) -> int:
    """Store the trades of a run of another engine as rows of the Storage contract, and return their number.

    Each row gets ``engine``, ``run`` and an ``id`` made of both and the number of the trade. So trades of other engines and runs stay,
    and the same run replaces its own.

    Args:
        trades: a pandas DataFrame (a row per trade; an index with a name becomes a column, NaT and NA become None), or a list of dicts,
            dataclasses or Structs, with whatever fields they have
        engine: the name of the engine
        run: the name of the run
        backtest: False for the trades of a live or paper run
        registry: the registry to store them in; None is the default one

    Raises:
        InvalidTypeError: a trade has a type that cannot be stored; nothing is written then
        InvalidValueError: a trade has a value that cannot be stored, or a field ``id``, ``engine`` or ``run``; or this run has stored more
            trades before, which could not be told from the new ones. Nothing is written then
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> kit.write_trades([{"Size": 2, "PnL": 31.5}, {"Size": 2, "PnL": -12.0}], "backtesting.py", "sma 12/48 BTCUSDT")
        2
        >>> [trade["PnL"] for trade in kit.read_trades("backtesting.py", "sma 12/48 BTCUSDT")]
        [31.5, -12.0]
    """
    registry = default_registry if registry is None else registry
    prefix = _prefix(engine, run)
    rows: list[Row] = []
    for number, trade in enumerate(_rows(trades)):
        taken = [name for name in _OURS if name in trade]
        if taken:
            raise InvalidValueError(f"trade {number} has a field {taken[0]!r}, which write_trades sets itself", hint="rename the field")
        rows.append({**trade, "id": f"{prefix}{number:08}", "engine": engine, "run": run})
    if _stored(registry, backtest, engine, run, first=len(rows), limit=1):
        raise InvalidValueError(
            f"run {run!r} of {engine!r} has stored more than {len(rows)} trades before, and those would stay",
            hint="give this run another name",
        )
    registry.PersistStorageAdapter.write_storage_data(rows, backtest)
    return len(rows)


def read_trades(engine: str, run: str | None = None, *, backtest: bool = True, registry: Registry | None = None) -> list[Row]:
    """Return the trades that ``write_trades`` stored, in their order.

    For a query, use ``records("storage", {"payload.engine": "vectorbt", "payload.PnL": {"$gt": 0}})``.

    Args:
        engine: the name of the engine
        run: the name of the run; None for all runs of the engine, one after the other
        backtest: False for the trades of live or paper runs
        registry: the registry to read from; None is the default one

    Raises:
        InvalidTypeError: an argument has the wrong type
        InvalidValueError: ``engine`` is empty, or a class of yours serves the Storage contract
        ServerUnavailableError: a server cannot be reached
        ServerTimeoutError: a server does not answer in time

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> kit.write_trades([{"PnL": 31.5}], "vectorbt", "march")
        1
        >>> kit.read_trades("vectorbt")
        [{'PnL': 31.5, 'id': 'vectorbt:march:00000000', 'engine': 'vectorbt', 'run': 'march'}]
    """
    return _stored(default_registry if registry is None else registry, backtest, engine, run)


def _prefix(engine: str, run: str | None) -> str:
    """Return what the ids of an engine, or of one of its runs, begin with. Names are escaped: ("a:b", "c") is not ("a", "b:c")."""
    if not text("engine", engine):
        raise InvalidValueError("engine must not be empty")
    names = (engine,) if run is None else (engine, text("run", run))
    return "".join(name.replace("%", "%25").replace(":", "%3A") + ":" for name in names)


def _stored(registry: Registry, backtest: bool, engine: str, run: str | None, first: int = 0, limit: int | None = None) -> list[Row]:
    """Return the stored trades of an engine, or of one of its runs from the trade with number ``first`` on."""
    if registry.binding("storage").custom is not None:
        raise InvalidValueError("a class of your own serves the Storage contract; keep and read the trades where that class keeps them")
    prefix = _prefix(engine, run)
    # The ids make this a range of the index. The engine is compared too: an id that somebody made up may begin like one of ours.
    ids = {"$gte": f"{prefix}{first:08}" if first else prefix, "$lt": f"{prefix[:-1]};"}  # the semicolon comes after the colon
    condition = {"backtest": backtest, "signalId": ids, "payload.engine": engine} | ({} if run is None else {"payload.run": run})
    return [row["payload"] for row in records("storage", condition, limit=limit, registry=registry)]


def _rows(trades: Any) -> Iterable[Row]:
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(trades, pandas.DataFrame):
        return _rows_of_frame(trades)
    if isinstance(trades, (str, bytes, Mapping)) or not isinstance(trades, Iterable):
        raise InvalidTypeError(f"trades must be a DataFrame or a list of trades, got {type(trades).__name__}")
    return (_row(number, trade) for number, trade in enumerate(trades))


def _rows_of_frame(frame: Any) -> list[Row]:
    names = [*(name for name in frame.index.names if name is not None), *frame.columns]
    if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise InvalidValueError(f"the columns of trades must have different names, got {names!s:.200}")
    if len(names) > len(frame.columns):
        frame = frame.reset_index()
    return [{name: none_for_missing(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _row(number: int, trade: Any) -> Row:
    try:
        row = dict(trade) if isinstance(trade, Mapping) else plain(trade)
    except TypeError:
        row = None
    if not isinstance(row, dict):
        raise InvalidTypeError(f"trade {number} must be a dict, dataclass or Struct, got {type(trade).__name__}")
    return row
