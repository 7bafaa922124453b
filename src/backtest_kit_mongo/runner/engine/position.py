"""A position from signal to close: prices, exits, profit. Pure functions and one record; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, cast

import msgspec

from ...arguments import number, plain_scalar, positive_number, text
from ...errors import InvalidTypeError, InvalidValueError
from ..clock import MINUTE_MS
from ..registrations import check_awaited
from .cost_basis import Costs, Entry, Leg, PartialClose, Side, average_price, legs_of, pnl_percentage, profit_of_legs

__all__ = [
    "LEVELS",
    "CloseReason",
    "Position",
    "Signal",
    "SignalPriceError",
    "add_entry",
    "can_move",
    "check_signal",
    "close_part",
    "find_entry",
    "find_exit",
    "last_change_ms",
    "left_of",
    "nothing_left",
    "open_position",
    "profit_of",
    "read_signal",
]

CloseReason = Literal["take_profit", "stop_loss", "time_expired", "closed"]

LEVELS: Final = tuple(range(10, 101, 10))
"""Milestones between the entry and the target, or the stop, in percent of that distance."""

_REQUIRED: Final = ("position", "priceTakeProfit", "priceStopLoss", "minuteEstimatedTime")
_KNOWN: Final = (*_REQUIRED, "priceOpen", "note")


class SignalPriceError(InvalidValueError):
    """A well-formed signal with a stop or target that does not fit the price. ``kind`` names the mismatch; equal cases share a kind."""

    kind = ""


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

    ``price_open`` is the price of the first entry, ``entry_price`` the average price of what is left. ``price_take_profit`` and
    ``price_stop_loss`` are those of the signal until they are moved. ``peak`` and ``fall`` are the best and the worst price for it so
    far, ``profit_levels`` and ``loss_levels`` the milestones (percent) that it has passed. ``breakeven`` says whether its price has
    covered the costs. ``quantity`` (base asset) is what a broker has filled and not closed, 0 if no broker has reported it. While it
    ``waits`` for its price, ``opened_ms`` is the time of its signal, as ``scheduled_ms`` is. ``sign`` is 1 for a long and -1 for a short:
    what a rise of the price is worth to it. ``changed`` says whether its average entry, its stop or its target are no longer the first,
    ``moved_ms`` when its stop or target was moved last (0: never): candles before that do not touch them.
    """

    id: str
    signal: Signal
    price_open: float
    entry_price: float
    price_take_profit: float
    price_stop_loss: float
    opened_ms: int
    entries: list[Entry]
    partials: list[PartialClose]
    peak: Point
    fall: Point
    profit_levels: list[int]
    loss_levels: list[int]
    breakeven: bool
    sign: float
    scheduled_ms: int = 0
    waits: bool = False
    quantity: float = 0.0
    changed: bool = False
    moved_ms: int = 0

    @property
    def expires_ms(self) -> float:
        """When its time ends, in ms; ``inf`` if it has no time limit."""
        return self.opened_ms + self.signal.minute_estimated_time * MINUTE_MS

    @property
    def moved(self) -> bool:
        """Whether its stop or its target is not that of the signal."""
        return self.price_take_profit != self.signal.price_take_profit or self.price_stop_loss != self.signal.price_stop_loss

    @property
    def invested(self) -> float:
        """The cost of all entries in USD."""
        entries = self.entries
        return entries[0].cost if len(entries) == 1 else sum(entry.cost for entry in entries)


def read_signal(raw: object, price: float) -> Signal:
    """Check a signal that a strategy returned, against the market price ``price``.

    ``priceOpen`` is a limit: the highest price to buy at, or the lowest to sell short at. If the market meets it already, the
    position opens at once, at the market price. Otherwise it becomes the ``price_open`` of the signal, which waits for it.

    Raises InvalidTypeError or InvalidValueError if the signal is malformed, SignalPriceError if it does not fit the price.
    """
    check_awaited("get_signal", raw)
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
    minutes = number("the signal's minuteEstimatedTime", raw["minuteEstimatedTime"])
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
    signal_id: str,
    signal: Signal,
    price: float,
    when_ms: int,
    cost: float,
    *,
    scheduled_ms: int | None = None,
    waits: bool = False,
) -> Position:
    """Return the position that ``signal`` opens at ``price`` at ``when_ms`` (ms), or one that ``waits`` for that price from then on.

    ``cost`` is in USD.
    """
    entry = Point(price, when_ms)
    return Position(
        id=signal_id,
        signal=signal,
        price_open=price,
        entry_price=price,
        price_take_profit=signal.price_take_profit,
        price_stop_loss=signal.price_stop_loss,
        opened_ms=when_ms,
        entries=[Entry(price, cost, when_ms)],
        partials=[],
        peak=entry,
        fall=entry,
        profit_levels=[],
        loss_levels=[],
        breakeven=False,
        sign=1.0 if signal.side == "long" else -1.0,
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
    stop, target = position.price_stop_loss, position.price_take_profit
    if position.signal.side == "long":
        stopped, reached = candle["low"] <= stop, candle["high"] >= target
    else:
        stopped, reached = candle["high"] >= stop, candle["low"] <= target
    if stopped:
        return "stop_loss", stop
    if reached:
        return "take_profit", target
    if position.expires_ms <= candle["timestamp"] + MINUTE_MS:
        return "time_expired", float(candle["close"])
    return None


def profit_of(position: Position, price: float, costs: Costs) -> float:
    """Return the profit in percent of all that was invested, after all costs, if what is left of ``position`` is closed at ``price``."""
    if not position.partials and len(position.entries) == 1:
        return pnl_percentage(position.signal.side, position.price_open, price, costs)
    return profit_of_legs(position.signal.side, position.entries, position.partials, price, costs)


def left_of(position: Position) -> Leg:
    """Return what is left of ``position``."""
    *_, left = legs_of(position.entries, position.partials)
    return left


def last_change_ms(position: Position) -> int:
    """Return when the average entry, the stop or the target of ``position`` changed last (ms); when it was opened if they never did."""
    return max(position.moved_ms, position.entries[-1].when_ms)


def nothing_left(position: Position) -> bool:
    """Whether partial closes have closed all of ``position``, but for what rounding leaves (PARTIAL_FULL_CLOSE_EPSILON)."""
    return bool(position.partials) and left_of(position).cost <= position.invested * 1e-9


def add_entry(position: Position, entry: Entry) -> None:
    """Add a further entry to ``position``."""
    position.entries.append(entry)
    position.changed = True
    position.entry_price = average_price(position.entries, position.partials)


def close_part(position: Position, percent: float, price: float, when_ms: int, change_id: str | None) -> None:
    """Close ``percent`` of what is left of ``position`` at ``price``."""
    profit = (price - position.entry_price) * position.sign > 0
    position.partials.append(PartialClose(percent, price, left_of(position).cost, len(position.entries), when_ms, profit, change_id))


def can_move(position: Position, kind: Literal["trailing-stop", "trailing-take"], to: float, prices: Iterable[float]) -> bool:
    """Whether the stop or the target may move ``to`` a price. ``prices`` are those of the market: its average, and its last close.

    Both must stay on their side of the market, or the next candle would touch them at a price that the market has left: the average
    is behind the close. A stop only moves towards the market, so that the risk never grows.
    """
    sign = position.sign
    if kind == "trailing-stop":
        return all((price - to) * sign > 0 for price in prices) and (to - position.price_stop_loss) * sign > 0
    return all((to - price) * sign > 0 for price in prices) and to != position.price_take_profit


class Progress(msgspec.Struct, frozen=True):
    """What a new price achieved for a position: newly passed levels (percent), and whether it covers the costs for the first time."""

    profit_levels: tuple[int, ...]
    loss_levels: tuple[int, ...]
    breakeven: bool


def observe(position: Position, price: float, when_ms: int, costs: Costs) -> Progress | None:
    """Record the market price at ``when_ms`` (ms) in ``position``. Return the progress that it made, None if there is none.

    A level is a share of the distance from the average entry to the target (profit) or to the stop (loss). A stop that was moved beyond
    the entry has no loss levels before it. Breakeven is reached when closing at this price would lose nothing after all costs.
    """
    # As long as nothing was changed, levels and breakeven are only ever reached at a new extreme.
    if not note_price(position, price, when_ms) and not position.changed:
        return None
    gain = (price - position.entry_price) * position.sign
    end_price = position.price_take_profit if gain > 0 else position.price_stop_loss
    distance = (end_price - position.entry_price) * (position.sign if gain > 0 else -position.sign)
    # Rounded, because the subtraction can turn 30 percent of the distance into 29.9999999999997.
    passed = round(abs(gain) / distance * 100, 9) if distance > 0 else 0.0
    levels = position.profit_levels if gain > 0 else position.loss_levels
    new = tuple(level for level in LEVELS[len(levels) :] if level <= passed)
    levels.extend(new)
    breakeven = not position.breakeven and gain > 0 and profit_of(position, price, costs) >= 0
    position.breakeven |= breakeven
    if not new and not breakeven:
        return None
    return Progress(new if gain > 0 else (), () if gain > 0 else new, breakeven)


def note_price(position: Position, price: float, when_ms: int) -> bool:
    """Store ``price`` at ``when_ms`` (ms) if it is a new extreme of ``position``. Return whether it is."""
    sign = position.sign
    if (price - position.peak.price) * sign > 0:
        position.peak = Point(price, when_ms)
    elif (price - position.fall.price) * sign < 0:
        position.fall = Point(price, when_ms)
    else:
        return False
    return True


def _price(raw: Mapping[Any, Any], key: str) -> float:
    return positive_number(f"the signal's {key}", raw[key])
