"""What notebooks show: HTML, DataFrames and plots of profiles, counters, results and sweeps."""

import copy
import json
import pickle
import subprocess
import sys
from html.parser import HTMLParser

import msgspec
import pandas
import pytest
from hand_market import START, memory  # noqa: F401 - memory is a fixture

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidValueError, MissingDependencyError, PersistStateAdapter, profile
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.metrics import COUNTS
from backtest_kit_mongo.runner import (
    SweepResult,
    SweepRun,
    add_strategy,
    get_average_price,
    import_candles,
    run_backtest,
    synthetic_market,
    trades_frame,
)

pytestmark = pytest.mark.once

HOSTILE = "<script>alert('$x^{$')</script> & \"'"


class Page(HTMLParser):
    """The tags and the text of a piece of HTML; every tag must be closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())

    def rows(self):
        return self.tags.count("tr")


def drawn(figure):
    """Return the size of the picture that a notebook shows."""
    image = figure._repr_png_()
    assert image.startswith(b"\x89PNG")
    return len(image)


@pytest.fixture
def result():
    import_candles(synthetic_market(3, 2 * 1440, START), HOSTILE)

    def get_signal(symbol, when):
        price, side = get_average_price(symbol), 1 if when.hour % 2 else -1
        if when.hour == 5:
            price *= 2  # does not fit the market: ignored
        return {
            "position": "long" if side == 1 else "short",
            "priceTakeProfit": price * (1 + side * 0.01),
            "priceStopLoss": price * (1 - side * 0.01),
            "minuteEstimatedTime": 45,
        }

    add_strategy(HOSTILE, get_signal=get_signal)
    return run_backtest(HOSTILE, exchange_name="binance")


# ---------------------------------------------------------------- results


def test_a_result_shows_itself(result):
    page = Page(result._repr_html_())
    assert set(page.tags) == {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}  # no element came from a name
    text = "\n".join(page.texts)
    assert f"{HOSTILE} on {HOSTILE}, binance: 2023-03-01 00:00 to 2023-03-03 00:00 UTC (2d)" in text
    assert len(result.trades) > 20
    assert page.rows() == 2 + 1 + 20
    assert f"the last 20 of {len(result.trades)} trades; to_dataframe() has all" in text
    assert "signals ignored: " in text
    assert f"{result.totals.win_rate:.1f} %" in text
    pandas.testing.assert_frame_equal(result.to_dataframe(), trades_frame(result))
    assert drawn(result.plot()) > 10_000


def test_a_result_without_trades_and_one_that_ended_early(result):
    empty = msgspec.structs.replace(result, trades=(), open_trade=None, complete=False, error=HOSTILE, signals_ignored={})
    page = Page(empty._repr_html_())
    assert page.tags.count("table") == 2 - (page.rows() == 2)
    assert any(text.startswith("ended early, at 2023-03-03 00:00 UTC, after 100.0 % of its window: <script>") for text in page.texts)
    assert len(empty.to_dataframe()) == 0
    assert drawn(empty.plot()) > 1000


def test_a_result_is_what_it_was(result):
    """The views add nothing to what is stored and sent to other processes."""
    assert pickle.loads(pickle.dumps(result)) == result == msgspec.structs.replace(result)
    assert json.loads(msgspec.json.encode(result))["stats"]["candle"]["reads"] == result.stats["candle"]["reads"]


# ---------------------------------------------------------------- sweeps


def a_sweep(result, count):
    runs = [
        SweepRun(HOSTILE, {"FAST": number, "$a_b^": HOSTILE}, f"f{number}", START, START + 1, totals=result.totals)
        for number in range(count)
    ]
    failed = SweepRun("ETHUSDT", {"FAST": -1}, "failed", START, START + 1, error=HOSTILE)
    return SweepResult(HOSTILE, "binance", (failed, *runs))


def test_a_sweep_shows_itself(result):
    sweep = a_sweep(result, 50)
    page = Page(sweep._repr_html_())
    assert "script" not in page.tags
    assert page.rows() == 1 + 20
    assert page.texts.count("$a_b^") == 1
    assert any(text.startswith("1 failed, the first with: <script>") for text in page.texts)
    assert len(sweep.to_dataframe()) == 51
    figure = sweep.plot("winRate")
    assert len(figure.axes[0].patches) == 40
    assert drawn(figure) > 10_000
    with pytest.raises(InvalidValueError, match="runs cannot be sorted by 'profit'"):
        sweep.plot("profit")
    short = a_sweep(result, 0)
    assert Page(short._repr_html_()).texts.count("failed") == 1
    assert drawn(short.plot()) > 1000


# ---------------------------------------------------------------- counters


def test_stats_stay_a_dict_and_show_themselves():
    kit.reset_stats()
    assert "<table>" not in kit.stats()._repr_html_()
    assert len(kit.stats().to_dataframe("operations")) == 0
    PersistStateAdapter.write_state_data({"n": 1}, "signal", "bucket", START)
    PersistStateAdapter.read_state_data("signal", "bucket")
    stats = kit.stats()
    assert isinstance(stats, dict)
    assert set(stats) == set(DOMAINS)
    assert stats == dict(stats) == json.loads(json.dumps(stats)) == copy.deepcopy(stats) == pickle.loads(pickle.dumps(stats))
    assert msgspec.json.decode(msgspec.json.encode(stats)) == stats
    assert repr(stats) == repr(dict(stats))
    page = Page(stats._repr_html_())
    assert page.texts.count("state") == 3  # once among the counts, once for each operation
    assert "per s" not in page.texts
    frame = stats.to_dataframe()
    assert list(frame.columns) == [*COUNTS, "hit_ratio", "hit_ratio_process", "hit_ratio_redis", "hit_ratio_block"]
    assert (frame.loc["state", "reads"], frame.loc["state", "writes"], len(frame)) == (1, 1, len(DOMAINS))
    assert frame["hit_ratio"].dtype == float
    assert set(stats.to_dataframe("operations").loc["state"].index) == {"read", "write"}
    assert drawn(stats.plot()) > 1000
    with pytest.raises(InvalidValueError, match="of is 'rows'"):
        stats.to_dataframe("rows")


def test_a_profile_shows_itself():
    with profile() as report:
        PersistStateAdapter.write_state_data({"n": 1}, "signal", "bucket", START)
    page = Page(report._repr_html_())
    assert page.texts.count("per s") == 1
    assert list(report.to_dataframe().index) == ["state"]
    assert report.to_dataframe("operations").loc[("state", "write"), "count"] == 1
    assert drawn(report.plot()) > 1000
    with profile() as nothing:
        pass
    assert "<table>" not in nothing._repr_html_()
    assert len(nothing.to_dataframe()) == 0


def test_without_matplotlib_or_pandas_the_error_names_the_extra(result, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for show in (result.to_dataframe, kit.stats().to_dataframe, a_sweep(result, 1).to_dataframe):
        with pytest.raises(MissingDependencyError, match=r"backtest-kit-mongo\[pandas\]"):
            show()
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for show in (result.plot, kit.stats().plot, a_sweep(result, 1).plot):
        with pytest.raises(MissingDependencyError, match=r"backtest-kit-mongo\[plot\]"):
            show()
    assert "<table>" in result._repr_html_()


def test_nothing_that_draws_is_loaded_before_it_is_asked_for():
    code = "import sys, backtest_kit_mongo as kit, backtest_kit_mongo.runner as r; kit.stats(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"matplotlib", "pandas", "plotly", "IPython"} & set(loaded)
