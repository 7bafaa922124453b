"""Candles, signals in all their forms, and the queued actions of a strategy."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET, field

from .base import Int, Maybe, Payload, PositionSide, StorageStatus

__all__ = [
    "ActivateScheduledCommitRow",
    "AverageBuyCommitRow",
    "BreakevenCommitRow",
    "Candle",
    "CommitRow",
    "CommitRowBase",
    "DcaEntry",
    "PartialClose",
    "PartialLossCommitRow",
    "PartialProfitCommitRow",
    "PeakPoint",
    "PublicSignalRow",
    "RecentData",
    "ScheduledSignalActivateRow",
    "ScheduledSignalCancelRow",
    "ScheduledSignalRow",
    "SignalCloseRow",
    "SignalDto",
    "SignalRow",
    "StorageSignalRow",
    "StrategyData",
    "StrategyPnL",
    "TrailingStopCommitRow",
    "TrailingTakeCommitRow",
]


class Candle(Payload, kw_only=True):
    """A candle of the Candle contract."""

    timestamp: Int
    """The open time, in ms."""
    open: float
    """The first price, in the quote currency."""
    high: float
    """The highest price."""
    low: float
    """The lowest price."""
    close: float
    """The last price."""
    volume: float
    """What was traded, in the base asset."""


class StrategyPnL(Payload, kw_only=True):
    """Profit or loss of a position."""

    pnl_percentage: float
    """Profit in percent (1.5 is 1.5 percent) of the invested capital, after fees and slippage."""
    price_open: float
    """The entry price adjusted for fees and slippage, in the quote currency."""
    price_close: float
    """The exit price adjusted for fees and slippage, in the quote currency."""
    pnl_cost: float
    """Profit in USD."""
    pnl_entries: float
    """Invested capital in USD."""


class PeakPoint(StrategyPnL, kw_only=True):
    """Best (``_peak``) or worst (``_fall``) moment of a position, with the profit at that time."""

    price: float
    """The market price, in the quote currency."""
    timestamp: Int
    """The time of that moment, in ms."""


class PartialClose(Payload, kw_only=True):
    """One element of ``_partial``: a partial close."""

    type: Literal["profit", "loss"]
    """Whether the part was closed in profit or at a loss."""
    percent: float
    """How much of what was left was closed, in percent (0-100)."""
    current_price: float
    """The price that it was closed at, in the quote currency."""
    cost_basis_at_close: float
    """The cost of what was left before, in USD."""
    entry_count_at_close: Int
    """How many entries the position had then."""
    timestamp: Int
    """When it was closed, in ms."""


class DcaEntry(Payload, kw_only=True):
    """One element of ``_entry``: an entry that averages the price."""

    price: float
    """The price of the entry, in the quote currency."""
    cost: float
    """Its cost, in USD."""
    timestamp: Int
    """When it was bought, in ms."""


class _SignalFields(Payload, kw_only=True):
    position: PositionSide
    """"long" or "short"."""
    price_take_profit: float
    """The target, in the quote currency."""
    price_stop_loss: float
    """The stop, in the quote currency."""
    note: Maybe[str] = UNSET
    """A text of the strategy."""
    multiplier: Maybe[float] = UNSET
    """Leverage. Written only by framework versions after 18.7."""
    isolated: Maybe[bool] = UNSET
    """Whether the margin is isolated. Written only by framework versions after 18.7."""


class SignalDto(_SignalFields, kw_only=True):
    """The signal that a strategy asks for; stored as ``created_signal`` of the Strategy contract."""

    id: Maybe[str] = UNSET
    """The id; absent to let the framework make one."""
    symbol: Maybe[str] = UNSET
    """The traded pair, such as "BTCUSDT"."""
    price_open: Maybe[float] = UNSET
    """The price to wait for, in the quote currency; absent to open at the market price."""
    minute_estimated_time: Maybe[float] = UNSET
    """After how many minutes the position is closed at any price; ``inf``: no limit."""
    cost: Maybe[float] = UNSET
    """The cost of the first entry, in USD; absent for that of the run."""


class SignalRow(_SignalFields, kw_only=True):
    """The open position of a strategy, in the Signal contract."""

    id: str
    """The id of the signal."""
    symbol: str
    """The traded pair, such as "BTCUSDT"."""
    strategy_name: str
    """The strategy."""
    exchange_name: str
    """The exchange."""
    frame_name: str
    """The frame; "" in live mode."""
    price_open: float
    """The entry price, in the quote currency."""
    minute_estimated_time: float
    """After how many minutes the position is closed at any price; ``inf``: no limit."""
    cost: float
    """The cost of the first entry, in USD."""
    scheduled_at: Int
    """When the signal was made, in ms."""
    pending_at: Int
    """When the position was opened, in ms."""
    timestamp: Int
    """A time that the framework keeps, in ms; in rows of this library it equals ``pending_at``."""
    is_scheduled: bool = field(name="_isScheduled")
    """Whether the signal has waited for its price. Stored as ``_isScheduled``."""
    peak: PeakPoint = field(name="_peak")
    """The best moment of the position. Stored as ``_peak``."""
    fall: PeakPoint = field(name="_fall")
    """The worst moment of the position. Stored as ``_fall``."""
    partial: Maybe[list[PartialClose]] = field(default=UNSET, name="_partial")
    """The partial closes, in order of time. Stored as ``_partial``."""
    entry: Maybe[list[DcaEntry]] = field(default=UNSET, name="_entry")
    """The entries, in order of time. Stored as ``_entry``."""
    trailing_price_stop_loss: Maybe[float] = field(default=UNSET, name="_trailingPriceStopLoss")
    """The stop after trailing, in the quote currency. Stored as ``_trailingPriceStopLoss``."""
    trailing_price_take_profit: Maybe[float] = field(default=UNSET, name="_trailingPriceTakeProfit")
    """The target after trailing, in the quote currency. Stored as ``_trailingPriceTakeProfit``."""


class ScheduledSignalRow(SignalRow, kw_only=True):
    """A signal that waits for its ``price_open``, in the Schedule contract. Until it opens, ``pending_at`` equals ``scheduled_at`` (ms)."""


class ScheduledSignalCancelRow(ScheduledSignalRow, kw_only=True):
    """A scheduled signal to cancel: ``cancelled_signal`` of the Strategy contract. Units as in SignalRow."""

    cancel_id: Maybe[str] = UNSET
    """The id that the user gave to the cancellation."""
    cancel_note: Maybe[str] = UNSET
    """The text that the user gave to it."""


class ScheduledSignalActivateRow(ScheduledSignalRow, kw_only=True):
    """A scheduled signal to open at once: ``activated_signal`` of the Strategy contract. Units as in SignalRow."""

    activate_id: Maybe[str] = UNSET
    """The id that the user gave to the activation."""
    activate_note: Maybe[str] = UNSET
    """The text that the user gave to it."""


class SignalCloseRow(SignalRow, kw_only=True):
    """A position to close: ``closed_signal`` of the Strategy contract and its take-profit and stop-loss variants. Units as in SignalRow."""

    close_id: Maybe[str] = UNSET
    """The id that the user gave to the close."""
    close_note: Maybe[str] = UNSET
    """The text that the user gave to it."""


class PublicSignalRow(SignalRow, kw_only=True):
    """A signal with its history, in the Recent contract."""

    original_price_open: float
    """The entry price before averaging, in the quote currency."""
    original_price_take_profit: float
    """The target before trailing, in the quote currency."""
    original_price_stop_loss: float
    """The stop before trailing, in the quote currency."""
    partial_executed: float
    """How much has been closed, in percent (0-100)."""
    total_entries: Int
    """How many entries the position has."""
    total_partials: Int
    """How many partial closes it had."""
    pnl: StrategyPnL
    """The profit or loss at that time."""
    peak_profit: StrategyPnL
    """The profit at its best moment."""
    max_drawdown: StrategyPnL
    """The loss at its worst moment."""


RecentData: TypeAlias = PublicSignalRow
"""Body of the Recent contract."""


class StorageSignalRow(PublicSignalRow, kw_only=True):
    """A row of the Storage contract."""

    created_at: Int
    """When the row was made (simulation time), in ms."""
    updated_at: Int
    """When the row last changed (simulation time), in ms."""
    priority: Int
    """When the row was last rewritten (wall clock), in ms."""
    status: StorageStatus
    """opened, scheduled, closed or cancelled."""
    current_price: Maybe[float] = UNSET
    """The last price, in the quote currency; absent if the signal was cancelled."""
    close_reason: Maybe[str] = UNSET
    """Why it was closed: time_expired, take_profit, stop_loss, closed, ...; absent while it is not."""
    close_timestamp: Maybe[Int] = UNSET
    """When it was closed, in ms; absent while it is not."""


class CommitRowBase(Payload, kw_only=True, tag_field="action", tag="base"):
    """Base of the queued actions of the Strategy contract; ``action`` tells them apart."""

    symbol: str
    """The traded pair, such as "BTCUSDT"."""
    backtest: bool
    """True in a backtest, False in a live or paper run."""

    @property
    def action(self) -> str:
        """The stored action, for example ``partial-profit``."""
        return str(self.__struct_config__.tag)


class _PartialCommitRow(CommitRowBase, kw_only=True, tag="base"):
    percent_to_close: float
    """How much of what was left to close, in percent (0-100)."""
    current_price: float
    """The market price, in the quote currency."""


class PartialProfitCommitRow(_PartialCommitRow, kw_only=True, tag="partial-profit"):
    """Close part of a position in profit."""


class PartialLossCommitRow(_PartialCommitRow, kw_only=True, tag="partial-loss"):
    """Close part of a position at a loss."""


class BreakevenCommitRow(CommitRowBase, kw_only=True, tag="breakeven"):
    """Move the stop to the entry price."""

    current_price: float
    """The market price, in the quote currency."""


class AverageBuyCommitRow(CommitRowBase, kw_only=True, tag="average-buy"):
    """Add an entry that averages the price."""

    current_price: float
    """The market price, in the quote currency."""
    cost: float
    """The cost of the new entry, in USD."""
    total_entries: Int
    """How many entries the position has with the new one."""


class _TrailingCommitRow(CommitRowBase, kw_only=True, tag="base"):
    percent_shift: float
    """The shift, in percent of the entry price."""
    current_price: float
    """The market price, in the quote currency."""


class TrailingStopCommitRow(_TrailingCommitRow, kw_only=True, tag="trailing-stop"):
    """Shift the stop by a percentage of the entry price."""


class TrailingTakeCommitRow(_TrailingCommitRow, kw_only=True, tag="trailing-take"):
    """Shift the target by a percentage of the entry price."""


class ActivateScheduledCommitRow(CommitRowBase, kw_only=True, tag="activate-scheduled"):
    """Open a scheduled signal without waiting for its price."""

    signal_id: str
    """The id of the signal."""
    activate_id: Maybe[str] = UNSET
    """The id that the user gave to the activation."""


CommitRow: TypeAlias = (
    PartialProfitCommitRow
    | PartialLossCommitRow
    | BreakevenCommitRow
    | AverageBuyCommitRow
    | TrailingStopCommitRow
    | TrailingTakeCommitRow
    | ActivateScheduledCommitRow
)
"""One queued action of the Strategy contract; msgspec tells them apart by ``action``."""


class StrategyData(Payload, kw_only=True):
    """Snapshot of the deferred work of a strategy, in the Strategy contract.

    Snapshots from before versions 14.0 and 16.0 of the framework lack some or all of the last five fields.
    """

    pending_signal_id: str | None
    """The id of the open position."""
    created_signal: SignalDto | None
    """A signal of the user to open."""
    commit_queue: list[CommitRow]
    """The queued actions, in order."""
    closed_signal: SignalCloseRow | None
    """A position that the user closes."""
    take_profit_signal: SignalCloseRow | None
    """A position to close at its target."""
    stop_loss_signal: SignalCloseRow | None
    """A position to close at its stop."""
    cancelled_signal: ScheduledSignalCancelRow | None
    """A scheduled signal that the user cancels."""
    activated_signal: ScheduledSignalActivateRow | None
    """A scheduled signal that the user opens."""
    retry_open_signal: Maybe[SignalRow] = UNSET
    """A signal to try to open again."""
    last_pending_id: Maybe[str] = UNSET
    """The id of the last open position."""
    retry_open_count: Maybe[Int] = UNSET
    """How many attempts to open failed."""
    retry_close_count: Maybe[Int] = UNSET
    """How many attempts to close failed."""
    is_paused: Maybe[bool] = UNSET
    """Whether the strategy takes no signals."""
