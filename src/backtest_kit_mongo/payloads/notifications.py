"""The 31 types of notifications."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import UNSET

from .base import Int, Maybe, OrderType, Payload, PositionSide
from .signals import StrategyPnL

__all__ = [
    "ActivateScheduledCommitNotification",
    "AverageBuyCommitNotification",
    "BreakevenAvailableNotification",
    "BreakevenCommitNotification",
    "CancelScheduledCommitNotification",
    "ClosePendingCommitNotification",
    "CriticalErrorNotification",
    "ErrorNotification",
    "InfoErrorNotification",
    "NotificationBase",
    "NotificationModel",
    "OrderContinueCheckNotification",
    "OrderFillCloseNotification",
    "OrderFillOpenNotification",
    "OrderNotification",
    "OrderRejectCloseNotification",
    "OrderRejectOpenNotification",
    "OrderStopCheckNotification",
    "OrderSyncCheckNotification",
    "OrderSyncCloseNotification",
    "OrderSyncOpenNotification",
    "PartialLossAvailableNotification",
    "PartialLossCommitNotification",
    "PartialProfitAvailableNotification",
    "PartialProfitCommitNotification",
    "PositionNotification",
    "RiskRejectionNotification",
    "SignalCancelledNotification",
    "SignalClosedNotification",
    "SignalInfoNotification",
    "SignalNotification",
    "SignalOpenedNotification",
    "SignalScheduledNotification",
    "StrategyPauseNotification",
    "TrailingStopCommitNotification",
    "TrailingTakeCommitNotification",
    "ValidationErrorNotification",
]


class NotificationBase(Payload, kw_only=True, tag_field="type", tag="base"):
    """Base of all rows of the Notification contract; ``type`` tells them apart."""

    id: str
    """Random id of the row."""

    @property
    def type(self) -> str:
        """The stored type, for example ``signal.opened``."""
        return str(self.__struct_config__.tag)


class SignalNotification(NotificationBase, kw_only=True, tag="base"):
    """Fields of all notifications about a signal.

    ``timestamp``, ``scheduled_at`` and ``created_at`` are ms; ``*_percentage`` is percent; ``*_cost`` and ``*_entries`` are USD;
    ``total_entries`` and ``total_partials`` are counts. Flat fields repeat the numbers of ``pnl``, ``peak_profit`` and ``max_drawdown``.
    """

    timestamp: Int
    """Simulation time, in ms."""
    backtest: bool
    """Whether a backtest wrote it; False for paper and live runs."""
    symbol: str
    """Trading pair, such as ``BTCUSDT``."""
    strategy_name: str
    """Name of the strategy."""
    exchange_name: str
    """Name of the exchange."""
    signal_id: str
    """Id of the signal."""
    position: PositionSide
    """Direction of the position: ``long`` profits from rising prices, ``short`` from falling ones."""
    current_price: float
    """Market price at that time."""
    price_open: float
    """Price of the entry."""
    price_take_profit: float
    """Price at which the position closes in profit (target)."""
    price_stop_loss: float
    """Price at which the position closes at a loss (stop)."""
    original_price_open: float
    """Price of the first entry, before averaging."""
    original_price_take_profit: float
    """Target before trailing."""
    original_price_stop_loss: float
    """Stop before trailing."""
    total_entries: Int
    """Number of entries, the first one included."""
    total_partials: Int
    """Number of partial closes."""
    cost: float
    """Value of the entry in USD."""
    pnl: StrategyPnL
    """Profit or loss at the current price."""
    peak_profit: StrategyPnL
    """Profit or loss at the best moment of the position."""
    max_drawdown: StrategyPnL
    """Profit or loss at the worst moment of the position."""
    pnl_percentage: float
    """``pnlPercentage`` of ``pnl``: percent of what was invested, after costs."""
    pnl_price_open: float
    """``priceOpen`` of ``pnl``: entry price after fee and slippage."""
    pnl_price_close: float
    """``priceClose`` of ``pnl``: exit price after fee and slippage."""
    pnl_cost: float
    """``pnlCost`` of ``pnl``: profit in USD."""
    pnl_entries: float
    """``pnlEntries`` of ``pnl``: invested capital in USD."""
    peak_profit_percentage: float
    """``pnlPercentage`` of ``peakProfit``: percent of what was invested, after costs."""
    peak_profit_price_open: float
    """``priceOpen`` of ``peakProfit``: entry price after fee and slippage."""
    peak_profit_price_close: float
    """``priceClose`` of ``peakProfit``: exit price after fee and slippage."""
    peak_profit_cost: float
    """``pnlCost`` of ``peakProfit``: profit in USD."""
    peak_profit_entries: float
    """``pnlEntries`` of ``peakProfit``: invested capital in USD."""
    max_drawdown_percentage: float
    """``pnlPercentage`` of ``maxDrawdown``: percent of what was invested, after costs."""
    max_drawdown_price_open: float
    """``priceOpen`` of ``maxDrawdown``: entry price after fee and slippage."""
    max_drawdown_price_close: float
    """``priceClose`` of ``maxDrawdown``: exit price after fee and slippage."""
    max_drawdown_cost: float
    """``pnlCost`` of ``maxDrawdown``: profit in USD."""
    max_drawdown_entries: float
    """``pnlEntries`` of ``maxDrawdown``: invested capital in USD."""
    scheduled_at: Int
    """When the signal was created, in ms."""
    created_at: Int
    """When the row was created, in ms of simulation time."""
    note: Maybe[str] = UNSET
    """Text of the strategy."""
    multiplier: Maybe[float] = UNSET
    """Leverage. Written by versions of the framework after 18.7."""
    isolated: Maybe[bool] = UNSET
    """True for isolated margin, False for cross margin. Written by versions of the framework after 18.7."""


class SignalScheduledNotification(SignalNotification, kw_only=True, tag="signal.scheduled"):
    """A signal is waiting for its price."""


class PositionNotification(SignalNotification, kw_only=True, tag="base"):
    """Fields of all notifications about a position; ``pending_at`` (ms) is when it was opened."""

    pending_at: Int
    """When the position was opened, in ms."""


class SignalOpenedNotification(PositionNotification, kw_only=True, tag="signal.opened"):
    """A position was opened."""


class SignalClosedNotification(PositionNotification, kw_only=True, tag="signal.closed"):
    """A position was closed at ``price_close``; ``duration`` is minutes."""

    price_close: float
    """Price of the exit."""
    close_reason: str
    """Why it closed: ``time_expired``, ``take_profit``, ``stop_loss``, ``closed`` or another reason of a newer version."""
    duration: float
    """Minutes that the position was open."""


class SignalCancelledNotification(PositionNotification, kw_only=True, tag="signal.cancelled"):
    """A scheduled signal was cancelled; ``duration`` is minutes."""

    cancel_reason: str
    """Why it was cancelled."""
    duration: float
    """Minutes from the creation of the signal to its end."""
    cancel_id: Maybe[str] = UNSET
    """Id that the user gave to the request to cancel."""


class SignalInfoNotification(PositionNotification, kw_only=True, tag="signal.info"):
    """A message of a strategy about its position."""

    note: str
    """The message."""
    notification_id: Maybe[str] = UNSET
    """Id that the strategy gave to the message."""


class _LevelNotification(PositionNotification, kw_only=True, tag="base"):
    level: Int
    """Percent of the way that the price has gone (10, 20, ... 100)."""


class PartialProfitAvailableNotification(_LevelNotification, kw_only=True, tag="partial_profit.available"):
    """The price has gone ``level`` percent of the way to the target."""


class PartialLossAvailableNotification(_LevelNotification, kw_only=True, tag="partial_loss.available"):
    """The price has gone ``level`` percent of the way to the stop."""


class BreakevenAvailableNotification(PositionNotification, kw_only=True, tag="breakeven.available"):
    """The stop may move to the entry price."""


class _PercentToCloseNotification(PositionNotification, kw_only=True, tag="base"):
    percent_to_close: float
    """Share of what is left that is closed, in percent (0-100)."""


class PartialProfitCommitNotification(_PercentToCloseNotification, kw_only=True, tag="partial_profit.commit"):
    """A part (percent) was closed in profit."""


class PartialLossCommitNotification(_PercentToCloseNotification, kw_only=True, tag="partial_loss.commit"):
    """A part (percent) was closed at a loss."""


class BreakevenCommitNotification(PositionNotification, kw_only=True, tag="breakeven.commit"):
    """The stop was moved to the entry price."""


class AverageBuyCommitNotification(PositionNotification, kw_only=True, tag="average_buy.commit"):
    """An averaging entry was added; ``effective_price_open`` is the new average price, ``cost`` (USD) is that of this entry."""

    effective_price_open: float
    """Average price of all entries."""


class ActivateScheduledCommitNotification(PositionNotification, kw_only=True, tag="activate_scheduled.commit"):
    """The user opened a scheduled signal."""

    activate_id: Maybe[str] = UNSET
    """Id that the user gave to the request to open."""


class CancelScheduledCommitNotification(PositionNotification, kw_only=True, tag="cancel_scheduled.commit"):
    """The user cancelled a scheduled signal."""

    cancel_id: Maybe[str] = UNSET
    """Id that the user gave to the request to cancel."""


class ClosePendingCommitNotification(PositionNotification, kw_only=True, tag="close_pending.commit"):
    """The user closed a position."""

    close_id: Maybe[str] = UNSET
    """Id that the user gave to the request to close."""


class _PercentShiftNotification(PositionNotification, kw_only=True, tag="base"):
    percent_shift: float
    """Distance of the shift, in percent of the entry price."""


class TrailingStopCommitNotification(_PercentShiftNotification, kw_only=True, tag="trailing_stop.commit"):
    """The stop was shifted by a percentage."""


class TrailingTakeCommitNotification(_PercentShiftNotification, kw_only=True, tag="trailing_take.commit"):
    """The target was shifted by a percentage."""


class OrderNotification(PositionNotification, kw_only=True, tag="base"):
    """Fields of all notifications about a broker's order; some versions of the framework omit ``order_type`` in some of them."""

    order_type: Maybe[OrderType] = UNSET
    """What the order is for: ``schedule`` a waiting entry, ``active`` a position."""


class OrderSyncOpenNotification(OrderNotification, kw_only=True, tag="order_sync.open"):
    """The broker is asked to open a position."""

    order_type: OrderType
    """What the order is for: ``schedule`` a waiting entry, ``active`` a position."""


class OrderSyncCheckNotification(OrderNotification, kw_only=True, tag="order_sync.check"):
    """The broker is asked whether the order still exists."""

    order_type: OrderType
    """What the order is for: ``schedule`` a waiting entry, ``active`` a position."""


class OrderSyncCloseNotification(OrderNotification, kw_only=True, tag="order_sync.close"):
    """The broker is asked to close a position."""

    close_reason: str
    """Why it closed: ``time_expired``, ``take_profit``, ``stop_loss``, ``closed`` or another reason of a newer version."""


class _AttemptNotification(OrderNotification, kw_only=True, tag="base"):
    attempt: Int
    """Number of failures in a row."""


class OrderContinueCheckNotification(_AttemptNotification, kw_only=True, tag="order_continue.check"):
    """The order still exists, or asking about it failed and was tolerated, ``attempt`` times in a row."""


class OrderStopCheckNotification(_AttemptNotification, kw_only=True, tag="order_stop.check"):
    """The order is gone: ``reason`` is ``deleted``, or ``exhausted`` after ``attempt`` failures in a row."""

    reason: str
    """``deleted`` or ``exhausted``."""


class OrderFillOpenNotification(_AttemptNotification, kw_only=True, tag="order_fill.open"):
    """The broker has opened the position, after ``attempt`` failures."""


class OrderFillCloseNotification(_AttemptNotification, kw_only=True, tag="order_fill.close"):
    """The broker has closed the position, after ``attempt`` failures."""

    close_reason: str
    """Why it closed: ``time_expired``, ``take_profit``, ``stop_loss``, ``closed`` or another reason of a newer version."""


class OrderRejectOpenNotification(_AttemptNotification, kw_only=True, tag="order_reject.open"):
    """The broker permanently refused to open the position."""

    message: str
    """Text of the error."""


class OrderRejectCloseNotification(_AttemptNotification, kw_only=True, tag="order_reject.close"):
    """The broker permanently refused to close the position."""

    message: str
    """Text of the error."""
    close_reason: str
    """Why it closed: ``time_expired``, ``take_profit``, ``stop_loss``, ``closed`` or another reason of a newer version."""


class RiskRejectionNotification(NotificationBase, kw_only=True, tag="risk.rejection"):
    """A risk profile rejected a signal. ``minute_estimated_time`` is minutes (``inf``: no limit), times are ms."""

    timestamp: Int
    """Simulation time, in ms."""
    backtest: bool
    """Whether a backtest wrote it; False for paper and live runs."""
    symbol: str
    """Trading pair, such as ``BTCUSDT``."""
    strategy_name: str
    """Name of the strategy."""
    exchange_name: str
    """Name of the exchange."""
    rejection_note: str
    """Why the signal was rejected."""
    rejection_id: str | None
    """Id that the validation gave."""
    active_position_count: Int
    """Positions that were open under the risk profile."""
    current_price: float
    """Market price at that time."""
    position: PositionSide
    """Direction of the position: ``long`` profits from rising prices, ``short`` from falling ones."""
    price_take_profit: float
    """Price at which the position closes in profit (target)."""
    price_stop_loss: float
    """Price at which the position closes at a loss (stop)."""
    created_at: Int
    """When the row was created, in ms of simulation time."""
    signal_id: Maybe[str] = UNSET
    """Id of the signal."""
    price_open: Maybe[float] = UNSET
    """Price of the entry."""
    minute_estimated_time: Maybe[float] = UNSET
    """Minutes after which the position closes at the market price; ``inf`` for no limit."""
    multiplier: Maybe[float] = UNSET
    """Leverage. Written by versions of the framework after 18.7."""
    isolated: Maybe[bool] = UNSET
    """True for isolated margin, False for cross margin. Written by versions of the framework after 18.7."""
    signal_note: Maybe[str] = UNSET
    """Text of the signal."""


class StrategyPauseNotification(NotificationBase, kw_only=True, tag="strategy.pause"):
    """A strategy was paused or resumed. Times are ms; ``frame_name`` is ``""`` in live mode."""

    timestamp: Int
    """Simulation time, in ms."""
    backtest: bool
    """Whether a backtest wrote it; False for paper and live runs."""
    symbol: str
    """Trading pair, such as ``BTCUSDT``."""
    strategy_name: str
    """Name of the strategy."""
    exchange_name: str
    """Name of the exchange."""
    frame_name: str
    """Name of the window of a backtest; ``""`` in paper and live runs."""
    paused: bool
    """True if it was paused, False if it was resumed."""
    created_at: Int
    """When the row was created, in ms of simulation time."""


class ErrorNotification(NotificationBase, kw_only=True, tag="base"):
    """Fields of all errors; the times (ms) may be absent."""

    error: dict[str, Any]
    """The error as an object, with its stack."""
    message: str
    """Text of the error."""
    backtest: Maybe[bool] = UNSET
    """Whether a backtest wrote it; False for paper and live runs."""
    timestamp: Maybe[Int] = UNSET
    """Simulation time, in ms."""
    created_at: Maybe[Int] = UNSET
    """When the row was created, in ms of simulation time."""


class InfoErrorNotification(ErrorNotification, kw_only=True, tag="error.info"):
    """An error that the run survives."""


class CriticalErrorNotification(ErrorNotification, kw_only=True, tag="error.critical"):
    """An error that ends the process."""


class ValidationErrorNotification(ErrorNotification, kw_only=True, tag="error.validation"):
    """A risk validation that failed with an error."""


NotificationModel: TypeAlias = (
    SignalOpenedNotification
    | SignalScheduledNotification
    | SignalClosedNotification
    | SignalCancelledNotification
    | SignalInfoNotification
    | PartialProfitAvailableNotification
    | PartialLossAvailableNotification
    | BreakevenAvailableNotification
    | PartialProfitCommitNotification
    | PartialLossCommitNotification
    | BreakevenCommitNotification
    | AverageBuyCommitNotification
    | ActivateScheduledCommitNotification
    | CancelScheduledCommitNotification
    | ClosePendingCommitNotification
    | TrailingStopCommitNotification
    | TrailingTakeCommitNotification
    | OrderSyncOpenNotification
    | OrderSyncCheckNotification
    | OrderSyncCloseNotification
    | OrderContinueCheckNotification
    | OrderStopCheckNotification
    | OrderFillOpenNotification
    | OrderFillCloseNotification
    | OrderRejectOpenNotification
    | OrderRejectCloseNotification
    | RiskRejectionNotification
    | StrategyPauseNotification
    | InfoErrorNotification
    | CriticalErrorNotification
    | ValidationErrorNotification
)
"""A row of the Notification contract; msgspec tells the 31 types apart by ``type``."""
