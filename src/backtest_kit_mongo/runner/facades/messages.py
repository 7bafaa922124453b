"""Log and Notification: messages of a strategy."""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import Any, Final

from ...domains import DOMAINS
from ...errors import InvalidTypeError, InvalidValueError
from ...stores.base import encode
from ...stores.fork_safety import renew_after_fork
from ..clock import as_datetime, iso_time
from ..current_run import CurrentRun
from .run_scope import derive_key, is_known, is_own, stamp, this_run, wall_ms
from .signals import latest_row

__all__ = ["Log", "Notification", "as_stored"]

Row = dict[str, Any]

_LONGEST: Final = 10_000  # characters of a value kept as text, which could otherwise be too large for a record
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


class _Occurrences:
    """Count equal messages at one simulation time of a run, so that two equal messages get two ids."""

    _RUNS: Final = 1000  # at once; beyond that the counts of the oldest run are dropped

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with a free lock and no counts, as a forked child must; see ``stores.fork_safety``."""
        self._lock = threading.Lock()
        self._runs: dict[str, tuple[int, Counter[str]]] = {}

    def next(self, run_id: str, now: int, what: str) -> int:
        with self._lock:
            when, counts = self._runs.pop(run_id, (now, Counter[str]()))
            if when != now:
                counts = Counter()
            self._runs[run_id] = (now, counts)
            if len(self._runs) > self._RUNS:
                del self._runs[next(iter(self._runs))]
            counts[what] += 1
            return counts[what]


_occurrences: Final = _Occurrences()


def _message_id(run: CurrentRun, now: int, *said: Any) -> str:
    """Return a message id: the same when a backtest is repeated; unique to this run in a live run, which is never repeated."""
    # Only equal messages are counted, so the ids do not depend on which of two threads comes first.
    base = derive_key(
        run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest, "" if run.backtest else run.run_id, now, *said
    )
    return derive_key(base, _occurrences.next(run.run_id, now, base))


def as_stored(value: Any) -> tuple[Any, bytes]:
    """Return ``value`` and its BSON. A value that cannot be stored (an exception, an object) becomes its text, without memory addresses."""
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)  # the order of a set differs between processes
    try:
        return value, encode(DOMAINS["log"], (), {"": value})
    except (InvalidTypeError, InvalidValueError):
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else _ADDRESS.sub("", repr(value))
        text = text[:_LONGEST].encode(errors="backslashreplace").decode()
        return text, text.encode()


class Log:
    """Entries in the Log contract, in the framework's shape (``payloads.LogEntry``). An argument that cannot be stored is kept as text.

    Examples:
        >>> import backtest_kit_mongo as kit
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 90, 1704067200000), "BTCUSDT")
        >>> @runner.add_strategy("logs", "1h")
        ... def logs(symbol, when):
        ...     runner.Log.info("asked", {"hour": when.hour})
        >>> result = runner.run_backtest("BTCUSDT")
        >>> [entry["args"] for entry in kit.PersistLogAdapter.read_log_data() if entry["topic"] == "asked"]
        [[{'hour': 1}]]
    """

    @staticmethod
    def log(topic: str, *args: Any) -> None:
        """Write an entry of no particular severity: a ``topic`` (text) and further ``args``."""
        _write_line("log", topic, args)

    @staticmethod
    def debug(topic: str, *args: Any) -> None:
        """Write an entry that helps with debugging: a ``topic`` (text) and further ``args``."""
        _write_line("debug", topic, args)

    @staticmethod
    def info(topic: str, *args: Any) -> None:
        """Write an entry that is good to know: a ``topic`` (text) and further ``args``."""
        _write_line("info", topic, args)

    @staticmethod
    def warn(topic: str, *args: Any) -> None:
        """Write an entry that somebody should look at: a ``topic`` (text) and further ``args``."""
        _write_line("warn", topic, args)


def _write_line(kind: str, topic: str, args: tuple[Any, ...]) -> None:
    run, now = this_run(f"Log.{kind}")
    if not isinstance(topic, str):
        raise InvalidTypeError(f"Log.{kind}: topic must be a str, got {type(topic).__name__}")
    values, raw = zip(*map(as_stored, args), strict=True) if args else ((), ())
    row = {
        "id": _message_id(run, now, kind, topic, *raw),
        "type": kind,
        "priority": wall_ms(),
        "createdAt": iso_time(now),
        "timestamp": now,
        "methodContext": {"exchangeName": run.exchange_name, "strategyName": run.strategy_name, "frameName": run.frame_name},
        "executionContext": {"symbol": run.symbol, "when": as_datetime(now), "backtest": run.backtest},
        "topic": topic,
        "args": list(values),
    }
    run.registry.PersistLogAdapter.write_log_data([row])


class Notification:
    """Messages in the Notification contract, which a user interface shows."""

    @staticmethod
    def list() -> list[Row]:
        """Return all notifications of this symbol, strategy and exchange up to the simulation time, oldest first."""
        run, now = this_run("Notification.list")
        rows = run.registry.PersistNotificationAdapter.read_notification_data(run.backtest, limit=None)
        own = (row for row in rows if is_own(row, run) and is_known(row, "timestamp", run, now))
        return sorted(own, key=lambda row: row.get("timestamp", 0))

    @staticmethod
    def add(message: str) -> str:
        """Write a message and return its id: a ``signal.info`` about the open position, or an ``error.info``, the only type without one.

        Args:
            message: the text

        Raises:
            InvalidTypeError: ``message`` is not a str
            OutsideRunError: there is no run
        """
        run, now = this_run("Notification.add")
        if not isinstance(message, str):
            raise InvalidTypeError(f"Notification.add: the message must be a str, got {type(message).__name__}")
        latest = latest_row(run, now)
        row = {
            **(
                {"type": "error.info", "error": {"name": "Message", "message": message}, "message": message}
                if latest is None or latest["id"] != run.signal_id
                else _of_signal(latest) | {"type": "signal.info", "note": message}
            ),
            "id": _message_id(run, now, "notification", message),
            "timestamp": now,
            "createdAt": now,
            "backtest": run.backtest,
            "symbol": run.symbol,
            "strategyName": run.strategy_name,
            "exchangeName": run.exchange_name,
            "frameName": run.frame_name,
            **stamp(run),
        }
        run.registry.PersistNotificationAdapter.write_notification_data([row], run.backtest)
        return str(row["id"])


_OF_SIGNAL: Final = (
    "position", "priceOpen", "priceTakeProfit", "priceStopLoss", "originalPriceOpen", "originalPriceTakeProfit", "originalPriceStopLoss",
    "totalEntries", "totalPartials", "cost", "pnl", "peakProfit", "maxDrawdown", "scheduledAt", "pendingAt",
)  # fmt: skip
_FLAT: Final = (
    ("Percentage", "pnlPercentage"), ("PriceOpen", "priceOpen"), ("PriceClose", "priceClose"), ("Cost", "pnlCost"),
    ("Entries", "pnlEntries"),
)  # fmt: skip


def _of_signal(row: Row) -> Row:
    """Return the fields of a notification about a position, from the position's row in the Recent contract."""
    fields = {name: row[name] for name in _OF_SIGNAL} | {"signalId": row["id"], "currentPrice": row["pnl"]["priceClose"]}
    return fields | {f"{name}{flat}": row[name][inner] for name in ("pnl", "peakProfit", "maxDrawdown") for flat, inner in _FLAT}
