"""The page and the JSON of the same run say the same: every figure of the page is read back and compared."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, datetime

import msgspec
import pytest
from hand_market import MINUTE, START, flat, memory  # noqa: F401 - memory is a fixture
from hand_results import WAVES, result
from report_page import Page, texts_of

from backtest_kit_mongo.runner import OpenTrade, add_strategy, import_candles, run_backtest, run_backtests
from backtest_kit_mongo.runner.engine.cost_basis import Costs
from backtest_kit_mongo.runner.report.html import html_report
from backtest_kit_mongo.runner.report.statistics import result_json

pytestmark = pytest.mark.once

DAY = 1440 * MINUTE
NONE = "-"


def failed_run():
    """Run a strategy that opens positions and then raises."""
    import_candles(flat(300), "BTCUSDT")
    calls = []

    def get_signal(symbol, when):
        calls.append(when)
        if len(calls) > 6:
            raise ZeroDivisionError("<i>division</i> by zero")
        return {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 5}

    add_strategy("hand", interval="15m", get_signal=get_signal)
    _, (error,) = run_backtests(["BTCUSDT"])
    return list(error.results), [error]


LEFT = OpenTrade(
    id="left", symbol="BTCUSDT", strategy_name="hand", position="short", price_open=100.0, open_timestamp=START + DAY, current_price=99.0,
    pnl_percentage=0.5,
)  # fmt: skip
KINDS = {
    "many trades": lambda: ([result(WAVES)], []),
    "no trades": lambda: ([result([])], []),
    "only losses": lambda: ([result([-1.0, -0.25, -2.0])], []),
    "only wins": lambda: ([result([1.0, 0.25, 2.0])], []),
    "one trade": lambda: ([result([1.5], days=3, open_trade=LEFT)], []),
    "more lost than the stake": lambda: ([result([-60.0, -60.0, 5.0])], []),
    "an earlier version": lambda: ([result([1.0, -1.0], costs=None, parameters={}, buy_and_hold=None, window_end_ms=None)], []),
    "over two years": lambda: ([result(WAVES, days=500)], []),
    "two runs": lambda: ([result(WAVES), result([-1.0, 4.0], symbol="ETHUSDT", open_trade=LEFT, complete=False)], []),
    "failed": failed_run,
    "failed before any trade": lambda: ([result([], days=1, end_ms=START, minutes=0, complete=False, error="no", buy_and_hold=None)], []),
}


def percent(value):
    return NONE if value is None else f"{value:+,.3f} %"


def fall(value):
    return f"{value:,.3f} %"


def ratio(value):
    return NONE if value is None else f"{value:,.3f}"


def time(ms):
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M}"


def length(ms):
    minutes = round(ms / MINUTE)
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "m"))
    return " ".join(f"{count:,}{unit}" for count, unit in parts if count) or "0m"


def check_facts(page, totals, analysis, trades):
    year, held = analysis["annualised"], analysis["buyAndHold"]
    expected = {
        "Profit": percent(totals["pnlPercentage"]),
        "Trades": f"{totals['trades']:,}",
        "Exposure": f"{totals['exposurePercentage']:.1f} %",
        "Buy and hold": percent(None if held is None else held["pnlPercentage"]),
        "CAGR": percent(year["cagrPercentage"]),
        "Sharpe ratio, annual": ratio(year["sharpeRatio"]),
        "Sortino ratio, annual": ratio(year["sortinoRatio"]),
    }
    reasons = sorted(Counter(trade["closeReason"] for trade in trades).items())
    if totals["trades"]:
        expected |= {
            "Win rate": f"{totals['winRate']:.1f} %",
            "Max drawdown": fall(totals["maxDrawdownPercentage"]),
            "Profit factor": ratio(totals["profitFactor"]),
            "Sharpe per trade": ratio(totals["sharpeRatio"]),
            "Average trade": percent(totals["averagePnlPercentage"]),
            "Best and worst": f"{percent(totals['bestPnlPercentage'])}, {percent(totals['worstPnlPercentage'])}",
            "Longest losing streak": f"{totals['longestLosingStreak']:,}",
            "Average time held": length(totals["averageMinutesHeld"] * MINUTE),
            "Closed by": "; ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in reasons),
        }
    if held is not None and held["cagrPercentage"] is not None:
        expected["CAGR of buy and hold"] = percent(held["cagrPercentage"])
    assert {name: page.fact(name)[0] for name in expected} == expected
    assert page.fact("Trades")[1] == f"{totals['wins']:,} won, {totals['losses']:,} lost"
    for key, name in (("cagrPercentage", "CAGR"), ("sharpeRatio", "Sharpe ratio, annual"), ("sortinoRatio", "Sortino ratio, annual")):
        assert (key in year["missing"]) == (expected[name] == NONE)
        assert key not in year["missing"] or page.fact(name)[1] == f"none: {year['missing'][key]}"
    if held is not None and held["maxDrawdownPercentage"] is not None:
        assert page.fact("Buy and hold")[1].endswith(f"max drawdown {fall(held['maxDrawdownPercentage'])}")
    # No other figure is shown than those compared here, and these.
    rest = {"Still open", "Fee and slippage", "Parameters", "Signals ignored", "Holes"}
    assert {fact[0] for fact in page.facts if len(fact) == 3} <= {*expected, *rest}


def check_tables(page, analysis):
    """Compare the first table of each kind, which is that of all runs."""
    months, shown = {one["month"]: one for one in analysis["months"]}, page.tables["months"]
    years = sorted({month[:4] for month in months})
    assert [row[0] for row in shown[1 : len(years) + 1]] == years
    for row in shown[1 : len(years) + 1]:
        of_year = [months[month] for month in months if month[:4] == row[0]]
        for number, cell in enumerate(row[1:13], start=1):
            one = months.get(f"{row[0]}-{number:02}")
            assert cell == ("" if one is None else f"{one['pnlPercentage']:+,.2f}" if one["trades"] else NONE)
        assert row[13] == f"{sum(one['pnlPercentage'] for one in of_year):+,.2f}"
        assert row[14] == f"{sum(one['trades'] for one in of_year):,}"
    falls = [
        [
            fall(one["depthPercentage"]),
            fall(one["equityPercentage"]),
            time(one["startTimestamp"]),
            time(one["bottomTimestamp"]),
            "not recovered" if one["recoveryTimestamp"] is None else time(one["recoveryTimestamp"]),
            length(one["durationMs"]),
        ]
        for one in analysis["drawdowns"]
    ]
    assert page.tables.get("drawdowns", [[]])[1 : len(falls) + 1] == falls
    sizes = analysis["distribution"]
    if not sizes:
        assert not page.bars
        assert "sides" not in page.tables
        return
    assert page.tables["sides"][1:3] == [
        [
            side["side"],
            f"{side['trades']:,}",
            NONE if side["winRate"] is None else f"{side['winRate']:.1f} %",
            percent(side["pnlPercentage"]),
            percent(side["averagePnlPercentage"]),
            ratio(side["profitFactor"]),
            percent(side["bestPnlPercentage"]),
            percent(side["worstPnlPercentage"]),
            NONE if side["averageMinutesHeld"] is None else length(side["averageMinutesHeld"] * MINUTE),
        ]
        for side in analysis["sides"]
    ]
    ranges, counts = page.bars[0][::2], page.bars[0][1::2]
    assert counts == [f"{one['trades']:,}" for one in sizes]
    limits = [
        [limit for limit in (one["abovePercentage"], one["upToPercentage"]) if limit is not None] for one in sizes
    ]  # fmt: skip
    assert [[float(number.replace(",", "")) for number in re.findall(r"[-+]?[\d,.]+", text)] for text in ranges] == limits


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_says_what_the_json_says(kind):
    runs, failed = KINDS[kind]()
    text = html_report(runs, failed=failed)
    page, content = Page(text), json.loads(result_json(runs, failed))
    assert not re.search(r"\b(nan|NaN|inf|Infinity|None|null)\b", page.text)
    check_facts(page, content["totals"], content["analysis"], content["trades"])
    check_tables(page, content["analysis"])
    many = len(runs) > 1
    lists = page.long_tables[1:] if many else page.long_tables
    assert [[row[10] for row in texts_of(table)] for table in lists] == [
        [trade["id"] for trade in content["trades"] if trade["symbol"] == run["symbol"]]
        if not many
        else [f"trade-{n}" for n in range(count)]
        for run in content["runs"]
        if (count := run["totals"]["trades"])
    ]
    if not many and content["trades"]:
        for row, trade in zip(texts_of(lists[0]), content["trades"], strict=True):
            assert row[1:3] == [time(trade["openTimestamp"]), time(trade["closeTimestamp"])]
            assert row[3:5] == [length(trade["closeTimestamp"] - trade["openTimestamp"]), trade["position"]]
            assert [float(cell.replace(",", "")) for cell in row[5:7]] == pytest.approx([trade["priceOpen"], trade["priceClose"]])
            assert row[7:9] == [trade["closeReason"].replace("_", " "), percent(trade["pnlPercentage"])]
        assert texts_of(lists[0])[-1][9] == percent(content["totals"]["pnlPercentage"])
    for run in content["runs"]:
        assert run["complete"] or "Incomplete: this run ended early" in page.text
    for error in content["failed"]:
        assert error in "".join(page.texts)


def test_costs_and_parameters_are_shown_and_in_the_json():
    run = result([1.0])
    page, (content,) = Page(html_report(run)), json.loads(result_json(run))["runs"]
    assert content["costs"] == {"feePercent": 0.05, "slippagePercent": 0.02, "stakeUsd": 250.0}
    assert content["parameters"] == {"FAST": 6, "MODE": "a<b"}
    assert page.fact("Fee and slippage")[0] == "fee 0.05 %, slippage 0.02 %, stake 250 USD"
    assert page.fact("Parameters")[0] == "FAST=6, MODE=a<b"
    other = msgspec.structs.replace(run, parameters={"FAST": 7, "MODE": "a<b"}, costs=Costs())
    page = Page(html_report([other, run]))
    assert page.fact("Parameters")[0] == page.fact("Fee and slippage")[0] == "differ from run to run"
    rows = texts_of(page.long_tables[0])
    assert [(row[5], row[6][:8]) for row in rows] == [("FAST=6, MODE=a<b", "fee 0.05"), ("FAST=7, MODE=a<b", "fee 0.1 ")]
    assert result_json([run, other]) == result_json([other, run])
    old = Page(html_report(result([1.0], costs=None, parameters={})))
    assert (old.fact("Fee and slippage")[0], old.fact("Parameters")[0]) == ("not recorded", "none")


def test_runs_that_failed_or_are_incomplete_are_marked():
    (ended,), failed = failed_run()
    page = Page(html_report([ended], failed=failed))
    assert ended.totals.trades > 3
    assert re.search(r"Incomplete: this run ended early, at 2023-03-01 01:44 UTC, after 34.7 % of its window:.*<i>division</i>", page.text)
    assert page.text.startswith("hand on BTCUSDT, 1 failed hand on BTCUSDT, 1 failed")
    beside = Page(html_report([ended, result([1.0], symbol="ETHUSDT")], failed=["SOLUSDT: nothing is stored"]))
    assert [row[-1] for row in texts_of(beside.long_tables[0])] == ["incomplete", ""]
    assert "SOLUSDT: nothing is stored" in beside.text
    nothing = Page(html_report([], failed=["XRPUSDT: nothing is stored"]))
    assert "XRPUSDT: nothing is stored" in nothing.text
    assert "There are no runs to report." in nothing.text


def test_a_run_over_its_candles_shows_buy_and_hold_in_the_chart():
    import_candles(flat(300), "BTCUSDT")
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    figure = Page(html_report(run_backtest("BTCUSDT"))).figures[0]
    assert [trace["name"] for trace in figure["data"] if trace.get("showlegend")] == ["buy and hold"]


def test_text_on_the_heat_map_is_readable():
    """The darkest colours of the map behind the colour of the text (WCAG 2.2, contrast ratio at least 4.5)."""

    def luminance(channels):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (channel / 255 for channel in channels)]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    page = Page(html_report(result(WAVES, days=200)))
    styles = [attributes["style"] for tag, attributes in page.elements if tag == "td" and "style" in attributes]
    assert len(styles) > 2
    for style in styles:
        *channels, opacity = (float(number) for number in re.findall(r"[\d.]+", style))
        background = [255 - (255 - channel) * opacity for channel in channels]
        assert (luminance(background) + 0.05) / (luminance((0x22, 0x29, 0x2F)) + 0.05) > 7
