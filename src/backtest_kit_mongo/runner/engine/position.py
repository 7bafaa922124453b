"""A position from signal to close: prices, exits, profit. Pure functions and one record; no I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, cast

import msgspec

from ...arguments import number, plain_scalar, text
from ...errors import InvalidTypeError, InvalidValueError
from ..clock import MINUTE_MS

__all__ = [
    "LEVELS",
    "CloseReason",
    "Costs",
    "Position",
    "Side",
    "Signal",
    "SignalPriceError",
    "check_signal",
    "find_entry",
    "find_exit",
    "open_position",
    "pnl_percentage",
    "read_signal",
]

Side = Literal["long", "short"]
CloseReason = Literal["take_profit", "stop_loss", "time_expired", "closed"]

LEVELS: Final = tuple(range(10, 101, 10))
"""Milestones between the entry and the target, or the stop, in percent of that distance."""

_REQUIRED: Final = ("position", "priceTakeProfit", "priceStopLoss", "minuteEstimatedTime")
_KNOWN: Final = (*_REQUIRED, "priceOpen", "note")


class SignalPriceError(InvalidValueError):
    """A well-formed signal with a stop or target that does not fit the price. ``kind`` names the mismatch; equal cases share a kind."""

    kind = ""


class Costs(msgspec.Struct, frozen=True):
    """Trading costs: fee and slippage in percent, each per side, and the stake of a position in USD."""

    fee_percent: float = 0.1
    slippage_percent: float = 0.1
    stake_usd: float = 100.0


class Signal(msgspec.Struct, frozen=True):
    """A checked signal: prices, and minutes until the time exit (``inf``: none). ``price_open`` is a limit price to wait for."""

    side: Side
    price_take_profit: float
    price_stop_loss: float
    minute_estimated_time: float
    note: str | None
    price_open: float | None = None


class Point(msgspec.Struct, frozen=True):
    """A market price and its time in ms."""

    price: float
    when_ms: int


class Position(msgspec.Struct):
    """An open or scheduled position: prices, times in ms, and its progress since the entry.

    ``peak`` and ``fall`` are the best and the worst price for it so far, ``profit_levels`` and ``loss_levels`` the milestones
    (percent) that it has passed. ``breakeven`` says whether its price has covered the costs. ``quantity`` (base asset) is what a
    broker has filled, 0 before that. While it ``waits`` for its price, ``opened_ms`` is the time of its signal, as ``scheduled_ms`` is.
    """

    id: str
    signal: Signal
    price_open: float
    opened_ms: int
    peak: Point
    fall: Point
    profit_levels: list[int]
    loss_levels: list[int]
    breakeven: bool
    scheduled_ms: int = 0
    waits: bool = False
    quantity: float = 0.0

    @property
    def expires_ms(self) -> float:
        """When its time ends, in ms; ``inf`` if it has no time limit."""
        return self.opened_ms + self.signal.minute_estimated_time * MINUTE_MS


def read_signal(raw: object, price: float) -> Signal:
    """Check a signal that a strategy returned, against the market price ``price``.

    ``priceOpen`` is a limit: the highest price to buy at, or the lowest to sell short at. If the market meets it already, the
    position opens at once, at the market price. Otherwise it becomes the ``price_open`` of the signal, which waits for it.

    Raises InvalidTypeError or InvalidValueError if the signal is malformed, SignalPriceError if it does not fit the price.
    """
    signal = check_signal(raw)
    side, limit = signal.side, signal.price_open
    if limit is not None and ((limit >= price) if side == "long" else (limit <= price)):
        signal = msgspec.structs.replace(signal, price_open=None)
        limit = None
    entry, entry_name = (price, "price") if limit is None else (limit, "priceOpen")
    stop, target = signal.price_stop_loss, signal.price_take_profit
    ordered = stop < entry < target if side == "long" else target < entry < stop
    if not ordered:
        names = ("priceStopLoss", entry_name, "priceTakeProfit")
        order = " < ".join(names if side == "long" else reversed(names))
        error = SignalPriceError(
            f"a {side} signal needs {order}, got priceStopLoss {stop}, {entry_name} {entry}, priceTakeProfit {target}",
            hint="the price is get_average_price(symbol): the volume-weighted price of the last five closed 1m candles"
            if limit is None
            else None,
        )
        sign = 1 if side == "long" else -1
        wrong = [
            f"{name} {'below' if below else 'above'} {entry_name}"
            for name, right, below in (
                ("priceStopLoss", (entry - stop) * sign > 0, side == "short"),
                ("priceTakeProfit", (target - entry) * sign > 0, side == "long"),
            )
            if not right
        ]
        error.kind = f"{side}, {' and '.join(wrong)}"
        raise error
    return signal


def check_signal(raw: object) -> Signal:
    """Check the names, types and ranges of a signal, the part of ``read_signal`` that needs no price."""
    if not isinstance(raw, Mapping):
        raise InvalidTypeError(f"a signal must be None or a dict, got {type(raw).__name__}")
    for key in raw:
        if key not in _KNOWN:
            near = get_close_matches(str(key).replace("_", ""), _KNOWN, n=1, cutoff=0.5)
            raise InvalidValueError(
                f"a signal has no field {key!r}", hint=f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(_KNOWN)}"
            )
    for key in _REQUIRED:
        if raw.get(key) is None:
            hint = "give it in minutes, or math.inf for no time limit" if key == "minuteEstimatedTime" else None
            raise InvalidValueError(f"the signal's {key} is missing", hint=hint)
    side = plain_scalar(raw["position"])
    if not isinstance(side, str) or side not in ("long", "short"):
        raise InvalidValueError(f"the signal's position is {side!r}; it must be 'long' or 'short'")
    target, stop = _price(raw, "priceTakeProfit"), _price(raw, "priceStopLoss")
    minutes = _number(raw, "minuteEstimatedTime")
    if not minutes > 0:  # also rejects NaN
        raise InvalidValueError(f"the signal's minuteEstimatedTime is {minutes}; it must be above 0 (math.inf for no time limit)")
    note = None if raw.get("note") is None else text("the signal's note", raw["note"])
    limit = None if raw.get("priceOpen") is None else _price(raw, "priceOpen")
    return Signal(
        side=cast("Literal['long', 'short']", side),
        price_take_profit=target,
        price_stop_loss=stop,
        minute_estimated_time=minutes,
        note=note,
        price_open=limit,
    )


def open_position(
    signal_id: str, signal: Signal, price: float, when_ms: int, *, scheduled_ms: int | None = None, waits: bool = False
) -> Position:
    """Return the position that ``signal`` opens at ``price`` at ``when_ms`` (ms), or one that ``waits`` for that price from then on."""
    entry = Point(price, when_ms)
    return Position(
        id=signal_id,
        signal=signal,
        price_open=price,
        opened_ms=when_ms,
        peak=entry,
        fall=entry,
        profit_levels=[],
        loss_levels=[],
        breakeven=False,
        scheduled_ms=when_ms if scheduled_ms is None else scheduled_ms,
        waits=waits,
    )


def find_entry(waiting: Position, candle: Mapping[str, Any]) -> Literal["touched", "passed"] | None:
    """Return what a 1m candle means for a scheduled position: its price was touched, or its stop was passed before it could open.

    A candle does not say what it touched first. If it touched both, the stop counts, and the signal is not taken.
    """
    signal = waiting.signal
    if signal.side == "long":
        passed, touched = candle["low"] <= signal.price_stop_loss, candle["low"] <= waiting.price_open
    else:
        passed, touched = candle["high"] >= signal.price_stop_loss, candle["high"] >= waiting.price_open
    return "passed" if passed else "touched" if touched else None


def find_exit(position: Position, candle: Mapping[str, Any]) -> tuple[CloseReason, float] | None:
    """Return why and at which price ``position`` is closed in a 1m candle that opened at or after its entry; None if it is not.

    A touch of the stop closes at the stop, a touch of the target at the target. A candle does not say what it touched first, so
    the stop counts if it touched both. Otherwise, if the position's time ends in the candle or exactly with it, it exits at the close.
    """
    signal = position.signal
    if signal.side == "long":
        stopped = candle["low"] <= signal.price_stop_loss
        reached = candle["high"] >= signal.price_take_profit
    else:
        stopped = candle["high"] >= signal.price_stop_loss
        reached = candle["low"] <= signal.price_take_profit
    if stopped:
        return "stop_loss", signal.price_stop_loss
    if reached:
        return "take_profit", signal.price_take_profit
    if position.expires_ms <= candle["timestamp"] + MINUTE_MS:
        return "time_expired", float(candle["close"])
    return None


def pnl_percentage(side: Side, price_open: float, price_close: float, costs: Costs) -> float:
    """Return the profit in percent of the stake, after fee and slippage on both sides, as backtest-kit does (toProfitLossDto).

    Slippage moves each price against the trader: with s = slippage_percent / 100, a long buys at o = price_open * (1 + s) and
    sells at c = price_close * (1 - s); a short sells at o = price_open * (1 - s) and buys back at c = price_close * (1 + s).
    The move is (c - o) / o for a long and (o - c) / o for a short. The fee is charged on the value traded: fee_percent once at
    the entry and fee_percent * c / o at the exit. The result is move * 100 - fee_percent * (1 + c / o).
    """
    slip = costs.slippage_percent / 100
    if side == "long":
        entry, leave = price_open * (1 + slip), price_close * (1 - slip)
        move = (leave - entry) / entry
    else:
        entry, leave = price_open * (1 - slip), price_close * (1 + slip)
        move = (entry - leave) / entry
    return move * 100 - costs.fee_percent * (1 + leave / entry)


class Progress(msgspec.Struct, frozen=True):
    """What a new price achieved for a position: newly passed levels (percent), and whether it covers the costs for the first time."""

    profit_levels: tuple[int, ...]
    loss_levels: tuple[int, ...]
    breakeven: bool


def observe(position: Position, price: float, when_ms: int, costs: Costs) -> Progress | None:
    """Record the market price at ``when_ms`` (ms) in ``position``. Return the progress that it made, None if there is none.

    A level is a share of the distance from the entry to the target (profit) or to the stop (loss). Breakeven is reached when closing
    at this price would lose nothing after all costs.
    """
    gain = note_price(position, price, when_ms)
    if not gain:
        return None  # levels and breakeven are only ever reached at a new extreme
    end_price = position.signal.price_take_profit if gain > 0 else position.signal.price_stop_loss
    # Rounded, because the subtraction can turn 30 percent of the distance into 29.9999999999997.
    passed = round(abs(gain) / abs(end_price - position.price_open) * 100, 9)
    levels = position.profit_levels if gain > 0 else position.loss_levels
    new = tuple(level for level in LEVELS[len(levels) :] if level <= passed)
    levels.extend(new)
    breakeven = not position.breakeven and gain > 0 and pnl_percentage(position.signal.side, position.price_open, price, costs) >= 0
    position.breakeven |= breakeven
    if not new and not breakeven:
        return None
    return Progress(new if gain > 0 else (), () if gain > 0 else new, breakeven)


def note_price(position: Position, price: float, when_ms: int) -> float:
    """Store ``price`` at ``when_ms`` (ms) if it is a new extreme of ``position``. Return its gain over the entry (price), else 0."""
    sign = 1.0 if position.signal.side == "long" else -1.0
    gain = (price - position.price_open) * sign
    if gain > (position.peak.price - position.price_open) * sign:
        position.peak = Point(price, when_ms)
    elif gain < (position.fall.price - position.price_open) * sign:
        position.fall = Point(price, when_ms)
    else:
        return 0.0
    return gain


def _price(raw: Mapping[Any, Any], key: str) -> float:
    price = _number(raw, key)
    if not (math.isfinite(price) and price > 0):
        raise InvalidValueError(f"the signal's {key} is {price}; it must be a finite number above 0")
    return price


def _number(raw: Mapping[Any, Any], key: str) -> float:
    return number(f"the signal's {key}", raw[key])
