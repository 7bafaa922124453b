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
    """One active position of the Risk contract. ``minute_estimated_time`` is minutes (``inf``: no limit), ``open_timestamp`` ms."""

    strategy_name: str
    exchange_name: str
    frame_name: str
    symbol: str
    position: PositionSide
    price_open: float
    price_stop_loss: float
    price_take_profit: float
    minute_estimated_time: float
    open_timestamp: Int


RiskData: TypeAlias = list[tuple[str, RiskPosition]]
"""Body of the Risk contract: ordered pairs of ``{strategyName}_{exchangeName}_{symbol}`` and position."""


class PartialLevels(Payload, kw_only=True):
    """Levels that a signal has reached on the way to its target or stop: 10, 20, ... 100 percent."""

    profit_levels: list[Int]
    loss_levels: list[Int]

    def __post_init__(self) -> None:
        self.profit_levels = [to_int(level) for level in self.profit_levels]
        self.loss_levels = [to_int(level) for level in self.loss_levels]


PartialData: TypeAlias = dict[str, PartialLevels]
"""Body of the Partial contract: levels by signal id."""


class BreakevenLevel(Payload, kw_only=True):
    """Whether a signal has reached the price at which its stop may move to the entry."""

    reached: bool


BreakevenData: TypeAlias = dict[str, BreakevenLevel]
"""Body of the Breakeven contract: state by signal id."""


class MethodContext(Payload, kw_only=True):
    """Where a log entry came from; ``frame_name`` is ``""`` in live mode."""

    exchange_name: str
    strategy_name: str
    frame_name: str


class ExecutionContext(Payload, kw_only=True):
    """What was being executed at a log entry; ``when`` is the simulation time, an aware datetime."""

    symbol: str
    when: AwareDatetime
    backtest: bool


class LogEntry(Payload, kw_only=True):
    """An entry of the Log contract.

    ``type`` is log, debug, info, warn or agent. ``priority`` is wall-clock ms. ``timestamp`` (ms) and ``created_at`` (ISO 8601 text)
    are the time of the execution context.
    """

    id: str
    type: str
    priority: Int
    created_at: str
    timestamp: Int
    method_context: MethodContext | None
    execution_context: ExecutionContext | None
    topic: str
    args: list[Any]


class MeasureData(Payload, Generic[T], kw_only=True):
    """A cached result in the Measure contract. ``id`` is its key; ``MeasureData[X]`` decodes ``data`` as X."""

    id: str
    data: T
    removed: bool


class IntervalData(Payload, Generic[T], kw_only=True):
    """A once-per-interval marker in the Interval contract; ``when`` is the simulation time, an aware datetime."""

    id: str
    data: T
    removed: bool
    when: AwareDatetime


class MemoryData(Payload, Generic[T], kw_only=True):
    """A memory in the Memory contract. ``index`` is the searchable text, ``priority`` wall-clock ms, ``when`` the simulation time in ms."""

    priority: Int
    data: T
    removed: bool
    index: str
    when: Int


class StateData(Payload, Generic[T], kw_only=True):
    """A value in the State contract. ``id`` is ``signalId_bucketName``, ``when`` simulation ms; ``StateData[X]`` decodes ``data`` as X."""

    id: str
    data: T
    when: Int


class SessionData(Payload, Generic[T], kw_only=True):
    """A session in the Session contract. ``id`` is ``symbol:strategy:exchange[:frame]:mode``, ``when`` ms; ``data`` is None if cleared."""

    id: str
    data: T | None
    when: Int


class DictionaryData(Payload, Generic[T], kw_only=True):
    """A dictionary in the Dictionary contract; ``when`` is the simulation time in ms."""

    id: str
    data: T
    when: Int
