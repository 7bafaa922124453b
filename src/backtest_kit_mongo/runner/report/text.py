"""Numbers of a report as text: prices, percentages, times, durations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ..clock import MINUTE_MS, as_datetime
from ..engine.cost_basis import Costs
from ..engine.result import BacktestResult

__all__ = [
    "costs_text", "fall_text", "holes_text", "ignored_text", "incomplete_text", "length_text", "parameters_text", "percent_text",
    "price_digits", "ratio_text", "reason_text", "time_text",
]  # fmt: skip


def percent_text(percent: float) -> str:
    """Return a gain or loss in percent as text with its sign."""
    return f"{percent:+,.3f} %"


def fall_text(percent: float) -> str:
    """Return a drawdown in percent as text, without a sign."""
    return f"{percent:,.3f} %"


def ratio_text(ratio: float | None) -> str:
    """Return a ratio as text; ``-`` for None."""
    return "-" if ratio is None else f"{ratio:,.3f}"


def price_digits(price: float) -> int:
    """Return how many decimal places show seven digits of a price; at least two."""
    return max(2, 6 - math.floor(math.log10(price))) if price > 0 else 2


def reason_text(reason: str) -> str:
    """Return the reason why a trade was closed in words."""
    return reason.replace("_", " ")


def time_text(ms: int) -> str:
    """Return a time in ms as ``2023-03-01 00:05`` (UTC)."""
    return f"{as_datetime(ms):%Y-%m-%d %H:%M}"


def costs_text(costs: Costs | None) -> str:
    """Return fee, slippage and stake of a run; ``not recorded`` for a run of an earlier version."""
    if costs is None:
        return "not recorded"
    return f"fee {costs.fee_percent:g} %, slippage {costs.slippage_percent:g} %, stake {costs.stake_usd:,g} USD"


def parameters_text(parameters: Mapping[str, object]) -> str:
    """Return parameters as ``FAST=6, SLOW=24``, or ``none``."""
    return ", ".join(f"{name}={value}" for name, value in parameters.items()) or "none"


def ignored_text(runs: Sequence[BacktestResult]) -> str:
    """Return how many signals of ``runs`` were ignored, by kind, and how many errors were skipped; ``none`` if there were none."""
    kinds: Counter[str] = Counter()
    for run in runs:
        kinds.update(run.signals_ignored)
    listed = "; ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
    skipped = sum(run.errors_skipped for run in runs)
    parts = [f"{kinds.total():,} ({listed})"] if listed else []
    parts += [f"{skipped:,} error{'' if skipped == 1 else 's'} of the strategy skipped"] if skipped else []
    return "; ".join(parts) or "none"


def holes_text(runs: Sequence[BacktestResult]) -> str:
    """Return how many holes were filled with how many flat candles; an empty string if there were none."""
    by_symbol = {run.symbol: (run.holes, run.filled_candles) for run in runs if run.holes}
    return "; ".join(
        f"{holes:,} hole{'' if holes == 1 else 's'} of {symbol} filled with {candles:,} flat candle{'' if candles == 1 else 's'}"
        for symbol, (holes, candles) in by_symbol.items()
    )


def incomplete_text(run: BacktestResult) -> str:
    """Return why a run is incomplete; an empty string for a complete run."""
    if run.complete:
        return ""
    reached = ""
    if run.window_end_ms is not None and run.window_end_ms > run.start_ms:
        share = (run.end_ms - run.start_ms) / (run.window_end_ms - run.start_ms) * 100
        reached = f", after {share:.1f} % of its window"
    return f"ended early, at {time_text(run.end_ms)} UTC{reached}: {run.error or 'it was interrupted'}"


def length_text(ms: float) -> str:
    """Return a duration in ms as ``15m``, ``4h``, ``1d 2h 5m``."""
    days, rest = divmod(round(ms / MINUTE_MS), 1440)
    hours, minutes = divmod(rest, 60)
    parts = [f"{count:,}{unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if count]
    return " ".join(parts) or "0m"
