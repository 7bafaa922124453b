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
    """The id of the notification."""

    @property
    def type(self) -> str:
        """The stored type, for example ``signal.opened``."""
        return str(self.__struct_config__.tag)


class SignalNotification(NotificationBase, kw_only=True, tag="base"):
    """Fields of all notifications about a signal. Flat fields repeat the numbers of ``pnl``, ``peak_profit`` and ``max_drawdown``."""

    timestamp: Int
    """The time of the event (simulation time), in ms."""
    backtest: bool
    """True in a backtest, False in a live or paper run."""
    symbol: str
    """The traded pair, such as "BTCUSDT"."""
    strategy_name: str
    """The strategy."""
    exchange_name: str
    """The exchange."""
    signal_id: str
    """The id of the signal."""
    position: PositionSide
    """"long" or "short"."""
    current_price: float
    """The market price, in the quote currency."""
    price_open: float
    """The entry price, in the quote currency."""
    price_take_profit: float
    """The target, in the quote currency."""
    price_stop_loss: float
    """The stop, in the quote currency."""
    original_price_open: float
    """The entry price before averaging, in the quote currency."""
    original_price_take_profit: float
    """The target before trailing, in the quote currency."""
    original_price_stop_loss: float
    """The stop before trailing, in the quote currency."""
    total_entries: Int
    """How many entries the position has."""
    total_partials: Int
    """How many partial closes it had."""
    cost: float
    """The cost of the entry, in USD."""
    pnl: StrategyPnL
    """The profit or loss at that time."""
    peak_profit: StrategyPnL
    """The profit at its best moment."""
    max_drawdown: StrategyPnL
    """The loss at its worst moment."""
    pnl_percentage: float
    """``pnl_percentage`` of ``pnl`` (percent)."""
    pnl_price_open: float
    """``price_open`` of ``pnl`` (quote currency)."""
    pnl_price_close: float
    """``price_close`` of ``pnl`` (quote currency)."""
    pnl_cost: float
    """``pnl_cost`` of ``pnl`` (USD)."""
    pnl_entries: float
    """``pnl_entries`` of ``pnl`` (USD)."""
    peak_profit_percentage: float
    """``pnl_percentage`` of ``peak_profit`` (percent)."""
    peak_profit_price_open: float
    """``price_open`` of ``peak_profit`` (quote currency)."""
    peak_profit_price_close: float
    """``price_close`` of ``peak_profit`` (quote currency)."""
    peak_profit_cost: float
    """``pnl_cost`` of ``peak_profit`` (USD)."""
    peak_profit_entries: float
    """``pnl_entries`` of ``peak_profit`` (USD)."""
    max_drawdown_percentage: float
    """``pnl_percentage`` of ``max_drawdown`` (percent)."""
    max_drawdown_price_open: float
    """``price_open`` of ``max_drawdown`` (quote currency)."""
    max_drawdown_price_close: float
    """``price_close`` of ``max_drawdown`` (quote currency)."""
    max_drawdown_cost: float
    """``pnl_cost`` of ``max_drawdown`` (USD)."""
    max_drawdown_entries: float
    """``pnl_entries`` of ``max_drawdown`` (USD)."""
    scheduled_at: Int
    """When the signal was made, in ms."""
    created_at: Int
    """When the row was made (simulation time), in ms."""
    note: Maybe[str] = UNSET
    """A text of the strategy."""
    multiplier: Maybe[float] = UNSET
    """Leverage. Written only by framework versions after 18.7."""
    isolated: Maybe[bool] = UNSET
    """Whether the margin is isolated. Written only by framework versions after 18.7."""


class SignalScheduledNotification(SignalNotification, kw_only=True, tag="signal.scheduled"):
    """A signal is waiting for its price."""


class PositionNotification(SignalNotification, kw_only=True, tag="base"):
    """Fields of all notifications about a position."""

    pending_at: Int
    """When the position was opened, in ms."""


class SignalOpenedNotification(PositionNotification, kw_only=True, tag="signal.opened"):
    """A position was opened."""


class SignalClosedNotification(PositionNotification, kw_only=True, tag="signal.closed"):
    """A position was closed."""

    price_close: float
    """The exit price, in the quote currency."""
    close_reason: str
    """Why it was closed: time_expired, take_profit, stop_loss, closed, ..."""
    duration: float
    """How long it lasted, in minutes."""


class SignalCancelledNotification(PositionNotification, kw_only=True, tag="signal.cancelled"):
    """A scheduled signal was cancelled."""

    cancel_reason: str
    """Why it was cancelled: timeout, price_reject, risk_reject, order_reject, user, ..."""
    duration: float
    """How long it lasted, in minutes."""
    cancel_id: Maybe[str] = UNSET
    """The id that the user gave to the cancellation."""


class SignalInfoNotification(PositionNotification, kw_only=True, tag="signal.info"):
    """A message of a strategy about its position."""

    note: str
    """The message."""
    notification_id: Maybe[str] = UNSET
    """The id that the strategy gave to it."""


class _LevelNotification(PositionNotification, kw_only=True, tag="base"):
    level: Int
    """How far the price has gone, in percent (10, 20, ... 100)."""


class PartialProfitAvailableNotification(_LevelNotification, kw_only=True, tag="partial_profit.available"):
    """The price has gone ``level`` percent of the way to the target."""


class PartialLossAvailableNotification(_LevelNotification, kw_only=True, tag="partial_loss.available"):
    """The price has gone ``level`` percent of the way to the stop."""


class BreakevenAvailableNotification(PositionNotification, kw_only=True, tag="breakeven.available"):
    """The stop may move to the entry price."""


class _PercentToCloseNotification(PositionNotification, kw_only=True, tag="base"):
    percent_to_close: float
    """How much of what was left to close, in percent (0-100)."""


class PartialProfitCommitNotification(_PercentToCloseNotification, kw_only=True, tag="partial_profit.commit"):
    """A part was closed in profit."""


class PartialLossCommitNotification(_PercentToCloseNotification, kw_only=True, tag="partial_loss.commit"):
    """A part was closed at a loss."""


class BreakevenCommitNotification(PositionNotification, kw_only=True, tag="breakeven.commit"):
    """The stop was moved to the entry price."""


class AverageBuyCommitNotification(PositionNotification, kw_only=True, tag="average_buy.commit"):
    """An averaging entry was added; ``cost`` is that of this entry."""

    effective_price_open: float
    """The average entry price with the new entry, in the quote currency."""


class ActivateScheduledCommitNotification(PositionNotification, kw_only=True, tag="activate_scheduled.commit"):
    """The user opened a scheduled signal."""

    activate_id: Maybe[str] = UNSET
    """The id that the user gave to the activation."""


class CancelScheduledCommitNotification(PositionNotification, kw_only=True, tag="cancel_scheduled.commit"):
    """The user cancelled a scheduled signal."""

    cancel_id: Maybe[str] = UNSET
    """The id that the user gave to the cancellation."""


class ClosePendingCommitNotification(PositionNotification, kw_only=True, tag="close_pending.commit"):
    """The user closed a position."""

    close_id: Maybe[str] = UNSET
    """The id that the user gave to the close."""


class _PercentShiftNotification(PositionNotification, kw_only=True, tag="base"):
    percent_shift: float
    """The shift, in percent of the entry price."""


class TrailingStopCommitNotification(_PercentShiftNotification, kw_only=True, tag="trailing_stop.commit"):
    """The stop was shifted by a percentage."""


class TrailingTakeCommitNotification(_PercentShiftNotification, kw_only=True, tag="trailing_take.commit"):
    """The target was shifted by a percentage."""


class OrderNotification(PositionNotification, kw_only=True, tag="base"):
    """Fields of all notifications about a broker's order; some versions of the framework omit ``order_type`` in some of them."""

    order_type: Maybe[OrderType] = UNSET
    """What the order is for: a scheduled entry (schedule) or a position (active)."""


class OrderSyncOpenNotification(OrderNotification, kw_only=True, tag="order_sync.open"):
    """The broker is asked to open a position."""

    order_type: OrderType
    """What the order is for: a scheduled entry (schedule) or a position (active)."""


class OrderSyncCheckNotification(OrderNotification, kw_only=True, tag="order_sync.check"):
    """The broker is asked whether the order still exists."""

    order_type: OrderType
    """What the order is for: a scheduled entry (schedule) or a position (active)."""


class OrderSyncCloseNotification(OrderNotification, kw_only=True, tag="order_sync.close"):
    """The broker is asked to close a position."""

    close_reason: str
    """Why it was closed: time_expired, take_profit, stop_loss, closed, ..."""


class _AttemptNotification(OrderNotification, kw_only=True, tag="base"):
    attempt: Int
    """How many attempts in a row."""


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
    """Why it was closed: time_expired, take_profit, stop_loss, closed, ..."""


class OrderRejectOpenNotification(_AttemptNotification, kw_only=True, tag="order_reject.open"):
    """The broker permanently refused to open the position."""

    message: str
    """The text of the error."""


class OrderRejectCloseNotification(_AttemptNotification, kw_only=True, tag="order_reject.close"):
    """The broker permanently refused to close the position."""

    message: str
    """The text of the error."""
    close_reason: str
    """Why it was closed: time_expired, take_profit, stop_loss, closed, ..."""


class RiskRejectionNotification(NotificationBase, kw_only=True, tag="risk.rejection"):
    """A risk profile rejected a signal."""

    timestamp: Int
    """The simulation time, in ms."""
    backtest: bool
    """True in a backtest, False in a live or paper run."""
    symbol: str
    """The traded pair, such as "BTCUSDT"."""
    strategy_name: str
    """The strategy."""
    exchange_name: str
    """The exchange."""
    rejection_note: str
    """The reason."""
    rejection_id: str | None
    """The id of the rejection."""
    active_position_count: Int
    """How many positions were open."""
    current_price: float
    """The market price, in the quote currency."""
    position: PositionSide
    """"long" or "short"."""
    price_take_profit: float
    """The target, in the quote currency."""
    price_stop_loss: float
    """The stop, in the quote currency."""
    created_at: Int
    """When the row was made (simulation time), in ms."""
    signal_id: Maybe[str] = UNSET
    """The id of the signal."""
    price_open: Maybe[float] = UNSET
    """The price that the signal waits for, in the quote currency."""
    minute_estimated_time: Maybe[float] = UNSET
    """After how many minutes the position is closed at any price; ``inf``: no limit."""
    multiplier: Maybe[float] = UNSET
    """Leverage. Written only by framework versions after 18.7."""
    isolated: Maybe[bool] = UNSET
    """Whether the margin is isolated. Written only by framework versions after 18.7."""
    signal_note: Maybe[str] = UNSET
    """The note of the signal."""


class StrategyPauseNotification(NotificationBase, kw_only=True, tag="strategy.pause"):
    """A strategy was paused or resumed."""

    timestamp: Int
    """The simulation time, in ms."""
    backtest: bool
    """True in a backtest, False in a live or paper run."""
    symbol: str
    """The traded pair, such as "BTCUSDT"."""
    strategy_name: str
    """The strategy."""
    exchange_name: str
    """The exchange."""
    frame_name: str
    """The frame; "" in live mode."""
    paused: bool
    """True if it was paused, False if it was resumed."""
    created_at: Int
    """When the row was made (simulation time), in ms."""


class ErrorNotification(NotificationBase, kw_only=True, tag="base"):
    """Fields of all errors; the times may be absent."""

    error: dict[str, Any]
    """The error as a dict."""
    message: str
    """The text of the error."""
    backtest: Maybe[bool] = UNSET
    """True in a backtest, False in a live or paper run."""
    timestamp: Maybe[Int] = UNSET
    """The simulation time, in ms."""
    created_at: Maybe[Int] = UNSET
    """When the row was made (simulation time), in ms."""


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
