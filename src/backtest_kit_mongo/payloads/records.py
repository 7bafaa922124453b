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
    """Name of the strategy."""
    exchange_name: str
    """Name of the exchange."""
    frame_name: str
    """Name of the window of a backtest; ``""`` in paper and live runs."""
    symbol: str
    """Trading pair, such as ``BTCUSDT``."""
    position: PositionSide
    """Direction of the position: ``long`` profits from rising prices, ``short`` from falling ones."""
    price_open: float
    """Price of the entry."""
    price_stop_loss: float
    """Price at which the position closes at a loss (stop)."""
    price_take_profit: float
    """Price at which the position closes in profit (target)."""
    minute_estimated_time: float
    """Minutes after which the position closes at the market price; ``inf`` for no limit."""
    open_timestamp: Int
    """When the position was opened, in ms."""


RiskData: TypeAlias = list[tuple[str, RiskPosition]]
"""Body of the Risk contract: ordered pairs of ``{strategyName}_{exchangeName}_{symbol}`` and position."""


class PartialLevels(Payload, kw_only=True):
    """Levels that a signal has reached on the way to its target or stop: 10, 20, ... 100 percent."""

    profit_levels: list[Int]
    """Percent of the way to the target, each once."""
    loss_levels: list[Int]
    """Percent of the way to the stop, each once."""

    def __post_init__(self) -> None:
        self.profit_levels = [to_int(level) for level in self.profit_levels]
        self.loss_levels = [to_int(level) for level in self.loss_levels]


PartialData: TypeAlias = dict[str, PartialLevels]
"""Body of the Partial contract: levels by signal id."""


class BreakevenLevel(Payload, kw_only=True):
    """Whether a signal has reached the price at which its stop may move to the entry."""

    reached: bool
    """Whether the price was reached."""


BreakevenData: TypeAlias = dict[str, BreakevenLevel]
"""Body of the Breakeven contract: state by signal id."""


class MethodContext(Payload, kw_only=True):
    """Where a log entry came from; ``frame_name`` is ``""`` in live mode."""

    exchange_name: str
    """Name of the exchange."""
    strategy_name: str
    """Name of the strategy."""
    frame_name: str
    """Name of the window of a backtest; ``""`` in paper and live runs."""


class ExecutionContext(Payload, kw_only=True):
    """What was being executed at a log entry; ``when`` is the simulation time, an aware datetime."""

    symbol: str
    """Trading pair, such as ``BTCUSDT``."""
    when: AwareDatetime
    """Simulation time."""
    backtest: bool
    """Whether a backtest wrote it; False for paper and live runs."""


class LogEntry(Payload, kw_only=True):
    """An entry of the Log contract.

    ``type`` is log, debug, info, warn or agent. ``priority`` is wall-clock ms. ``timestamp`` (ms) and ``created_at`` (ISO 8601 text)
    are the time of the execution context.
    """

    id: str
    """Random id."""
    type: str
    """``log``, ``debug``, ``info``, ``warn`` or ``agent``."""
    priority: Int
    """Wall-clock time of the entry, in ms."""
    created_at: str
    """Time of the execution context as ISO 8601 text."""
    timestamp: Int
    """Time of the execution context, in ms."""
    method_context: MethodContext | None
    """Which strategy wrote it; null outside a run."""
    execution_context: ExecutionContext | None
    """What was being executed; null outside a run."""
    topic: str
    """First word of the entry."""
    args: list[Any]
    """Everything else that was logged."""


class MeasureData(Payload, Generic[T], kw_only=True):
    """A cached result in the Measure contract. ``id`` is its key; ``MeasureData[X]`` decodes ``data`` as X."""

    id: str
    """Key of the answer."""
    data: T
    """The stored value."""
    removed: bool
    """True after a remove: the record reads as absent."""


class IntervalData(Payload, Generic[T], kw_only=True):
    """A once-per-interval marker in the Interval contract; ``when`` is the simulation time, an aware datetime."""

    id: str
    """Key of the marker."""
    data: T
    """The stored value."""
    removed: bool
    """True after a remove: the record reads as absent."""
    when: AwareDatetime
    """Simulation time of the write."""


class MemoryData(Payload, Generic[T], kw_only=True):
    """A memory in the Memory contract. ``index`` is the searchable text, ``priority`` wall-clock ms, ``when`` the simulation time in ms."""

    priority: Int
    """Wall-clock time of the last write, in ms. Lists are sorted by it."""
    data: T
    """The stored value."""
    removed: bool
    """True after a remove: the record reads as absent."""
    index: str
    """Text that ``Memory.search`` searches."""
    when: Int
    """Simulation time of the write, in ms."""


class StateData(Payload, Generic[T], kw_only=True):
    """A value in the State contract. ``id`` is ``signalId_bucketName``, ``when`` simulation ms; ``StateData[X]`` decodes ``data`` as X."""

    id: str
    """``signalId_bucketName``."""
    data: T
    """The stored value."""
    when: Int
    """Simulation time of the write, in ms."""


class SessionData(Payload, Generic[T], kw_only=True):
    """A session in the Session contract. ``id`` is ``symbol:strategy:exchange[:frame]:mode``, ``when`` ms; ``data`` is None if cleared."""

    id: str
    """``symbol:strategy:exchange[:frame]:mode``."""
    data: T | None
    """The stored value; null if it was cleared."""
    when: Int
    """Simulation time of the write, in ms."""


class DictionaryData(Payload, Generic[T], kw_only=True):
    """A dictionary in the Dictionary contract; ``when`` is the simulation time in ms."""

    id: str
    """Id of the value, as the framework chose it."""
    data: T
    """The stored value."""
    when: Int
    """Simulation time of the write, in ms."""
