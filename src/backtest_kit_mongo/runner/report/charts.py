"""The charts of a report: plotly figures as JSON that can be embedded in a page."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from html import escape
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...candles import CandleArray
from ..engine.buy_and_hold import held_percentages
from ..engine.result import BacktestResult, OpenTrade, Trade
from .statistics import trades_of
from .text import length_text, percent_text, price_digits, reason_text, time_text

__all__ = ["compare_chart", "profit_sums", "run_chart"]

# From the Okabe-Ito palette, which colour-blind readers can tell apart.
_WON, _LOST, _OPEN, _SUM = "#009e73", "#d55e00", "#cc79a7", "#0072b2"
_GREY, _PALE, _GRID = "#9aa3ad", "#c9cfd6", "#e6e9ec"
_COLOURS: Final = ("#e69f00", "#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#666666")
_MOST_LINES: Final = 12
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_WHEN: Final = "%{x|%Y-%m-%d %H:%M} UTC<br>"

Times = npt.NDArray[np.datetime64]


def run_chart(run: BacktestResult, candles: CandleArray, step_ms: int) -> str:
    """Return a figure of one run: its trades on the candles (each ``step_ms`` long), the running sum of its profits, and the drawdown.

    The sum is drawn beside buy and hold, as far as the candles are stored.
    """
    graph = importlib.import_module("plotly.graph_objects")
    figure = _subplots([0.6, 0.22, 0.18])
    if len(candles):
        # With a period, plotly draws a candle across its time span instead of centring it on its open time.
        line = {"color": _GREY, "width": 1}
        candlesticks = graph.Candlestick(
            x=_times(candles["timestamp"]), **{name: candles[name].copy() for name in ("open", "high", "low", "close")},
            xperiod=step_ms, xperiodalignment="middle", name="candle", showlegend=False,
            increasing={"line": line, "fillcolor": "#ffffff"}, decreasing={"line": line, "fillcolor": _PALE},
        )  # fmt: skip
        figure.add_trace(candlesticks, row=1, col=1)
    for trace in _trades(graph, run):
        figure.add_trace(trace, row=1, col=1)
    times, sums = profit_sums(run.trades, run.start_ms, run.end_ms)
    falls = sums - np.maximum.accumulate(sums)
    profit = graph.Scatter(
        x=times, y=sums, mode="lines", line={"shape": "hv", "color": _SUM, "width": 2}, showlegend=False,
        hovertemplate=_WHEN + "%{y:+,.3f} %<extra>profit</extra>",
    )  # fmt: skip
    drawdown = graph.Scatter(
        x=times, y=falls, mode="lines", line={"shape": "hv", "color": _LOST, "width": 1}, showlegend=False,
        fill="tozeroy", fillcolor="rgba(213, 94, 0, 0.2)", hovertemplate=_WHEN + "%{y:,.3f} %<extra>drawdown</extra>",
    )  # fmt: skip
    figure.add_trace(profit, row=2, col=1)
    if len(candles) and run.buy_and_hold is not None and run.costs is not None:
        held = graph.Scatter(
            x=_times(np.minimum(candles["timestamp"] + step_ms, run.end_ms)),
            y=held_percentages(run.buy_and_hold.price_open, candles["close"], run.costs), name="buy and hold", showlegend=True,
            mode="lines", line={"color": _GREY, "width": 1, "dash": "dot"}, hovertemplate=_WHEN + "%{y:+,.3f} %<extra>buy and hold</extra>",
        )  # fmt: skip
        figure.add_trace(held, row=2, col=1)
    figure.add_trace(drawdown, row=3, col=1)
    figure.update_yaxes(title_text=f"{escape(run.symbol)} price", row=1, col=1)
    figure.update_yaxes(title_text="profit, %<br>of one stake", row=2, col=1)
    figure.update_yaxes(title_text="drawdown, %<br>of one stake", row=3, col=1)
    if not run.trades:
        figure.add_annotation(text="no closed trades", x=0.5, y=0.75, xref="x2 domain", yref="y2 domain", showarrow=False)
        figure.update_yaxes(range=[-1, 1], row=2, col=1)
        figure.update_yaxes(range=[-1, 0], row=3, col=1)
    return _encoded(figure, 3, run.start_ms, run.end_ms, 860)


def compare_chart(runs: Sequence[BacktestResult], names: Sequence[str]) -> str:
    """Return a figure with the running sum of the profits of all runs together, and of each run if the chart stays readable."""
    graph = importlib.import_module("plotly.graph_objects")
    figure = _subplots([1.0])
    start, end = min(run.start_ms for run in runs), max(run.end_ms for run in runs)
    lines = [("all runs", _SUM, 3.0, profit_sums(trades_of(runs), start, end))]
    if len(runs) <= _MOST_LINES:
        for number, (run, name) in enumerate(zip(runs, names, strict=True)):
            lines.append((name, _COLOURS[number % len(_COLOURS)], 1.5, profit_sums(run.trades, run.start_ms, run.end_ms)))
    for name, colour, width, (times, sums) in lines:
        trace = graph.Scatter(
            x=times, y=sums, mode="lines", name=escape(name), line={"shape": "hv", "color": colour, "width": width},
            hovertemplate=f"{_WHEN}%{{y:+,.3f}} %<extra></extra>", showlegend=True,
        )  # fmt: skip
        figure.add_trace(trace)
    figure.update_yaxes(title_text="profit, % of one stake")
    return _encoded(figure, 1, start, end, 420)


def _trades(graph: Any, run: BacktestResult) -> list[Any]:
    """Return the traces of each outcome: paths from entry to exit, exits, entries. One click on the legend hides all three."""
    # Thousands of markers would cover each other, so they become smaller and translucent.
    size = min(12.0, max(5.0, 12 * (300 / max(len(run.trades), 1)) ** 0.5))
    outline = {"color": "#ffffff", "width": 1 if size > 8 else 0}
    traces: list[Any] = []
    outcomes: list[tuple[str, str, Sequence[Trade | OpenTrade]]] = [
        ("won", _WON, [trade for trade in run.trades if trade.stake_percentage > 0]),
        ("lost", _LOST, [trade for trade in run.trades if trade.stake_percentage <= 0]),
        ("still open", _OPEN, [] if run.open_trade is None else [run.open_trade]),
    ]
    for name, colour, trades in outcomes:
        if not trades:
            continue
        ends = [_end(trade, run.end_ms) for trade in trades]
        opened, closed = _times([trade.open_timestamp for trade in trades]), _times([when for when, _ in ends])
        entries, exits = np.array([trade.price_open for trade in trades]), np.array([price for _, price in ends])
        texts = [_hover(trade, when, price) for trade, (when, price) in zip(trades, ends, strict=True)]
        breaks = np.full(len(trades), np.nan)  # NaN ends the path of one trade before the next begins
        marker = {"color": colour, "line": outline, "opacity": 1 if size > 8 else 0.6}
        marks = {"mode": "markers", "hovertext": texts, "hoverinfo": "text", "name": name, "legendgroup": name}
        arrows = ["triangle-up" if trade.position == "long" else "triangle-down" for trade in trades]
        traces += [
            graph.Scatter(
                x=np.column_stack((opened, closed, closed)).ravel(), y=np.column_stack((entries, exits, breaks)).ravel(),
                mode="lines", line={"color": colour, "width": 1.5}, hoverinfo="skip", name=name, legendgroup=name, showlegend=False,
            ),
            graph.Scatter(x=closed, y=exits, marker={**marker, "symbol": "circle", "size": size * 2 / 3}, showlegend=False, **marks),
            graph.Scatter(x=opened, y=entries, marker={**marker, "symbol": arrows, "size": size}, showlegend=False, **marks),
            # An empty trace for the legend, which would otherwise show the arrow of the first trade.
            graph.Scatter(
                x=[None], y=[None], mode="markers", marker={"color": colour, "symbol": "square", "size": 10},
                name=f"{name} ({len(trades):,})", legendgroup=name, showlegend=True,
            ),
        ]  # fmt: skip
    return traces


def _end(trade: Trade | OpenTrade, end_ms: int) -> tuple[int, float]:
    return (trade.close_timestamp, trade.price_close) if isinstance(trade, Trade) else (end_ms, trade.current_price)


def _hover(trade: Trade | OpenTrade, end_ms: int, price: float) -> str:
    digits = price_digits(trade.price_open)
    lines = [
        f"<b>{trade.position}, {percent_text(trade.stake_percentage)}</b>",
        f"opened {time_text(trade.open_timestamp)} UTC at {trade.price_open:,.{digits}f}",
    ]
    if isinstance(trade, Trade):
        lines.append(f"closed {time_text(end_ms)} UTC at {price:,.{digits}f}")
        lines.append(f"by {reason_text(trade.close_reason)} after {length_text(end_ms - trade.open_timestamp)}")
    else:
        lines.append(f"still open, now at {price:,.{digits}f}")
    return "<br>".join([*lines, escape(trade.id)])


def _subplots(heights: list[float]) -> Any:
    plots = importlib.import_module("plotly.subplots")
    return plots.make_subplots(rows=len(heights), cols=1, shared_xaxes=True, row_heights=heights, vertical_spacing=0.03)


def profit_sums(trades: Sequence[Trade], start_ms: int, end_ms: int) -> tuple[Times, npt.NDArray[np.float64]]:
    """Return times, and the sum of the profits from each of these times on."""
    sums = np.cumsum([0.0, *(trade.stake_percentage for trade in trades)])
    return _times([start_ms, *(trade.close_timestamp for trade in trades), end_ms]), np.append(sums, sums[-1])


def _times(stamps: Any) -> Times:
    return np.array(stamps, np.int64).view("datetime64[ms]")


def _encoded(figure: Any, rows: int, start_ms: int, end_ms: int, height: int) -> str:
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 90, "r": 20, "t": 40, "b": 64},
        font={"family": _FONT, "size": 13, "color": "#22292f"},
        legend={"orientation": "h", "x": 0, "y": 1.01, "xanchor": "left", "yanchor": "bottom"},
        hovermode="closest",
        hoverlabel={"bgcolor": "#ffffff", "font": {"family": _FONT, "size": 13, "color": "#22292f"}, "align": "left"},
        dragmode="zoom",
    )
    figure.update_xaxes(
        type="date", range=list(_times([start_ms, end_ms]).astype(str)), rangeslider_visible=False, gridcolor=_GRID, linecolor=_PALE,
        hoverformat="%Y-%m-%d %H:%M UTC",
    )  # fmt: skip
    figure.update_yaxes(
        gridcolor=_GRID, linecolor=_PALE, zerolinecolor=_GREY, separatethousands=True, exponentformat="none", title_standoff=8
    )
    figure.update_xaxes(title_text="time (UTC)", row=rows, col=1)
    text: str = figure.to_json()
    return text.replace("<", "\\u003c")  # so that no text in it can close the script element around it
