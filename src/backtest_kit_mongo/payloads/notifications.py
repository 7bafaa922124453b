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
    backtest: bool
    symbol: str
    strategy_name: str
    exchange_name: str
    signal_id: str
    position: PositionSide
    current_price: float
    price_open: float
    price_take_profit: float
    price_stop_loss: float
    original_price_open: float
    original_price_take_profit: float
    original_price_stop_loss: float
    total_entries: Int
    total_partials: Int
    cost: float
    pnl: StrategyPnL
    peak_profit: StrategyPnL
    max_drawdown: StrategyPnL
    pnl_percentage: float
    pnl_price_open: float
    pnl_price_close: float
    pnl_cost: float
    pnl_entries: float
    peak_profit_percentage: float
    peak_profit_price_open: float
    peak_profit_price_close: float
    peak_profit_cost: float
    peak_profit_entries: float
    max_drawdown_percentage: float
    max_drawdown_price_open: float
    max_drawdown_price_close: float
    max_drawdown_cost: float
    max_drawdown_entries: float
    scheduled_at: Int
    created_at: Int
    note: Maybe[str] = UNSET
    multiplier: Maybe[float] = UNSET
    isolated: Maybe[bool] = UNSET


class SignalScheduledNotification(SignalNotification, kw_only=True, tag="signal.scheduled"):
    """A signal is waiting for its price."""


class PositionNotification(SignalNotification, kw_only=True, tag="base"):
    """Fields of all notifications about a position; ``pending_at`` (ms) is when it was opened."""

    pending_at: Int


class SignalOpenedNotification(PositionNotification, kw_only=True, tag="signal.opened"):
    """A position was opened."""


class SignalClosedNotification(PositionNotification, kw_only=True, tag="signal.closed"):
    """A position was closed at ``price_close``; ``duration`` is minutes."""

    price_close: float
    close_reason: str
    duration: float


class SignalCancelledNotification(PositionNotification, kw_only=True, tag="signal.cancelled"):
    """A scheduled signal was cancelled; ``duration`` is minutes."""

    cancel_reason: str
    duration: float
    cancel_id: Maybe[str] = UNSET


class SignalInfoNotification(PositionNotification, kw_only=True, tag="signal.info"):
    """A message of a strategy about its position."""

    note: str
    notification_id: Maybe[str] = UNSET


class _LevelNotification(PositionNotification, kw_only=True, tag="base"):
    level: Int


class PartialProfitAvailableNotification(_LevelNotification, kw_only=True, tag="partial_profit.available"):
    """The price has gone ``level`` percent of the way to the target."""


class PartialLossAvailableNotification(_LevelNotification, kw_only=True, tag="partial_loss.available"):
    """The price has gone ``level`` percent of the way to the stop."""


class BreakevenAvailableNotification(PositionNotification, kw_only=True, tag="breakeven.available"):
    """The stop may move to the entry price."""


class _PercentToCloseNotification(PositionNotification, kw_only=True, tag="base"):
    percent_to_close: float


class PartialProfitCommitNotification(_PercentToCloseNotification, kw_only=True, tag="partial_profit.commit"):
    """A part (percent) was closed in profit."""


class PartialLossCommitNotification(_PercentToCloseNotification, kw_only=True, tag="partial_loss.commit"):
    """A part (percent) was closed at a loss."""


class BreakevenCommitNotification(PositionNotification, kw_only=True, tag="breakeven.commit"):
    """The stop was moved to the entry price."""


class AverageBuyCommitNotification(PositionNotification, kw_only=True, tag="average_buy.commit"):
    """An averaging entry was added; ``effective_price_open`` is the new average price, ``cost`` (USD) is that of this entry."""

    effective_price_open: float


class ActivateScheduledCommitNotification(PositionNotification, kw_only=True, tag="activate_scheduled.commit"):
    """The user opened a scheduled signal."""

    activate_id: Maybe[str] = UNSET


class CancelScheduledCommitNotification(PositionNotification, kw_only=True, tag="cancel_scheduled.commit"):
    """The user cancelled a scheduled signal."""

    cancel_id: Maybe[str] = UNSET


class ClosePendingCommitNotification(PositionNotification, kw_only=True, tag="close_pending.commit"):
    """The user closed a position."""

    close_id: Maybe[str] = UNSET


class _PercentShiftNotification(PositionNotification, kw_only=True, tag="base"):
    percent_shift: float


class TrailingStopCommitNotification(_PercentShiftNotification, kw_only=True, tag="trailing_stop.commit"):
    """The stop was shifted by a percentage."""


class TrailingTakeCommitNotification(_PercentShiftNotification, kw_only=True, tag="trailing_take.commit"):
    """The target was shifted by a percentage."""


class OrderNotification(PositionNotification, kw_only=True, tag="base"):
    """Fields of all notifications about a broker's order; some versions of the framework omit ``order_type`` in some of them."""

    order_type: Maybe[OrderType] = UNSET


class OrderSyncOpenNotification(OrderNotification, kw_only=True, tag="order_sync.open"):
    """The broker is asked to open a position."""

    order_type: OrderType


class OrderSyncCheckNotification(OrderNotification, kw_only=True, tag="order_sync.check"):
    """The broker is asked whether the order still exists."""

    order_type: OrderType


class OrderSyncCloseNotification(OrderNotification, kw_only=True, tag="order_sync.close"):
    """The broker is asked to close a position."""

    close_reason: str


class _AttemptNotification(OrderNotification, kw_only=True, tag="base"):
    attempt: Int


class OrderContinueCheckNotification(_AttemptNotification, kw_only=True, tag="order_continue.check"):
    """The order still exists, or asking about it failed and was tolerated, ``attempt`` times in a row."""


class OrderStopCheckNotification(_AttemptNotification, kw_only=True, tag="order_stop.check"):
    """The order is gone: ``reason`` is ``deleted``, or ``exhausted`` after ``attempt`` failures in a row."""

    reason: str


class OrderFillOpenNotification(_AttemptNotification, kw_only=True, tag="order_fill.open"):
    """The broker has opened the position, after ``attempt`` failures."""


class OrderFillCloseNotification(_AttemptNotification, kw_only=True, tag="order_fill.close"):
    """The broker has closed the position, after ``attempt`` failures."""

    close_reason: str


class OrderRejectOpenNotification(_AttemptNotification, kw_only=True, tag="order_reject.open"):
    """The broker permanently refused to open the position."""

    message: str


class OrderRejectCloseNotification(_AttemptNotification, kw_only=True, tag="order_reject.close"):
    """The broker permanently refused to close the position."""

    message: str
    close_reason: str


class RiskRejectionNotification(NotificationBase, kw_only=True, tag="risk.rejection"):
    """A risk profile rejected a signal. ``minute_estimated_time`` is minutes (``inf``: no limit), times are ms."""

    timestamp: Int
    backtest: bool
    symbol: str
    strategy_name: str
    exchange_name: str
    rejection_note: str
    rejection_id: str | None
    active_position_count: Int
    current_price: float
    position: PositionSide
    price_take_profit: float
    price_stop_loss: float
    created_at: Int
    signal_id: Maybe[str] = UNSET
    price_open: Maybe[float] = UNSET
    minute_estimated_time: Maybe[float] = UNSET
    multiplier: Maybe[float] = UNSET
    isolated: Maybe[bool] = UNSET
    signal_note: Maybe[str] = UNSET


class StrategyPauseNotification(NotificationBase, kw_only=True, tag="strategy.pause"):
    """A strategy was paused or resumed. Times are ms; ``frame_name`` is ``""`` in live mode."""

    timestamp: Int
    backtest: bool
    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    paused: bool
    created_at: Int


class ErrorNotification(NotificationBase, kw_only=True, tag="base"):
    """Fields of all errors; the times (ms) may be absent."""

    error: dict[str, Any]
    message: str
    backtest: Maybe[bool] = UNSET
    timestamp: Maybe[Int] = UNSET
    created_at: Maybe[Int] = UNSET


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
