"""Risk, levels, log entries, caches, and what a strategy remembers."""

from __future__ import annotations

from typing import Any, Generic, TypeAlias

from .base import AwareDatetime, Int, Payload, PositionSide, T, to_int

__all__ = [
    "BreakevenData",
    "BreakevenLevel",
    "DictionaryData",
    "ExecutionContext",
    "IntervalData",
    "LogEntry",
    "MeasureData",
    "MemoryData",
    "MethodContext",
    "PartialData",
    "PartialLevels",
    "RiskData",
    "RiskPosition",
    "SessionData",
    "StateData",
]


class RiskPosition(Payload, kw_only=True):
    """One active position of the Risk contract."""

    strategy_name: str
    """The strategy."""
    exchange_name: str
    """The exchange."""
    frame_name: str
    """The frame; "" in live mode."""
    symbol: str
    """The traded pair, such as "BTCUSDT"."""
    position: PositionSide
    """"long" or "short"."""
    price_open: float
    """The entry price, in the quote currency."""
    price_stop_loss: float
    """The stop, in the quote currency."""
    price_take_profit: float
    """The target, in the quote currency."""
    minute_estimated_time: float
    """After how many minutes the position is closed at any price; ``inf``: no limit."""
    open_timestamp: Int
    """When the position was opened, in ms."""


RiskData: TypeAlias = list[tuple[str, RiskPosition]]
"""Body of the Risk contract: ordered pairs of ``{strategyName}_{exchangeName}_{symbol}`` and position."""


class PartialLevels(Payload, kw_only=True):
    """Levels that a signal has reached on the way to its target or stop: 10, 20, ... 100 percent."""

    profit_levels: list[Int]
    """The levels on the way to the target, in percent."""
    loss_levels: list[Int]
    """The levels on the way to the stop, in percent."""

    def __post_init__(self) -> None:
        self.profit_levels = [to_int(level) for level in self.profit_levels]
        self.loss_levels = [to_int(level) for level in self.loss_levels]


PartialData: TypeAlias = dict[str, PartialLevels]
"""Body of the Partial contract: levels by signal id."""


class BreakevenLevel(Payload, kw_only=True):
    """Whether a signal has reached the price at which its stop may move to the entry."""

    reached: bool
    """Whether the price has been reached."""


BreakevenData: TypeAlias = dict[str, BreakevenLevel]
"""Body of the Breakeven contract: state by signal id."""


class MethodContext(Payload, kw_only=True):
    """Where a log entry came from."""

    exchange_name: str
    """The exchange."""
    strategy_name: str
    """The strategy."""
    frame_name: str
    """The frame; "" in live mode."""


class ExecutionContext(Payload, kw_only=True):
    """What was being executed at a log entry."""

    symbol: str
    """The traded pair, such as "BTCUSDT"."""
    when: AwareDatetime
    """The simulation time: an aware datetime."""
    backtest: bool
    """True in a backtest, False in a live or paper run."""


class LogEntry(Payload, kw_only=True):
    """An entry of the Log contract."""

    id: str
    """The id of the entry."""
    type: str
    """log, debug, info, warn or agent."""
    priority: Int
    """When it was written (wall clock), in ms."""
    created_at: str
    """The time of the execution context, as ISO 8601 text."""
    timestamp: Int
    """The same in ms."""
    method_context: MethodContext | None
    """Where the entry came from."""
    execution_context: ExecutionContext | None
    """What was being executed."""
    topic: str
    """What the entry is about."""
    args: list[Any]
    """Further values."""


class MeasureData(Payload, Generic[T], kw_only=True):
    """A cached result in the Measure contract."""

    id: str
    """The key of the entry."""
    data: T
    """The result; ``MeasureData[X]`` decodes it as X."""
    removed: bool
    """Whether it was removed softly."""


class IntervalData(Payload, Generic[T], kw_only=True):
    """A once-per-interval marker in the Interval contract."""

    id: str
    """The key of the entry."""
    data: T
    """The value."""
    removed: bool
    """Whether it was removed softly."""
    when: AwareDatetime
    """The simulation time of the write: an aware datetime."""


class MemoryData(Payload, Generic[T], kw_only=True):
    """A memory in the Memory contract."""

    priority: Int
    """When it was written (wall clock), in ms."""
    data: T
    """The value."""
    removed: bool
    """Whether it was removed softly."""
    index: str
    """The searchable text."""
    when: Int
    """The simulation time of the write, in ms."""


class StateData(Payload, Generic[T], kw_only=True):
    """A value in the State contract."""

    id: str
    """``signalId_bucketName``."""
    data: T
    """The value; ``StateData[X]`` decodes it as X."""
    when: Int
    """The simulation time of the write, in ms."""


class SessionData(Payload, Generic[T], kw_only=True):
    """A value in the Session contract."""

    id: str
    """``symbol:strategy:exchange[:frame]:mode``."""
    data: T | None
    """The value; None if it was cleared."""
    when: Int
    """The simulation time of the write, in ms."""


class DictionaryData(Payload, Generic[T], kw_only=True):
    """A dictionary in the Dictionary contract."""

    id: str
    """The id of the dictionary."""
    data: T
    """The dictionary."""
    when: Int
    """The simulation time of the write, in ms."""
