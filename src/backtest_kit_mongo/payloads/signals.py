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
    """A candle of the Candle contract. ``timestamp`` is its open time in ms; ``volume`` is in the base asset; the rest are prices."""

    timestamp: Int
    """Open time, in ms."""
    open: float
    """First price of the interval."""
    high: float
    """Highest price."""
    low: float
    """Lowest price."""
    close: float
    """Last price of the interval."""
    volume: float
    """Traded amount, in the base asset."""


class StrategyPnL(Payload, kw_only=True):
    """Profit or loss of a position: percent, prices adjusted for fees and slippage, profit and invested capital in USD."""

    pnl_percentage: float
    """Profit in percent of what was invested, after fee and slippage."""
    price_open: float
    """Entry price, adjusted for fee and slippage."""
    price_close: float
    """Exit price, adjusted for fee and slippage."""
    pnl_cost: float
    """Profit in USD."""
    pnl_entries: float
    """Invested capital in USD."""


class PeakPoint(StrategyPnL, kw_only=True):
    """Best (``_peak``) or worst (``_fall``) moment of a position: market price, time in ms, and the PnL at that time."""

    price: float
    """Market price at that moment."""
    timestamp: Int
    """That moment, in ms."""


class PartialClose(Payload, kw_only=True):
    """One element of ``_partial``: percent (0-100) closed at ``current_price``; cost basis in USD, time in ms."""

    type: Literal["profit", "loss"]
    """Whether it closed in profit or at a loss."""
    percent: float
    """Share of what was left, in percent (0-100)."""
    current_price: float
    """Price of the close."""
    cost_basis_at_close: float
    """Cost basis of the position before it, in USD."""
    entry_count_at_close: Int
    """Number of entries before it."""
    timestamp: Int
    """When it closed, in ms."""


class DcaEntry(Payload, kw_only=True):
    """One element of ``_entry``: an averaging entry at ``price`` for ``cost`` USD, time in ms."""

    price: float
    """Price of the entry."""
    cost: float
    """Value of the entry in USD."""
    timestamp: Int
    """When it was made, in ms."""


class _SignalFields(Payload, kw_only=True):
    position: PositionSide
    """Direction of the position: ``long`` profits from rising prices, ``short`` from falling ones."""
    price_take_profit: float
    """Price at which the position closes in profit (target)."""
    price_stop_loss: float
    """Price at which the position closes at a loss (stop)."""
    note: Maybe[str] = UNSET
    """Text of the strategy."""
    multiplier: Maybe[float] = UNSET
    """Leverage. Written by versions of the framework after 18.7."""
    isolated: Maybe[bool] = UNSET
    """True for isolated margin, False for cross margin. Written by versions of the framework after 18.7."""


class SignalDto(_SignalFields, kw_only=True):
    """The signal that a strategy asks for; stored as ``created_signal`` of the Strategy contract.

    ``minute_estimated_time`` is minutes (``inf``: no limit); ``cost`` is USD; ``price_*`` are prices. Without ``price_open`` the
    position opens at the market price.
    """

    id: Maybe[str] = UNSET
    """Id of the signal, if the caller chose one."""
    symbol: Maybe[str] = UNSET
    """Trading pair, such as ``BTCUSDT``."""
    price_open: Maybe[float] = UNSET
    """Price at which to open: the signal waits for it. Default: open at the market price."""
    minute_estimated_time: Maybe[float] = UNSET
    """Minutes after which the position closes at the market price; ``inf`` for no limit."""
    cost: Maybe[float] = UNSET
    """Value of the position in USD."""


class SignalRow(_SignalFields, kw_only=True):
    """The open position of a strategy, in the Signal contract.

    Times are ms, ``minute_estimated_time`` is minutes (``inf``: no limit), ``cost`` is USD. ``frame_name`` is ``""`` in live mode.
    ``is_scheduled``, ``peak``, ``fall``, ``partial``, ``entry`` and the two trailing prices are stored with a leading underscore.
    """

    id: str
    """Id of the signal."""
    symbol: str
    """Trading pair, such as ``BTCUSDT``."""
    strategy_name: str
    """Name of the strategy."""
    exchange_name: str
    """Name of the exchange."""
    frame_name: str
    """Name of the window of a backtest; ``""`` in paper and live runs."""
    price_open: float
    """Price of the entry."""
    minute_estimated_time: float
    """Minutes after which the position closes at the market price; ``inf`` for no limit."""
    cost: float
    """Value of the entry in USD."""
    scheduled_at: Int
    """When the signal was created, in ms."""
    pending_at: Int
    """When the position was opened, in ms."""
    timestamp: Int
    """Simulation time, in ms."""
    is_scheduled: bool = field(name="_isScheduled")
    """Whether it waited for its price."""
    peak: PeakPoint = field(name="_peak")
    """The best moment so far."""
    fall: PeakPoint = field(name="_fall")
    """The worst moment so far."""
    partial: Maybe[list[PartialClose]] = field(default=UNSET, name="_partial")
    """Partial closes, oldest first."""
    entry: Maybe[list[DcaEntry]] = field(default=UNSET, name="_entry")
    """Entries, oldest first."""
    trailing_price_stop_loss: Maybe[float] = field(default=UNSET, name="_trailingPriceStopLoss")
    """The stop after trailing."""
    trailing_price_take_profit: Maybe[float] = field(default=UNSET, name="_trailingPriceTakeProfit")
    """The target after trailing."""


class ScheduledSignalRow(SignalRow, kw_only=True):
    """A signal that waits for its ``price_open``, in the Schedule contract. Until it opens, ``pending_at`` equals ``scheduled_at`` (ms)."""


class ScheduledSignalCancelRow(ScheduledSignalRow, kw_only=True):
    """A scheduled signal to cancel: ``cancelled_signal`` of the Strategy contract. Units as in SignalRow."""

    cancel_id: Maybe[str] = UNSET
    """Id that the user gave to the request to cancel."""
    cancel_note: Maybe[str] = UNSET
    """Text that the user gave to the request to cancel."""


class ScheduledSignalActivateRow(ScheduledSignalRow, kw_only=True):
    """A scheduled signal to open at once: ``activated_signal`` of the Strategy contract. Units as in SignalRow."""

    activate_id: Maybe[str] = UNSET
    """Id that the user gave to the request to open."""
    activate_note: Maybe[str] = UNSET
    """Text that the user gave to the request to open."""


class SignalCloseRow(SignalRow, kw_only=True):
    """A position to close: ``closed_signal`` of the Strategy contract and its take-profit and stop-loss variants. Units as in SignalRow."""

    close_id: Maybe[str] = UNSET
    """Id that the user gave to the request to close."""
    close_note: Maybe[str] = UNSET
    """Text that the user gave to the request to close."""


class PublicSignalRow(SignalRow, kw_only=True):
    """A signal with its history, in the Recent contract: prices before trailing and averaging, percent already closed, PnL."""

    original_price_open: float
    """Price of the first entry, before averaging."""
    original_price_take_profit: float
    """Target before trailing."""
    original_price_stop_loss: float
    """Stop before trailing."""
    partial_executed: float
    """Percent of the position that is closed (0-100)."""
    total_entries: Int
    """Number of entries, the first one included."""
    total_partials: Int
    """Number of partial closes."""
    pnl: StrategyPnL
    """Profit or loss at the current price."""
    peak_profit: StrategyPnL
    """Profit or loss at the best moment of the position."""
    max_drawdown: StrategyPnL
    """Profit or loss at the worst moment of the position."""


RecentData: TypeAlias = PublicSignalRow
"""Body of the Recent contract."""


class StorageSignalRow(PublicSignalRow, kw_only=True):
    """A row of the Storage contract.

    ``created_at``, ``updated_at`` (simulation time), ``priority`` (wall clock of the last rewrite) and ``close_timestamp`` are ms.
    ``current_price`` is present unless the signal was cancelled. ``close_reason`` (time_expired, take_profit, stop_loss, closed, ...)
    and ``close_timestamp`` are present if it was closed.
    """

    created_at: Int
    """When the row was created, in ms of simulation time."""
    updated_at: Int
    """When the row last changed, in ms of simulation time."""
    priority: Int
    """Wall-clock time of the last write, in ms. Lists are sorted by it."""
    status: StorageStatus
    """State of the signal."""
    current_price: Maybe[float] = UNSET
    """Market price at that time; absent if the signal was cancelled."""
    close_reason: Maybe[str] = UNSET
    """Why it closed: ``time_expired``, ``take_profit``, ``stop_loss``, ``closed`` or another reason of a newer version."""
    close_timestamp: Maybe[Int] = UNSET
    """When it closed, in ms; present if it was closed."""


class CommitRowBase(Payload, kw_only=True, tag_field="action", tag="base"):
    """Base of the queued actions of the Strategy contract; ``action`` tells them apart."""

    symbol: str
    """Trading pair, such as ``BTCUSDT``."""
    backtest: bool
    """Whether a backtest wrote it; False for paper and live runs."""

    @property
    def action(self) -> str:
        """The stored action, for example ``partial-profit``."""
        return str(self.__struct_config__.tag)


class _PartialCommitRow(CommitRowBase, kw_only=True, tag="base"):
    percent_to_close: float
    """Share of what is left that is closed, in percent (0-100)."""
    current_price: float
    """Market price at that time."""


class PartialProfitCommitRow(_PartialCommitRow, kw_only=True, tag="partial-profit"):
    """Close part of a position (percent, 0-100) in profit, at a price."""


class PartialLossCommitRow(_PartialCommitRow, kw_only=True, tag="partial-loss"):
    """Close part of a position (percent, 0-100) at a loss, at a price."""


class BreakevenCommitRow(CommitRowBase, kw_only=True, tag="breakeven"):
    """Move the stop to the entry price."""

    current_price: float
    """Market price at that time."""


class AverageBuyCommitRow(CommitRowBase, kw_only=True, tag="average-buy"):
    """Add an averaging entry of ``cost`` USD; ``total_entries`` includes it."""

    current_price: float
    """Market price at that time."""
    cost: float
    """Value of the entry in USD."""
    total_entries: Int
    """Number of entries, this one included."""


class _TrailingCommitRow(CommitRowBase, kw_only=True, tag="base"):
    percent_shift: float
    """Distance of the shift, in percent of the entry price."""
    current_price: float
    """Market price at that time."""


class TrailingStopCommitRow(_TrailingCommitRow, kw_only=True, tag="trailing-stop"):
    """Shift the stop by a percentage of the entry price."""


class TrailingTakeCommitRow(_TrailingCommitRow, kw_only=True, tag="trailing-take"):
    """Shift the target by a percentage of the entry price."""


class ActivateScheduledCommitRow(CommitRowBase, kw_only=True, tag="activate-scheduled"):
    """Open a scheduled signal without waiting for its price."""

    signal_id: str
    """Id of the scheduled signal."""
    activate_id: Maybe[str] = UNSET
    """Id that the user gave to the request to open."""


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
    """Snapshot of the deferred work of a strategy, in the Strategy contract. ``retry_*_count`` are numbers of attempts.

    Snapshots from before versions 14.0 and 16.0 of the framework lack some or all of the last five fields.
    """

    pending_signal_id: str | None
    """Id of the open position when the snapshot was written."""
    created_signal: SignalDto | None
    """A signal that the user asked for and that is not open yet."""
    commit_queue: list[CommitRow]
    """Actions that wait to be carried out, oldest first."""
    closed_signal: SignalCloseRow | None
    """A position that the user asked to close."""
    take_profit_signal: SignalCloseRow | None
    """A position that is closing at its target."""
    stop_loss_signal: SignalCloseRow | None
    """A position that is closing at its stop."""
    cancelled_signal: ScheduledSignalCancelRow | None
    """A scheduled signal to cancel."""
    activated_signal: ScheduledSignalActivateRow | None
    """A scheduled signal to open at once."""
    retry_open_signal: Maybe[SignalRow] = UNSET
    """A signal that the broker has not opened yet."""
    last_pending_id: Maybe[str] = UNSET
    """Id of the last signal that opened, so that none opens twice."""
    retry_open_count: Maybe[Int] = UNSET
    """Attempts to open so far."""
    retry_close_count: Maybe[Int] = UNSET
    """Attempts to close so far."""
    is_paused: Maybe[bool] = UNSET
    """Whether the strategy opens no new positions."""
