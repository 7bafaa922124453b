"""The rows that a run stores, in the shapes of the TypeScript package (see ``payloads``). Pure functions: position in, dict out."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from ...errors import InvalidValueError
from ..clock import MINUTE_MS, as_datetime, iso_time
from .cost_basis import Costs, Entry, PartialClose, average_price
from .position import CloseReason, Point, Position, Signal, open_position, profit_of
from .result import Trade

__all__ = ["Row", "RunContext", "derive_id", "position_of"]

Row = dict[str, Any]
Status = Literal["opened", "scheduled", "closed", "cancelled"]
ErrorKind = Literal["error.critical", "error.info", "error.validation"]

_COST: Final = 100.0  # USD; what the TypeScript package assumes for a row without costs
_LEAST_TOLERANCE: Final = 0.001  # USD

_NAMESPACE: Final = uuid.UUID("6a1b0f6e-4c58-5d0e-9f6f-6d3b8f0c2a11")


class RunContext(msgspec.Struct, frozen=True):
    """Who trades what and where: the context of every record of a run. ``start_ms`` and ``end_ms`` (ms) are its window."""

    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    risk_name: str
    start_ms: int
    end_ms: int
    costs: Costs
    backtest: bool = True

    @property
    def risk_key(self) -> str:
        """The key of this run's position in the Risk record."""
        return f"{self.strategy_name}_{self.exchange_name}_{self.symbol}"


def derive_id(context: RunContext, *parts: object) -> str:
    """Return an id (UUID) that is the same in every run with the same context and parts, and differs if any of them differs."""
    names = (context.strategy_name, context.symbol, context.exchange_name, context.frame_name)
    # JSON: joined by a separator, ("a", "b:c") and ("a:b", "c") would have the same id.
    return str(uuid.uuid5(_NAMESPACE, msgspec.json.encode([*names, *parts]).decode()))


def signal_row(context: RunContext, position: Position) -> Row:
    """Return the row of an open position in the Signal contract, or of a scheduled one in the Schedule contract (ISignalRow)."""
    signal, opened = position.signal, position.opened_ms
    row: Row = {
        "id": position.id,
        "symbol": context.symbol,
        "strategyName": context.strategy_name,
        "exchangeName": context.exchange_name,
        "frameName": context.frame_name,
        "position": signal.side,
        "priceOpen": position.price_open,
        "priceTakeProfit": signal.price_take_profit,
        "priceStopLoss": signal.price_stop_loss,
        "minuteEstimatedTime": _minutes(signal.minute_estimated_time),
        "cost": position.entries[0].cost,
        "scheduledAt": position.scheduled_ms,
        "pendingAt": opened,
        "timestamp": opened,
        "_isScheduled": position.waits,
        "_peak": _extreme(context, position, position.peak),
        "_fall": _extreme(context, position, position.fall),
        "_partial": [_partial_row(partial) for partial in position.partials],
        "_entry": [_entry_row(entry) for entry in position.entries],
    }
    if position.price_take_profit != signal.price_take_profit:
        row["_trailingPriceTakeProfit"] = position.price_take_profit
    if position.price_stop_loss != signal.price_stop_loss:
        row["_trailingPriceStopLoss"] = position.price_stop_loss
    if position.moved_ms:
        row["_movedAt"] = position.moved_ms
    if signal.note is not None:
        row["note"] = signal.note
    if position.quantity:
        row["_quantity"] = position.quantity  # as the broker filled it: cost / price is only close to it
        row["_quantityOf"] = [len(position.entries), len(position.partials)]
    return row


def position_of(row: Row) -> Position:
    """Return the position of a stored row, the inverse of ``signal_row``. It also reads rows that the TypeScript package wrote.

    Raises InvalidValueError if the partial closes of the row close more than its entries cost.
    """
    minutes = row.get("minuteEstimatedTime")
    opened, price = int(row["pendingAt"]), float(row["priceOpen"])
    signal = Signal(
        side=row["position"],
        price_take_profit=float(row["priceTakeProfit"]),
        price_stop_loss=float(row["priceStopLoss"]),
        minute_estimated_time=math.inf if minutes is None else float(minutes),
        note=row.get("note"),
    )
    cost = float(row.get("cost") or _COST)
    position = open_position(
        row["id"], signal, price, opened, cost, scheduled_ms=int(row["scheduledAt"]), waits=bool(row.get("_isScheduled"))
    )
    if row.get("_entry"):
        position.entries = [
            Entry(float(entry["price"]), float(entry["cost"]), int(entry.get("timestamp") or opened), entry.get("_change"))
            for entry in row["_entry"]
        ]
    position.partials = [_partial_of(partial) for partial in row.get("_partial") or ()]
    tolerance = max(_LEAST_TOLERANCE, position.invested * 1e-8)  # those of that package
    if sum(partial.cost for partial in position.partials) > position.invested + tolerance:
        raise InvalidValueError(
            f"position {row['id']} of {row.get('strategyName')!r} on {row.get('symbol')} has partial closes of more than it cost",
            hint="close it on the exchange and delete its record, then start again",
        )
    position.entry_price = average_price(position.entries, position.partials)
    position.price_take_profit = float(row.get("_trailingPriceTakeProfit") or signal.price_take_profit)
    position.price_stop_loss = float(row.get("_trailingPriceStopLoss") or signal.price_stop_loss)
    position.changed = position.moved or len(position.entries) > 1
    position.moved_ms = int(row.get("_movedAt") or 0)
    # The TypeScript package keeps our fields when it changes a row, so the quantity may be that of an earlier state.
    if row.get("_quantityOf", [1, 0]) == [len(position.entries), len(position.partials)]:
        position.quantity = float(row.get("_quantity") or 0.0)
    for name, point in (("peak", row.get("_peak")), ("fall", row.get("_fall"))):
        if point:
            setattr(position, name, Point(float(point["price"]), int(point["timestamp"])))
    return position


def _entry_row(entry: Entry) -> Row:
    row = {"price": entry.price, "cost": entry.cost, "timestamp": entry.when_ms}
    return row if entry.change_id is None else {**row, "_change": entry.change_id}


def _partial_row(partial: PartialClose) -> Row:
    row = {
        "type": "profit" if partial.profit else "loss",
        "percent": partial.percent,
        "currentPrice": partial.price,
        "costBasisAtClose": partial.cost_basis,
        "entryCountAtClose": partial.entry_count,
        "timestamp": partial.when_ms,
    }
    return row if partial.change_id is None else {**row, "_change": partial.change_id}


def _partial_of(row: Row) -> PartialClose:
    return PartialClose(
        percent=float(row["percent"]),
        price=float(row["currentPrice"]),
        cost_basis=float(row["costBasisAtClose"]),
        entry_count=int(row["entryCountAtClose"]),
        when_ms=int(row.get("timestamp") or 0),
        profit=row.get("type") == "profit",
        change_id=row.get("_change"),
    )


def public_row(context: RunContext, position: Position, price: float) -> Row:
    """Return the row of the Recent contract at the market price ``price`` (IPublicSignalRow).

    Its ``priceOpen`` is the average entry, its target and stop are those in force; the ``original`` ones are those of the signal.
    """
    signal = position.signal
    return {
        **signal_row(context, position),
        "priceOpen": position.entry_price,
        "priceTakeProfit": position.price_take_profit,
        "priceStopLoss": position.price_stop_loss,
        "originalPriceOpen": position.price_open,
        "originalPriceTakeProfit": signal.price_take_profit,
        "originalPriceStopLoss": signal.price_stop_loss,
        "partialExecuted": 100 * sum(partial.cost for partial in position.partials) / position.invested if position.partials else 0,
        "totalEntries": len(position.entries),
        "totalPartials": len(position.partials),
        "pnl": pnl_row(context, position, price),
        "peakProfit": pnl_row(context, position, position.peak.price),
        "maxDrawdown": pnl_row(context, position, position.fall.price),
    }


def storage_row(context: RunContext, position: Position, price: float, when_ms: int, status: Status, reason: CloseReason | None) -> Row:
    """Return the row of the Storage contract at ``when_ms`` (ms). ``reason`` is why the position was closed (IStorageSignalRow)."""
    row = {
        **public_row(context, position, price),
        "createdAt": position.scheduled_ms,
        "updatedAt": when_ms,
        "priority": _wall_ms(),
        "status": status,
        "currentPrice": price,
    }
    if reason is not None:
        row |= {"closeReason": reason, "closeTimestamp": when_ms}
    return row


def risk_row(context: RunContext, position: Position) -> Row:
    """Return the position for the Risk record (IRiskActivePosition)."""
    signal = position.signal
    return {
        "strategyName": context.strategy_name,
        "exchangeName": context.exchange_name,
        "frameName": context.frame_name,
        "symbol": context.symbol,
        "position": signal.side,
        "priceOpen": position.price_open,
        "priceStopLoss": signal.price_stop_loss,
        "priceTakeProfit": signal.price_take_profit,
        "minuteEstimatedTime": _minutes(signal.minute_estimated_time),
        "openTimestamp": position.opened_ms,
    }


def notification_row(
    context: RunContext, kind: str, position: Position, price: float, when_ms: int, *, change_id: str | None = None, **more: object
) -> Row:
    """Return a notification about a position. ``kind`` is its type, such as ``signal.opened``; ``more`` is what that type adds.

    ``change_id`` is the id of the request that it reports.
    """
    # What happens to a signal only once is one notification, even if it is written again after a crash with a later price or time.
    parts = () if kind.startswith("signal.") else more.values() if change_id is None else (change_id,)
    row = public_row(context, position, price)
    result: Row = {
        "type": kind,
        "id": derive_id(context, position.id, kind, *parts),
        "timestamp": when_ms,
        "createdAt": when_ms,
        "backtest": context.backtest,
        "signalId": position.id,
        "currentPrice": price,
        **{key: row[key] for key in _NOTIFIED if key in row},
        **more,
    }
    for name, prefix in (("pnl", "pnl"), ("peakProfit", "peakProfit"), ("maxDrawdown", "maxDrawdown")):
        pnl = row[name]
        result |= {
            f"{prefix}Percentage": pnl["pnlPercentage"],
            f"{prefix}PriceOpen": pnl["priceOpen"],
            f"{prefix}PriceClose": pnl["priceClose"],
            f"{prefix}Cost": pnl["pnlCost"],
            f"{prefix}Entries": pnl["pnlEntries"],
        }
    return result


_NOTIFIED: Final = (
    "symbol", "strategyName", "exchangeName", "position", "priceOpen", "priceTakeProfit", "priceStopLoss", "originalPriceOpen",
    "originalPriceTakeProfit", "originalPriceStopLoss", "totalEntries", "totalPartials", "cost", "pnl", "peakProfit", "maxDrawdown",
    "note", "scheduledAt", "pendingAt",
)  # fmt: skip


def rejection_row(context: RunContext, position: Position, price: float, when_ms: int, note: str, active: int) -> Row:
    """Return the notification of a signal that a risk refused while it had ``active`` positions."""
    signal = position.signal
    row: Row = {
        "type": "risk.rejection",
        "id": derive_id(context, position.id, "risk.rejection", when_ms),
        "timestamp": when_ms,
        "createdAt": when_ms,
        "backtest": context.backtest,
        "symbol": context.symbol,
        "strategyName": context.strategy_name,
        "exchangeName": context.exchange_name,
        "rejectionNote": note,
        "rejectionId": None,
        "activePositionCount": active,
        "currentPrice": price,
        "signalId": position.id,
        "position": signal.side,
        "priceOpen": position.price_open,
        "priceTakeProfit": signal.price_take_profit,
        "priceStopLoss": signal.price_stop_loss,
        "minuteEstimatedTime": _minutes(signal.minute_estimated_time),
    }
    return row if signal.note is None else {**row, "signalNote": signal.note}


def pause_row(context: RunContext, when_ms: int, paused: bool) -> Row:
    """Return the notification of a strategy that was paused or resumed."""
    return {
        "type": "strategy.pause",
        "id": derive_id(context, when_ms, "strategy.pause", paused),
        "timestamp": when_ms,
        "createdAt": when_ms,
        "backtest": context.backtest,
        "symbol": context.symbol,
        "strategyName": context.strategy_name,
        "exchangeName": context.exchange_name,
        "frameName": context.frame_name,
        "paused": paused,
    }


def error_row(context: RunContext, when_ms: int, name: str, message: str, kind: ErrorKind) -> Row:
    """Return the notification of an error. ``kind`` is critical if it ends the run, validation if it concerns a signal."""
    return {
        "type": kind,
        "id": derive_id(context, when_ms, kind, message),
        "error": {"name": name, "message": message},
        "message": message,
        "backtest": context.backtest,
        "timestamp": when_ms,
        "createdAt": when_ms,
    }


def log_row(context: RunContext, kind: str, when_ms: int, topic: str, *args: Any) -> Row:
    """Return an entry of the Log contract at ``when_ms`` (ms). ``kind`` is log, debug, info or warn (ILogEntry)."""
    return {
        "id": derive_id(context, when_ms, topic, *args),
        "type": kind,
        "priority": _wall_ms(),
        "createdAt": iso_time(when_ms),
        "timestamp": when_ms,
        "methodContext": {
            "exchangeName": context.exchange_name,
            "strategyName": context.strategy_name,
            "frameName": context.frame_name,
        },
        "executionContext": {"symbol": context.symbol, "when": as_datetime(when_ms), "backtest": context.backtest},
        "topic": topic,
        "args": list(args),
    }


def state_row(position: Position, bucket: str, price: float, when_ms: int, status: str) -> Row:
    """Return the row of the State contract: the state of a position at the market price ``price``."""
    data = {
        "status": status,
        "currentPrice": price,
        "peakPrice": position.peak.price,
        "fallPrice": position.fall.price,
        "profitLevels": list(position.profit_levels),
        "lossLevels": list(position.loss_levels),
        "breakeven": position.breakeven,
    }
    return {"id": f"{position.id}_{bucket}", "data": data, "when": when_ms}


def session_row(context: RunContext, when_ms: int, data: Row) -> Row:
    """Return the session of a run, marked as its own. The id is the one that the TypeScript package reads."""
    mode = "backtest" if context.backtest else "live"
    names = (context.symbol, context.strategy_name, context.exchange_name, context.frame_name, mode)
    return {"id": ":".join(name for name in names if name), "data": data, "when": when_ms, "_run": True}


def summary_row(trades: Sequence[Trade]) -> Row:
    """Return what the session records about the closed trades of a run."""
    profits = [trade.stake_percentage for trade in trades]
    return {
        "trades": len(trades),
        "wins": sum(profit > 0 for profit in profits),
        "pnlPercentage": sum(profits),
        "lastCloseTimestamp": trades[-1].close_timestamp if trades else None,
    }


def pnl_row(context: RunContext, position: Position, price: float) -> Row:
    """Return the profit of ``position`` at ``price`` (IStrategyPnL). Its prices are market prices, as in the TypeScript package."""
    percentage, invested = profit_of(position, price, context.costs), position.invested
    return {
        "pnlPercentage": percentage,
        "priceOpen": position.entry_price,
        "priceClose": price,
        "pnlCost": percentage / 100 * invested,
        "pnlEntries": invested,
    }


def _extreme(context: RunContext, position: Position, point: Point) -> Row:
    return {"price": point.price, "timestamp": point.when_ms, **pnl_row(context, position, point.price)}


def _minutes(minutes: float) -> float | int:
    # The TypeScript package stores whole numbers as integers, and Infinity as a double.
    return int(minutes) if minutes.is_integer() and minutes < 2**53 else minutes


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def minutes_between(since_ms: int, until_ms: int) -> float:
    """Return the time between two timestamps (ms) in minutes."""
    return (until_ms - since_ms) / MINUTE_MS
