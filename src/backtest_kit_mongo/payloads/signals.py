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
    open: float
    high: float
    low: float
    close: float
    volume: float


class StrategyPnL(Payload, kw_only=True):
    """Profit or loss of a position: percent, prices adjusted for fees and slippage, profit and invested capital in USD."""

    pnl_percentage: float
    price_open: float
    price_close: float
    pnl_cost: float
    pnl_entries: float


class PeakPoint(StrategyPnL, kw_only=True):
    """Best (``_peak``) or worst (``_fall``) moment of a position: market price, time in ms, and the PnL at that time."""

    price: float
    timestamp: Int


class PartialClose(Payload, kw_only=True):
    """One element of ``_partial``: percent (0-100) closed at ``current_price``; cost basis in USD, time in ms."""

    type: Literal["profit", "loss"]
    percent: float
    current_price: float
    cost_basis_at_close: float
    entry_count_at_close: Int
    timestamp: Int


class DcaEntry(Payload, kw_only=True):
    """One element of ``_entry``: an averaging entry at ``price`` for ``cost`` USD, time in ms."""

    price: float
    cost: float
    timestamp: Int


class _SignalFields(Payload, kw_only=True):
    position: PositionSide
    price_take_profit: float
    price_stop_loss: float
    note: Maybe[str] = UNSET
    multiplier: Maybe[float] = UNSET  # leverage and margin mode, written only by framework versions after 18.7
    isolated: Maybe[bool] = UNSET


class SignalDto(_SignalFields, kw_only=True):
    """The signal that a strategy asks for; stored as ``created_signal`` of the Strategy contract.

    ``minute_estimated_time`` is minutes (``inf``: no limit); ``cost`` is USD; ``price_*`` are prices. Without ``price_open`` the
    position opens at the market price.
    """

    id: Maybe[str] = UNSET
    symbol: Maybe[str] = UNSET
    price_open: Maybe[float] = UNSET
    minute_estimated_time: Maybe[float] = UNSET
    cost: Maybe[float] = UNSET


class SignalRow(_SignalFields, kw_only=True):
    """The open position of a strategy, in the Signal contract.

    Times are ms, ``minute_estimated_time`` is minutes (``inf``: no limit), ``cost`` is USD. ``frame_name`` is ``""`` in live mode.
    ``is_scheduled``, ``peak``, ``fall``, ``partial``, ``entry`` and the two trailing prices are stored with a leading underscore.
    """

    id: str
    symbol: str
    strategy_name: str
    exchange_name: str
    frame_name: str
    price_open: float
    minute_estimated_time: float
    cost: float
    scheduled_at: Int
    pending_at: Int
    timestamp: Int
    is_scheduled: bool = field(name="_isScheduled")
    peak: PeakPoint = field(name="_peak")
    fall: PeakPoint = field(name="_fall")
    partial: Maybe[list[PartialClose]] = field(default=UNSET, name="_partial")
    entry: Maybe[list[DcaEntry]] = field(default=UNSET, name="_entry")
    trailing_price_stop_loss: Maybe[float] = field(default=UNSET, name="_trailingPriceStopLoss")
    trailing_price_take_profit: Maybe[float] = field(default=UNSET, name="_trailingPriceTakeProfit")


class ScheduledSignalRow(SignalRow, kw_only=True):
    """A signal that waits for its ``price_open``, in the Schedule contract. Until it opens, ``pending_at`` equals ``scheduled_at`` (ms)."""


class ScheduledSignalCancelRow(ScheduledSignalRow, kw_only=True):
    """A scheduled signal to cancel: ``cancelled_signal`` of the Strategy contract. Units as in SignalRow."""

    cancel_id: Maybe[str] = UNSET
    cancel_note: Maybe[str] = UNSET


class ScheduledSignalActivateRow(ScheduledSignalRow, kw_only=True):
    """A scheduled signal to open at once: ``activated_signal`` of the Strategy contract. Units as in SignalRow."""

    activate_id: Maybe[str] = UNSET
    activate_note: Maybe[str] = UNSET


class SignalCloseRow(SignalRow, kw_only=True):
    """A position to close: ``closed_signal`` of the Strategy contract and its take-profit and stop-loss variants. Units as in SignalRow."""

    close_id: Maybe[str] = UNSET
    close_note: Maybe[str] = UNSET


class PublicSignalRow(SignalRow, kw_only=True):
    """A signal with its history, in the Recent contract: prices before trailing and averaging, percent already closed, PnL."""

    original_price_open: float
    original_price_take_profit: float
    original_price_stop_loss: float
    partial_executed: float
    total_entries: Int
    total_partials: Int
    pnl: StrategyPnL
    peak_profit: StrategyPnL
    max_drawdown: StrategyPnL


RecentData: TypeAlias = PublicSignalRow
"""Body of the Recent contract."""


class StorageSignalRow(PublicSignalRow, kw_only=True):
    """A row of the Storage contract.

    ``created_at``, ``updated_at`` (simulation time), ``priority`` (wall clock of the last rewrite) and ``close_timestamp`` are ms.
    ``current_price`` is present unless the signal was cancelled. ``close_reason`` (time_expired, take_profit, stop_loss, closed, ...)
    and ``close_timestamp`` are present if it was closed.
    """

    created_at: Int
    updated_at: Int
    priority: Int
    status: StorageStatus
    current_price: Maybe[float] = UNSET
    close_reason: Maybe[str] = UNSET
    close_timestamp: Maybe[Int] = UNSET


class CommitRowBase(Payload, kw_only=True, tag_field="action", tag="base"):
    """Base of the queued actions of the Strategy contract; ``action`` tells them apart."""

    symbol: str
    backtest: bool

    @property
    def action(self) -> str:
        """The stored action, for example ``partial-profit``."""
        return str(self.__struct_config__.tag)


class _PartialCommitRow(CommitRowBase, kw_only=True, tag="base"):
    percent_to_close: float
    current_price: float


class PartialProfitCommitRow(_PartialCommitRow, kw_only=True, tag="partial-profit"):
    """Close part of a position (percent, 0-100) in profit, at a price."""


class PartialLossCommitRow(_PartialCommitRow, kw_only=True, tag="partial-loss"):
    """Close part of a position (percent, 0-100) at a loss, at a price."""


class BreakevenCommitRow(CommitRowBase, kw_only=True, tag="breakeven"):
    """Move the stop to the entry price."""

    current_price: float


class AverageBuyCommitRow(CommitRowBase, kw_only=True, tag="average-buy"):
    """Add an averaging entry of ``cost`` USD; ``total_entries`` includes it."""

    current_price: float
    cost: float
    total_entries: Int


class _TrailingCommitRow(CommitRowBase, kw_only=True, tag="base"):
    percent_shift: float
    current_price: float


class TrailingStopCommitRow(_TrailingCommitRow, kw_only=True, tag="trailing-stop"):
    """Shift the stop by a percentage of the entry price."""


class TrailingTakeCommitRow(_TrailingCommitRow, kw_only=True, tag="trailing-take"):
    """Shift the target by a percentage of the entry price."""


class ActivateScheduledCommitRow(CommitRowBase, kw_only=True, tag="activate-scheduled"):
    """Open a scheduled signal without waiting for its price."""

    signal_id: str
    activate_id: Maybe[str] = UNSET


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
    created_signal: SignalDto | None
    commit_queue: list[CommitRow]
    closed_signal: SignalCloseRow | None
    take_profit_signal: SignalCloseRow | None
    stop_loss_signal: SignalCloseRow | None
    cancelled_signal: ScheduledSignalCancelRow | None
    activated_signal: ScheduledSignalActivateRow | None
    retry_open_signal: Maybe[SignalRow] = UNSET
    last_pending_id: Maybe[str] = UNSET
    retry_open_count: Maybe[Int] = UNSET
    retry_close_count: Maybe[Int] = UNSET
    is_paused: Maybe[bool] = UNSET
