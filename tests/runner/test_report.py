"""Reports of runs: equal runs make equal files; a page shows everything in the results, and names only as text."""

from __future__ import annotations

import base64
import json
import os
import random
import sys
import time

import msgspec
import numpy as np
import pytest
from hand_market import MINUTE, START, flat, memory, use_memory  # noqa: F401 - memory is a fixture
from hypothesis import given
from hypothesis import strategies as st
from paths import EXAMPLE
from report_page import Page, texts_of

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, InvalidValueError, PersistCandleAdapter, Report, StorageError
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.contracts.registry import Registry
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.errors import MissingDependencyError, ServerUnavailableError
from backtest_kit_mongo.output_files import check_target, replacing
from backtest_kit_mongo.runner import OpenTrade, Trade, add_strategy, import_candles, load_strategy_file, run_backtest, synthetic_market
from backtest_kit_mongo.runner.engine.result import add_up
from backtest_kit_mongo.runner.report import html as report_html
from backtest_kit_mongo.runner.report.candles import chart_candles, chart_step
from backtest_kit_mongo.runner.report.html import check_html, html_report, write_html
from backtest_kit_mongo.runner.report.statistics import profile_json, result_json, statistics_of, trades_frame, write_file
from backtest_kit_mongo.runner.report.text import length_text, price_digits

pytestmark = pytest.mark.once

HOUR, DAY = 60 * MINUTE, 1440 * MINUTE
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;{{ 7 * 7 }}"


def trade(profit=1.0, opened=0, closed=10, reason="take_profit", **fields):
    """Return a trade; times are minutes after START."""
    return Trade(
        **{
            "id": f"trade-{opened}",
            "symbol": "BTCUSDT",
            "strategy_name": "hand",
            "position": "long",
            "price_open": 100.0,
            "price_close": 100.0 + profit,
            "open_timestamp": START + opened * MINUTE,
            "close_timestamp": START + closed * MINUTE,
            "close_reason": reason,
            "pnl_percentage": profit,
            **fields,
        }
    )


def trades_with(profits):
    """Return trades of ten minutes, ten minutes apart."""
    return [trade(profit, 20 * number, 20 * number + 10) for number, profit in enumerate(profits)]


@pytest.fixture
def quiet():
    """A run without trades over 100 minutes."""
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    import_candles(flat(100), "BTCUSDT")
    return run_backtest("BTCUSDT")


@pytest.fixture
def finished(quiet):
    """A function that makes a result of given trades."""

    def make(trades, **fields):
        return msgspec.structs.replace(quiet, trades=tuple(trades), totals=add_up(trades), **fields)

    return make


def crossing(days=3, symbol="BTCUSDT"):
    """Run the example on a synthetic market."""
    load_strategy_file(EXAMPLE)
    import_candles(synthetic_market(7, days * 1440, START), symbol)
    return run_backtest(symbol, "sma_cross")


# ---------------------------------------------------------------- JSON


def test_two_runs_on_one_database_give_the_same_bytes(mongo):
    """The second run finds the records of the first, and is slower or faster."""
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()
    first = crossing()
    second = run_backtest("BTCUSDT", "sma_cross")
    assert len(first.trades) > 3
    assert (first.wall_seconds, first.stats) != (second.wall_seconds, second.stats)
    assert result_json(first) == result_json(second)
    assert html_report(first) == html_report(second)


def test_json_has_the_fields_of_the_contract():
    result = crossing(days=10)
    text = result_json(result)
    content = json.loads(text)
    assert text.endswith(b"}\n")
    assert list(content) == ["trades", "totals", "analysis", "runs", "failed"]
    assert content["trades"] == [
        {
            "id": trade.id,
            "symbol": "BTCUSDT",
            "strategyName": "sma_cross",
            "position": trade.position,
            "priceOpen": trade.price_open,
            "priceClose": trade.price_close,
            "openTimestamp": trade.open_timestamp,
            "closeTimestamp": trade.close_timestamp,
            "closeReason": trade.close_reason,
            "pnlPercentage": trade.pnl_percentage,
            "entries": 1,
            "partials": 0,
            "stakes": 1.0,
        }
        for trade in result.trades
    ]
    assert {trade["closeReason"] for trade in content["trades"]} == {"take_profit", "stop_loss", "time_expired"}
    counts = {"signalsIgnored": 0, "errorsSkipped": 0}
    assert content["totals"] == msgspec.to_builtins(result.totals) | msgspec.to_builtins(statistics_of(result)) | counts
    (run,) = content["runs"]
    assert run["totals"] == content["totals"]
    assert (run["startTimestamp"], run["endTimestamp"], run["minutes"]) == (START, START + 10 * DAY, 14_400)
    assert "wall" not in text.decode().lower()


def test_json_of_several_runs_does_not_depend_on_their_order(finished):
    runs = [
        finished(
            [trade(profit, opened, opened + held, strategy_name=name) for profit, opened, held in rows],
            strategy_name=name,
            frame_name=frame,
        )
        for name, frame, rows in [
            ("b", "march", [(1.0, 0, 10), (-2.0, 20, 10)]),
            ("a", "march", [(1.0, 5, 5), (0.5, 40, 1)]),
            ("a", "april", []),
            ("a", "march", [(1.0, 5, 5), (0.25, 40, 1)]),  # as in a sweep: only the trades differ
        ]
    ]
    expected = result_json(runs)
    for seed in range(10):
        random.Random(seed).shuffle(runs)
        assert result_json(iter(runs)) == expected
        assert trades_frame(runs).equals(trades_frame(runs[::-1]))
    content = json.loads(expected)
    assert [(run["strategyName"], run["frameName"]) for run in content["runs"]] == [
        ("a", "april"),
        ("a", "march"),
        ("a", "march"),
        ("b", "march"),
    ]
    assert (
        [trade["pnlPercentage"] for trade in content["trades"]]
        == [1.0, 1.0, 1.0, -2.0, 0.25, 0.5]
        == list(trades_frame(runs)["pnlPercentage"])
    )
    assert content["totals"]["trades"] == 6
    assert content["totals"]["pnlPercentage"] == pytest.approx(1.75)
    assert content["totals"]["maxDrawdownPercentage"] == pytest.approx(2.0)


def test_statistics(finished):
    profits = [2.0, -1.0, -1.0, 3.0, 0.0]
    left = OpenTrade(
        id="left", symbol="BTCUSDT", strategy_name="hand", position="short", price_open=100.0, open_timestamp=START + 95 * MINUTE,
        current_price=100.0, pnl_percentage=-0.1,
    )  # fmt: skip
    statistics = statistics_of(finished(trades_with(profits), open_trade=left))
    assert statistics.profit_factor == pytest.approx(5 / 2)
    assert statistics.sharpe_ratio == pytest.approx(0.6 / np.std(profits, ddof=1))
    assert statistics.longest_losing_streak == 2
    assert statistics.average_minutes_held == 10.0
    assert statistics.exposure_percentage == pytest.approx(55.0)  # five times ten minutes, and the last five, of a hundred
    assert statistics_of([finished([]), finished(trades_with(profits))]).exposure_percentage == pytest.approx(25.0)
    outlasting = finished([trade(opened=-30, closed=20), trade(opened=90, closed=500)])  # only what is in the window counts
    assert statistics_of(outlasting).exposure_percentage == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("profits", "factor", "sharpe", "streak"),
    [([], None, None, 0), ([1.0], None, None, 0), ([1.0, 1.0], None, None, 0), ([-1.0], 0.0, None, 1), ([0.0, 0.0], None, None, 2)],
)
def test_statistics_that_do_not_exist_are_null(finished, profits, factor, sharpe, streak):
    result = finished(trades_with(profits))
    statistics = statistics_of(result)
    assert (statistics.profit_factor, statistics.sharpe_ratio, statistics.longest_losing_streak) == (factor, sharpe, streak)
    totals = json.loads(result_json(result))["totals"]
    assert (totals["profitFactor"], totals["sharpeRatio"]) == (factor, sharpe)


def test_no_runs_at_all():
    content = json.loads(result_json([]))
    assert (content["trades"], content["runs"], content["totals"]["trades"]) == ([], [], 0)
    assert "There are no runs" in html_report([])


def test_only_results_are_reported(quiet):
    for function in (result_json, trades_frame, statistics_of, html_report):
        with pytest.raises(InvalidTypeError, match="BacktestResults, got str"):
            function([quiet, "result"])


def test_profile_json_is_a_saved_report_with_sums():
    with kit.profile() as report:
        result = crossing()
    content = json.loads(profile_json(report, result))
    assert Report.from_dict(content).to_dict() == report.to_dict()
    signal = content["domains"]["signal"]
    assert signal["calls"] == sum(taken["count"] for taken in signal["operations"].values()) > 0
    assert signal["hits"] == signal["hits_process"] + signal["hits_redis"] + signal["hits_block"]
    assert {"hit_ratio", "misses", "bytes_read", "bytes_written"} <= set(signal)
    (run,) = content["runs"]
    assert run["wall_seconds"] == pytest.approx(result.wall_seconds, abs=1e-6)
    assert run["minutes_per_second"] == pytest.approx(result.minutes / result.wall_seconds, rel=1e-3)
    assert content["seconds"] >= run["wall_seconds"]


# ---------------------------------------------------------------- DataFrame


def test_trades_as_a_dataframe(finished):
    result = crossing(symbol="ETHUSDT")
    frame = trades_frame(result)
    assert list(frame["pnlPercentage"]) == [trade.pnl_percentage for trade in result.trades]
    assert list(frame["openTimestamp"].astype("int64")) == [trade.open_timestamp for trade in result.trades]
    assert frame["closeTimestamp"][0].isoformat().endswith("+00:00")
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["openTimestamp"] == kinds["closeTimestamp"] == "datetime64[ms, UTC]"
    assert kinds["priceOpen"] == kinds["priceClose"] == kinds["pnlPercentage"] == "float64"
    assert (set(frame["exchangeName"]), set(frame["frameName"])) == ({"binance"}, {"backtest"})
    assert trades_frame(finished([])).dtypes.equals(frame.dtypes)
    assert json.loads(result_json(result))["trades"][0].keys() <= set(frame.columns)


def test_without_pandas_the_error_says_what_to_install(quiet, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match=r"backtest-kit-mongo\[pandas\]"):
        trades_frame(quiet)


# ---------------------------------------------------------------- files


def test_a_target_is_checked_before_the_work(tmp_path):
    (tmp_path / "folder").mkdir()
    for path, said in [("nowhere/out.json", "there is no folder"), ("folder", "it is a folder"), (os.devnull, "it is not a regular file")]:
        for check in (check_target, check_html):
            with pytest.raises(InvalidValueError, match=said):
                check(tmp_path / path)
    assert check_target(tmp_path / "new.json") == tmp_path / "new.json"
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


def test_a_file_is_replaced_as_a_whole(tmp_path):
    target, link = tmp_path / "out.json", tmp_path / "link.json"
    link.symlink_to(target)
    write_file(target, b"old")
    with pytest.raises(TypeError), replacing(target) as file:
        file.writelines([b"new", None])
    assert target.read_bytes() == b"old"
    write_file(str(link), b"newer")
    assert target.read_bytes() == b"newer"
    assert link.is_symlink()
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_file_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    for length in (300, 250):  # the second name fits a file, but not its temporary file
        with pytest.raises(StorageError, match=r"cannot be written: File name too long"):
            write_file(tmp_path / ("n" * length), b"")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- candles of a chart


@given(st.integers(0, 2**41), st.integers(1, 20 * 366 * 1440), st.integers(2, 3000))
def test_the_shortest_candles_that_fit(start, minutes, most):
    start -= start % MINUTE
    end = start + minutes * MINUTE

    def touched(step):
        return (end - 1) // step - start // step + 1

    step = chart_step(start, end, most)
    assert touched(step) <= most
    shorter = [other for other in (*(n * MINUTE for n in (1, 3, 5, 15, 30, 60, 120, 240, 360, 480)), step - DAY) if 0 < other < step]
    assert all(touched(other) > most for other in shorter)


def test_no_candles_are_too_few_for_a_window():
    with pytest.raises(InvalidValueError, match="at least 2"):
        chart_step(START, START + DAY, 1)


@pytest.mark.parametrize("step", [MINUTE, 15 * MINUTE, HOUR, DAY, 3 * DAY])
@pytest.mark.parametrize("hole", [None, (700, 701), (5_000, 9_000)])
def test_candles_are_joined_from_all_their_minutes(step, hole):
    """Candles match plain sums and extremes; a candle with a gap is left out."""
    market = synthetic_market(5, 11_000, START + 7 * MINUTE)
    kept = market if hole is None else np.delete(market, np.s_[slice(*hole)])
    PersistCandleAdapter.write_candles_data(kept, "BTCUSDT", "1m", "binance")
    start, end = START + 20 * MINUTE, START + 10_990 * MINUTE
    expected, missing = {}, set()
    for candle in market[(market["timestamp"] >= start) & (market["timestamp"] < end)]:
        expected.setdefault(int(candle["timestamp"]) // step * step, []).append(candle)
    for stamp in set(market["timestamp"].tolist()) - set(kept["timestamp"].tolist()):
        missing.add(stamp // step * step)
    joined = chart_candles("BTCUSDT", "binance", start + 1, end + 59_999, step)
    assert joined["timestamp"].tolist() == sorted(set(expected) - missing)
    for candle in joined:
        minutes = expected[int(candle["timestamp"])]
        assert candle["open"] == minutes[0]["open"]
        assert candle["close"] == minutes[-1]["close"]
        assert candle["high"] == max(minute["high"] for minute in minutes)
        assert candle["low"] == min(minute["low"] for minute in minutes)
        assert candle["volume"] == pytest.approx(sum(minute["volume"] for minute in minutes))


def test_candles_that_are_not_stored_are_not_there():
    assert len(chart_candles("NOBODY", "binance", START, START + 10 * DAY, 15 * MINUTE)) == 0


# ---------------------------------------------------------------- HTML


def numbers(column):
    """Return a column of a figure, which newer versions of plotly pack."""
    if isinstance(column, dict):
        return np.frombuffer(base64.b64decode(column["bdata"]), column["dtype"]).tolist()
    return list(column)


def traces(figure, kind, **attributes):
    return [
        trace for trace in figure["data"] if trace["type"] == kind and all(trace.get(name) == value for name, value in attributes.items())
    ]


def test_a_page_shows_every_trade(tmp_path):
    result = crossing(days=10)
    with kit.profile() as report:
        kit.PersistStateAdapter.write_state_data({}, "signal", "bucket", START)
    write_html(tmp_path / "out.html", result, profile=report)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.html"]
    page = Page((tmp_path / "out.html").read_text())
    assert page.open == []
    (listed,) = page.long_tables
    assert [row[-1] for row in texts_of(listed)] == [trade.id for trade in result.trades]
    (figure,) = page.figures
    marks = traces(figure, "scatter", mode="markers")
    shown = [text for trace in marks for text in trace.get("hovertext", ())]
    opened = len(result.trades) + (result.open_trade is not None)
    assert len(shown) == 2 * opened  # an entry and an exit
    wins = [trace for trace in marks if trace.get("name") == f"won ({result.totals.wins})"]
    assert len(wins) == 1
    (candles,) = traces(figure, "candlestick")
    assert len(numbers(candles["close"])) == len(candles["x"]) == 960  # 15m
    sums = numbers(next(trace for trace in figure["data"] if "profit" in trace.get("hovertemplate", ""))["y"])
    falls = numbers(next(trace for trace in figure["data"] if "drawdown" in trace.get("hovertemplate", ""))["y"])
    assert sums[0] == 0.0
    assert sums[-1] == pytest.approx(result.totals.pnl_percentage)
    assert -min(falls) == pytest.approx(result.totals.max_drawdown_percentage)
    assert f"{result.totals.pnl_percentage:+.3f} %" in page.text
    assert "Reading and writing" in page.text
    assert any(row[:1] == ["state"] for row in page.tables["plain"])
    assert [attributes for tag, attributes in page.elements if tag == "details"] == [{"id": "definitions"}, {"id": "profile"}]  # folded
    assert "Reading and writing" not in html_report(result)


def test_a_page_needs_no_network_and_lets_none_in(finished):
    page = Page(html_report([finished(trades_with([1.0])), finished([])]))
    loading = {"src", "href", "srcset", "data", "action", "poster", "background"}
    assert not [value for _, attributes in page.elements for name, value in attributes.items() if name in loading]
    assert page.long_tables[0]["links"] == {"0": "run-0", "1": "run-1"}
    assert not {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "img", "base", "form"}
    (policy,) = (attributes["content"] for tag, attributes in page.elements if attributes.get("http-equiv") == "Content-Security-Policy")
    assert {"default-src 'none'", "form-action 'none'"} <= set(policy.split("; "))


def test_names_are_text_everywhere(finished):
    def pages(name):
        trades = [trade(id=name, symbol=name, strategy_name=name)]
        fields = {"symbol": name, "strategy_name": name, "exchange_name": name, "frame_name": name}
        return [Page(html_report(finished(trades, **fields))), Page(html_report([finished(trades, **fields), finished([], **fields)]))]

    for harmless, hostile in zip(pages("harmless"), pages(HOSTILE), strict=True):
        assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in harmless.elements]
        assert [set(attributes) for _, attributes in hostile.elements] == [set(attributes) for _, attributes in harmless.elements]
        assert HOSTILE in "".join(hostile.texts)
        assert HOSTILE in texts_of(hostile.long_tables[-1])[0][-1]
        # plotly treats some tags in texts as formatting.
        assert "<img" not in json.dumps(hostile.figures)
        assert "&lt;img" in json.dumps(hostile.figures)


def test_a_run_without_trades_says_so(quiet):
    page = Page(html_report(quiet))
    assert "No trade was closed." in page.text
    assert [note["text"] for note in page.figures[0]["layout"]["annotations"]] == ["no closed trades"]


def test_a_run_without_candles_says_so(finished):
    page = Page(html_report(finished(trades_with([1.0]), symbol="NOBODY")))
    assert "No candles are stored" in page.text
    assert traces(page.figures[0], "candlestick") == []


def test_candles_come_from_the_registry_of_the_run(finished):
    result = finished(trades_with([1.0]))
    with_own = Registry()
    with_own.PersistCandleAdapter.use_memory()
    try:
        assert traces(Page(html_report(result, registry=with_own)).figures[0], "candlestick") == []
        with_own.PersistCandleAdapter.write_candles_data(flat(50), "BTCUSDT", "1m", "binance")
        (candles,) = traces(Page(html_report(result, registry=with_own)).figures[0], "candlestick")
        assert len(candles["x"]) == 50
    finally:
        with_own.close()


def test_several_runs_are_compared(finished):
    left = OpenTrade(
        id="left", symbol="BTCUSDT", strategy_name="hand", position="short", price_open=100.0, open_timestamp=START, current_price=99.0,
        pnl_percentage=0.5,
    )  # fmt: skip
    page = Page(
        html_report(
            [finished(trades_with([1.0, -0.5]), open_trade=left), finished(trades_with([3.0]), exchange_name="other", open_trade=left)]
        )
    )
    together = page.figures[0]
    assert [(trace["name"], numbers(trace["y"])[-1]) for trace in together["data"]] == [
        ("all runs", 3.5),
        ("hand on BTCUSDT", 0.5),
        ("hand on BTCUSDT", 3.0),
    ]
    assert [row[1] for row in texts_of(page.long_tables[0])] == ["binance", "other"]
    assert "2 positions, +1.000 %" in page.text
    assert {attributes.get("id") for tag, attributes in page.elements if tag == "details"} == {"run-0", "run-1", "definitions"}


def test_of_very_many_runs_the_best_are_drawn(finished, monkeypatch):
    monkeypatch.setattr(report_html, "MOST_RUNS", 3)
    runs = [finished(trades_with([profit]), frame_name=f"{number:03}") for number, profit in enumerate(range(-5, 15))]
    page = Page(html_report(runs))
    assert len(page.long_tables[0]["rows"]) == 20
    assert [trace["name"] for trace in page.figures[0]["data"]] == ["all runs"]
    assert [attributes["id"] for tag, attributes in page.elements if tag == "details"][:-1] == ["run-17", "run-18", "run-19"]
    assert "The 3 runs with the highest profit follow." in page.text


@pytest.mark.slow
def test_ten_thousand_trades_are_a_page_still(finished):
    trades = [trade((-1.0) ** number, 3 * number, 3 * number + 2, id=f"{number:036}") for number in range(10_000)]
    began = time.perf_counter()
    text = html_report(finished(trades, end_ms=START + 30_000 * MINUTE))
    assert time.perf_counter() - began < 30
    assert len(text) < 15_500_000
    page = Page(text)
    assert len(page.long_tables[0]["rows"]) == 10_000
    assert sum(len(trace.get("hovertext", ())) for trace in page.figures[0]["data"]) == 20_000


@pytest.mark.parametrize("name", ["plotly", "jinja2"])
def test_without_the_extra_the_error_says_what_to_install(tmp_path, quiet, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    for function in (check_html, lambda path: write_html(path, quiet)):
        with pytest.raises(MissingDependencyError, match=r"backtest-kit-mongo\[report\]"):
            function(tmp_path / "out.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("minutes", "text"), [(0, "0m"), (0.4, "0m"), (59, "59m"), (60, "1h"), (61, "1h 1m"), (1440, "1d"), (1_500_000, "1,041d 16h")]
)
def test_lengths_of_time(minutes, text):
    assert length_text(minutes * MINUTE) == text


@pytest.mark.parametrize(("price", "digits"), [(0.0, 2), (25_000.0, 2), (100.0, 4), (1.0, 6), (0.00012, 10), (1e9, 2)])
def test_prices_show_seven_digits(price, digits):
    assert price_digits(price) == digits


def test_a_run_that_ended_before_its_first_minute_is_shown_with_its_error(finished):
    run = finished([], end_ms=START, minutes=0, complete=False, error="<b>no</b>")
    page = html_report([run], failed=[InvalidValueError("another one never began")])
    assert "another one never began" in page
    assert "Incomplete: this run ended early, at 2023-03-01 00:00 UTC, after 0.0 % of its window: &lt;b&gt;no&lt;/b&gt;" in page
    assert "<title>hand on BTCUSDT, 1 failed</title>" in page


def test_a_page_is_made_without_the_candles_of_a_server_that_is_gone(finished, monkeypatch):
    asked = []

    def gone(*window, registry):
        asked.append(window)
        raise ServerUnavailableError("MongoDB does not answer")

    monkeypatch.setattr("backtest_kit_mongo.runner.report.html.chart_candles", gone)
    page = html_report([finished(trades_with([1.0]), symbol=symbol) for symbol in ("AAA", "BBB")])
    assert "The candles cannot be drawn: MongoDB does not answer" in page
    assert "AAA" in page
    assert "BBB" in page
    assert len(asked) == 1  # the timeout is paid once
