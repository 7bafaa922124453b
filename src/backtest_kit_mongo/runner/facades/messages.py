"""Log and Notification: what a strategy says."""

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

_LONGEST: Final = 10_000  # characters of what is kept as text only, since it may be too much for a record
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")


class _Occurrences:
    """How often the same was said at one simulation time of a run: two lines that say the same are two lines."""

    _RUNS: Final = 1000  # at once; of more than that the oldest begins anew

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with a free lock; see ``stores.forks``."""
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
    """An id that a backtest gives again when it is run again; in a live run, which is never run again, one of this process."""
    # Counted are lines that say the same, so that the ids do not depend on which of two threads is first.
    base = derive_key(
        run.symbol, run.strategy_name, run.exchange_name, run.frame_name, run.backtest, "" if run.backtest else run.run_id, now, *said
    )
    return derive_key(base, _occurrences.next(run.run_id, now, base))


def as_stored(value: Any) -> tuple[Any, bytes]:
    """``value`` and its BSON; for what cannot be stored (an exception, an object) its text, without addresses in memory."""
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)  # each process has an order of its own
    try:
        return value, encode(DOMAINS["log"], (), {"": value})
    except (InvalidTypeError, InvalidValueError):
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else _ADDRESS.sub("", repr(value))
        text = text[:_LONGEST].encode(errors="backslashreplace").decode()
        return text, text.encode()


class Log:
    """Lines in the Log contract, in the framework's shape (``payloads.LogEntry``). An argument that cannot be stored is kept as text."""

    @staticmethod
    def log(topic: str, *args: Any) -> None:
        """Write a line of no particular weight."""
        _write_line("log", topic, args)

    @staticmethod
    def debug(topic: str, *args: Any) -> None:
        """Write what helps to find a mistake."""
        _write_line("debug", topic, args)

    @staticmethod
    def info(topic: str, *args: Any) -> None:
        """Write what is good to know."""
        _write_line("info", topic, args)

    @staticmethod
    def warn(topic: str, *args: Any) -> None:
        """Write what somebody should look at."""
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
        """All notifications of this symbol, strategy and exchange up to the simulation time, oldest first."""
        run, now = this_run("Notification.list")
        rows = run.registry.PersistNotificationAdapter.read_notification_data(run.backtest, limit=None)
        found = (row for row in rows if is_own(row, run) and is_known(row, "timestamp", run, now))
        return sorted(found, key=lambda row: row.get("timestamp", 0))

    @staticmethod
    def add(message: str) -> str:
        """Write a message; its id. With a position it is a ``signal.info`` about it, else an ``error.info``, the only type without one."""
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
    """What a notification about a position says of it, from its row in the Recent contract."""
    found = {name: row[name] for name in _OF_SIGNAL} | {"signalId": row["id"], "currentPrice": row["pnl"]["priceClose"]}
    return found | {f"{name}{flat}": row[name][inner] for name in ("pnl", "peakProfit", "maxDrawdown") for flat, inner in _FLAT}
