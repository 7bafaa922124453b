"""The options of a run, checked once for everything that starts runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Self, TypedDict, get_args

import msgspec

from ...arguments import number
from ...contracts.registry import Registry
from ...errors import InvalidValueError
from ..clock import check_ms
from ..registrations import check_name
from .cost_basis import Costs
from .user_code import OnError

__all__ = ["CostKeywords", "ExecutionKeywords", "OnHole", "Progress", "RunKeywords", "RunOptions", "StartKeywords"]

OnHole = Literal["stop", "fill"]

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a run. Raises InvalidTypeError or InvalidValueError, which names the wrong one.

    Examples:
        >>> from backtest_kit_mongo.runner import RunOptions
        >>> RunOptions(fee_percent=0.05).replaced(stake_usd=50.0).costs
        Costs(fee_percent=0.05, slippage_percent=0.1, stake_usd=50.0)
    """

    exchange_name: str = "binance"
    """The exchange whose stored candles are replayed."""
    frame_name: str = "backtest"
    """The name of the window in the keys of the records."""
    start_ms: int | None = None
    """The start of the window (ms, a whole minute); by default that of the imported candles."""
    end_ms: int | None = None
    """The end of the window (ms, a whole minute, not included); by default that of the imported candles."""
    fee_percent: float = 0.1
    """Fee in percent (0.1 is 0.1 percent) per side."""
    slippage_percent: float = 0.1
    """Slippage in percent per side."""
    stake_usd: float = 100.0
    """Value of a position in USD when it opens."""
    on_error: OnError = "stop"
    """What an error of the strategy does: ``stop`` ends the run, ``skip`` notes the error and goes on with the next minute."""
    holes: OnHole = "stop"
    """What a hole between the candles does: ``stop`` refuses the run, ``fill`` replays flat candles at the last close, with volume 0."""

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise InvalidValueError(f"on_error is {self.on_error!r}; it must be 'stop' or 'skip'")
        if self.holes not in get_args(OnHole):
            raise InvalidValueError(f"holes is {self.holes!r}; it must be 'stop' or 'fill'")
        for name in ("exchange_name", "frame_name"):
            msgspec.structs.force_setattr(self, name, check_name(name, getattr(self, name)))
        for name in ("start_ms", "end_ms"):
            if (value := getattr(self, name)) is not None:
                msgspec.structs.force_setattr(self, name, check_ms(name, value))
        for name, below in (("fee_percent", 100), ("slippage_percent", 100), ("stake_usd", math.inf)):
            msgspec.structs.force_setattr(self, name, _checked_number(name, getattr(self, name), below=below))

    @property
    def costs(self) -> Costs:
        """Fee, slippage and stake."""
        return Costs(fee_percent=self.fee_percent, slippage_percent=self.slippage_percent, stake_usd=self.stake_usd)

    def replaced(self, **changes: Any) -> Self:
        """Return a copy with other values of some options.

        Args:
            **changes: fields of this class

        Raises:
            InvalidTypeError: a value has the wrong type
            InvalidValueError: a value is not valid
        """
        return msgspec.structs.replace(self, **changes)


class CostKeywords(TypedDict, total=False):
    """The costs of a run as keyword arguments; see RunOptions."""

    fee_percent: float
    slippage_percent: float
    stake_usd: float


class ExecutionKeywords(CostKeywords, total=False):
    """The costs of a backtest, and what an error does, as keyword arguments; see RunOptions."""

    on_error: OnError
    holes: OnHole


class RunKeywords(ExecutionKeywords, total=False):
    """All fields of RunOptions as keyword arguments."""

    exchange_name: str
    frame_name: str
    start_ms: int | None
    end_ms: int | None


class StartKeywords(ExecutionKeywords, total=False):
    """What ``Backtest.run`` and ``Backtest.background`` take."""

    strategy_name: str | None
    exchange_name: str | None
    frame_name: str | None
    progress: Progress | None
    registry: Registry | None


def _checked_number(name: str, value: object, *, below: float) -> float:
    value = number(name, value)
    if not 0 <= value < below:
        raise InvalidValueError(f"{name} is {value}; it must be a finite number from 0{'' if below == math.inf else f' to below {below}'}")
    return value
