"""The analysis of a run: each figure as its definition says, against plain sums; and no figure where there is none to say."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hand_market import MINUTE, START, flat, memory  # noqa: F401 - memory is a fixture
from hypothesis import given
from hypothesis import strategies as st
from paths import EXAMPLE

from backtest_kit_mongo import InvalidValueError
from backtest_kit_mongo.runner import (
    StrategyError,
    Trade,
    add_strategy,
    import_candles,
    keep_run,
    load_run,
    load_strategy_file,
    run_backtest,
    run_backtests,
    synthetic_market,
)
from backtest_kit_mongo.runner.engine.cost_basis import Costs, pnl_percentage
from backtest_kit_mongo.runner.engine.result import BacktestResult, add_up
from backtest_kit_mongo.runner.loading.parameters import given_parameters
from backtest_kit_mongo.runner.report.analysis import analysis_of
from backtest_kit_mongo.runner.report.annualised import annualised, capital_of, daily_equity
from backtest_kit_mongo.runner.report.breakdowns import by_month, by_side, by_size
from backtest_kit_mongo.runner.report.drawdowns import deepest_drawdowns
from backtest_kit_mongo.runner.report.facts import held_text, year_text

pytestmark = pytest.mark.once

HOUR, DAY = 60 * MINUTE, 1440 * MINUTE
PROFITS = st.floats(-50, 50).map(lambda profit: round(profit, 3))


def closed(profit, at, *, minutes=10, side="long"):
    """Return a trade that closes ``at`` ms after START."""
    return Trade(
        id=f"trade-{at}",
        symbol="BTCUSDT",
        strategy_name="hand",
        position=side,
        price_open=100.0,
        price_close=100.0 + profit,
        open_timestamp=START + at - minutes * MINUTE,
        close_timestamp=START + at,
        close_reason="take_profit",
        pnl_percentage=profit,
    )


def result(trades, days, *, start=START, **fields):
    """Return a result of these trades over a window of ``days``."""
    return BacktestResult(
        symbol="BTCUSDT", strategy_name="hand", exchange_name="binance", frame_name="backtest", start_ms=start, end_ms=start + days * DAY,
        trades=tuple(trades), open_trade=None, totals=add_up(trades), minutes=days * 1440, signals_asked=0, wall_seconds=0.0, stats={},
        **fields,
    )  # fmt: skip


# ---------------------------------------------------------------- figures for a year


def plainly(trades, days, stakes=1):
    """Return CAGR, Sharpe and Sortino as the docstring of Annualised defines them, day by day."""
    equity = [100.0 * stakes]
    for day in range(1, days + 1):
        equity.append(100.0 * stakes + sum(trade.pnl_percentage for trade in trades if trade.close_timestamp <= START + day * DAY))
    returns = [after / before - 1 for before, after in pairwise(equity)]
    mean, fallen = statistics.fmean(returns), math.sqrt(sum(min(one, 0) ** 2 for one in returns) / days)
    cagr = ((equity[-1] / equity[0]) ** (365 / days) - 1) * 100
    return cagr, mean / statistics.stdev(returns) * 365**0.5, mean / fallen * 365**0.5


def test_a_year_by_hand():
    """Two days of 30 have a return: +10 % on the first, and -11 of 110 on the second."""
    year = annualised([result([], 30)], [closed(10.0, HOUR), closed(-11.0, DAY + HOUR)])
    assert (year.days, year.stakes, year.missing) == (30, 1, {})
    assert year.cagr_percentage == pytest.approx((0.99 ** (365 / 30) - 1) * 100)
    assert year.sharpe_ratio == pytest.approx(0.0, abs=1e-9)  # the returns are 0.1 and -0.1
    year = annualised([result([], 30)], [closed(20.0, HOUR), closed(-12.0, DAY + HOUR)])  # 0.2 and -0.1
    mean = 0.1 / 30
    assert year.sharpe_ratio == pytest.approx(mean / math.sqrt((0.2**2 + 0.1**2 - 30 * mean**2) / 29) * math.sqrt(365))
    assert year.sortino_ratio == pytest.approx(mean / (0.1 / math.sqrt(30)) * math.sqrt(365))


@given(st.lists(st.tuples(st.integers(1, 90 * 24), st.floats(-3, 3)), min_size=2, max_size=25), st.integers(30, 90))
def test_a_year_is_what_the_plain_sums_say(rows, days):
    rows = [(min(hour, days * 24), round(profit, 3)) for hour, profit in sorted(rows)]
    trades = [closed(profit, hour * HOUR) for hour, profit in rows]
    year = annualised([result(trades, days)], trades)
    daily = np.diff(daily_equity(trades, START, START + days * DAY))
    if daily.min() < -1e-9:
        cagr, sharpe, sortino = plainly(trades, days)
        assert year.cagr_percentage == pytest.approx(cagr, rel=1e-9, abs=1e-9)
        assert year.sharpe_ratio == pytest.approx(sharpe, rel=1e-9, abs=1e-9)
        assert year.sortino_ratio == pytest.approx(sortino, rel=1e-9, abs=1e-9)


def test_a_year_is_what_other_libraries_say():
    """The figures of quantstats 0.0.86 and empyrical-reloaded 0.7.1 (365 periods) for the daily returns of these trades."""
    random = np.random.default_rng(5)
    profits = [float(random.normal(0.05, 1.5)) for _ in range(300)]
    hours = np.sort(random.choice(200 * 24, 300, replace=False)) + 1
    trades = [closed(profit, int(hour) * HOUR) for profit, hour in zip(profits, hours, strict=True)]
    year = annualised([result(trades, 200)], trades)
    expected = (-5.549076604598257, 0.03418954843421604, 0.05070027653178108)
    assert (year.cagr_percentage, year.sharpe_ratio, year.sortino_ratio) == pytest.approx(expected, rel=1e-9)


def test_a_trade_at_midnight_belongs_to_the_day_that_ends():
    trades = [closed(1.0, DAY), closed(2.0, DAY + MINUTE), closed(4.0, 3 * DAY)]
    assert daily_equity(trades, START, START + 3 * DAY).tolist() == [100, 101, 103, 107]
    # A part of a day at either end is a day.
    assert daily_equity(trades, START + 2 * HOUR, START + 2 * DAY + HOUR).tolist() == [100, 101, 103, 107]


@pytest.mark.parametrize(
    ("trades", "days", "missing"),
    [
        ([closed(1.0, HOUR)], 29, dict.fromkeys(("cagrPercentage", "sharpeRatio", "sortinoRatio"), "the window has 29 days; at least 30")),
        ([], 30, dict.fromkeys(("cagrPercentage", "sharpeRatio", "sortinoRatio"), "no trade was closed")),
        ([closed(1.0, HOUR)], 30, {"sortinoRatio": "no day ended with a loss"}),
        ([closed(0.0, HOUR)], 30, {"sharpeRatio": "all days have the same return", "sortinoRatio": "no day ended with a loss"}),
        (
            [closed(-60.0, HOUR), closed(-60.0, DAY), closed(90.0, 2 * DAY)],
            30,
            {"sharpeRatio": "the stake was lost", "sortinoRatio": "the"},
        ),
        ([closed(-101.0, HOUR)], 30, {"cagrPercentage": "more than the stake", "sharpeRatio": "the stake", "sortinoRatio": "the stake"}),
        ([closed(1e30, HOUR)], 30, {"cagrPercentage": "too large", "sortinoRatio": "no day"}),
    ],
)
def test_a_figure_that_does_not_exist_has_a_reason(trades, days, missing):
    run = result(trades, days)
    year = annualised([run], trades)
    assert set(year.missing) == set(missing)
    for name, reason in missing.items():
        assert reason in year.missing[name]
    figures = {"cagrPercentage": year.cagr_percentage, "sharpeRatio": year.sharpe_ratio, "sortinoRatio": year.sortino_ratio}
    assert {name for name, value in figures.items() if value is None} == set(missing)
    assert all(value is None or math.isfinite(value) for value in figures.values())
    assert "none: " in year_text(analysis_of([run], trades)) or len(missing) < 3 or len(set(year.missing.values())) > 1


def test_everything_lost_is_a_growth_of_minus_100_percent():
    year = annualised([result([], 30)], [closed(-100.0, HOUR)])
    assert year.cagr_percentage == -100.0
    assert set(year.missing) == {"sharpeRatio", "sortinoRatio"}


def test_runs_together_need_as_many_stakes_as_windows_overlap():
    march, april = result([], 30), result([], 30, start=START + 30 * DAY)
    both = result([], 60)
    assert [capital_of(runs) for runs in ([], [march], [march, april], [march, march], [march, april, both])] == [0, 1, 1, 2, 2]
    trades = [closed(6.0, HOUR), closed(-2.0, 31 * DAY)]
    year = annualised([march, march, april, april], trades)
    assert (year.stakes, year.days) == (2, 60)
    assert (year.cagr_percentage, year.sharpe_ratio, year.sortino_ratio) == pytest.approx(plainly(trades, 60, stakes=2))
    assert annualised([], []).missing["sharpeRatio"] == "there are no runs"


# ---------------------------------------------------------------- drawdowns


def test_drawdowns_by_hand():
    """The sum goes 2, -1, 1, 3, 3, 2, 4, 1."""
    trades = [closed(profit, (number + 1) * HOUR) for number, profit in enumerate([2.0, -3.0, 2.0, 2.0, 0.0, -1.0, 2.0, -3.0])]

    def shown(falls):
        times = [(fall.start_timestamp, fall.bottom_timestamp, fall.recovery_timestamp) for fall in falls]
        return [
            (fall.depth_percentage, [None if ms is None else (ms - START) // HOUR for ms in stamps], fall.duration_ms // HOUR)
            for fall, stamps in zip(falls, times, strict=True)
        ]

    falls = deepest_drawdowns(trades, START, START + DAY)
    # Deepest first; the second peak is left at its last close (hour 5); the last one lasts to the end of the window.
    assert shown(falls) == [(3.0, [1, 2, 4], 3), (3.0, [7, 8, None], 17), (1.0, [5, 6, 7], 2)]
    assert [fall.equity_percentage for fall in falls] == pytest.approx([3 / 102 * 100, 3 / 104 * 100, 1 / 103 * 100])
    assert deepest_drawdowns(trades, START, START + DAY, most=1) == falls[:1]
    assert shown(deepest_drawdowns([closed(-1.0, HOUR)], START, START + DAY)) == [(1.0, [0, 1, None], 24)]
    assert deepest_drawdowns([], START, START + DAY) == deepest_drawdowns([closed(1.0, HOUR)], START, START + DAY) == ()
    rounded = [closed(profit, (number + 1) * HOUR) for number, profit in enumerate([0.3, -0.1, -0.2, 0.2, 0.1])]
    (fall,) = deepest_drawdowns(rounded, START, START + DAY)  # the sum is back, but for its last bits
    assert fall.recovery_timestamp == START + 5 * HOUR


@given(st.lists(PROFITS, max_size=60))
def test_the_deepest_drawdown_is_that_of_the_totals(profits):
    trades = [closed(profit, (number + 1) * HOUR) for number, profit in enumerate(profits)]
    falls = deepest_drawdowns(trades, START, START + 60 * DAY, most=1000)
    assert max((fall.depth_percentage for fall in falls), default=0.0) == pytest.approx(add_up(trades).max_drawdown_percentage, abs=1e-8)
    for fall in falls:
        assert fall.start_timestamp < fall.bottom_timestamp
        assert fall.recovery_timestamp is None or fall.bottom_timestamp < fall.recovery_timestamp <= fall.start_timestamp + fall.duration_ms
    assert sum(fall.recovery_timestamp is None for fall in falls) <= 1


# ---------------------------------------------------------------- months, sides, sizes


def test_months_of_the_window_and_of_every_trade():
    trades = [closed(1.0, HOUR), closed(0.5, 30 * DAY), closed(2.0, 31 * DAY), closed(-1.0, 40 * DAY)]
    months = by_month(trades, START, START + 100 * DAY)  # March 1 to June 9; a trade at 00:00 on April 1 is one of April
    assert [(one.month, one.trades, one.pnl_percentage) for one in months] == [
        ("2023-03", 2, 1.5),
        ("2023-04", 2, 1.0),
        ("2023-05", 0, 0),
        ("2023-06", 0, 0),
    ]
    assert [one.month for one in by_month([closed(1.0, 31 * DAY)], START, START + 31 * DAY)] == ["2023-03", "2023-04"]
    assert [one.month for one in by_month([], START, START)] == ["2023-03"]
    assert [one.month for one in by_month([], START, START + 400 * DAY)][-4:] == ["2024-01", "2024-02", "2024-03", "2024-04"]


def test_long_and_short_apart():
    trades = [closed(2.0, HOUR), closed(-1.0, 2 * HOUR, minutes=20), closed(-4.0, 3 * HOUR, side="short"), closed(1.0, 4 * HOUR)]
    long, short = by_side(trades)
    assert (long.side, long.trades, long.wins, long.win_rate) == ("long", 3, 2, pytest.approx(200 / 3))
    assert (long.pnl_percentage, long.average_pnl_percentage, long.profit_factor) == pytest.approx((2.0, 2 / 3, 3.0))
    assert (long.best_pnl_percentage, long.worst_pnl_percentage, long.average_minutes_held) == (2.0, -1.0, pytest.approx(40 / 3))
    assert (short.trades, short.win_rate, short.pnl_percentage, short.profit_factor) == (1, 0.0, -4.0, 0.0)
    missing = by_side(trades[:2])[1]
    assert (missing.trades, missing.pnl_percentage) == (0, 0.0)
    assert {missing.win_rate, missing.average_pnl_percentage, missing.profit_factor, missing.best_pnl_percentage} == {None}
    assert {missing.worst_pnl_percentage, missing.average_minutes_held} == {None}


@given(st.lists(st.one_of(PROFITS, st.floats(-1e6, 1e6), st.sampled_from([0.0, 1.1, 0.3, -0.7, 1e-12])), min_size=1, max_size=80))
def test_every_trade_is_in_the_class_of_its_profit(profits):
    classes = by_size([closed(profit, HOUR) for profit in profits])
    assert sum(one.trades for one in classes) == len(profits)
    assert len(classes) <= 26
    for one, after in pairwise(classes):
        assert one.up_to_percentage == after.above_percentage
    for one in classes:
        low = -math.inf if one.above_percentage is None else one.above_percentage
        high = math.inf if one.up_to_percentage is None else one.up_to_percentage
        assert low < high
        assert not low < 0 < high or math.inf in (-low, high)
        slack = 1e-7 * (1 if math.isinf(high - low) else high - low)  # a profit within rounding of a limit may be on either side
        inside = sum(low + slack < profit <= high - slack for profit in profits)
        around = sum(low - slack < profit <= high + slack for profit in profits)
        assert inside <= one.trades <= around


def test_limits_are_round_and_extremes_do_not_widen_them():
    assert by_size([]) == ()
    rows = by_size([closed(profit, HOUR) for profit in [*np.linspace(-1, 1, 201), 500.0, -80.0]])
    assert (rows[0].above_percentage, rows[0].trades) == (None, 1)
    assert (rows[-1].up_to_percentage, rows[-1].trades) == (None, 1)
    assert {round(one.up_to_percentage - one.above_percentage, 9) for one in rows[1:-1]} == {0.1}
    assert next(one for one in rows if one.up_to_percentage == 0.0).trades == 10  # -0.09 to 0: a profit of 0 is no win
    assert [(one.above_percentage, one.up_to_percentage, one.trades) for one in by_size([closed(0.0, HOUR)])] == [(-0.5, 0.0, 1)]


# ---------------------------------------------------------------- buy and hold


def held_plainly(candles, costs):
    price, highest, deepest = candles[0]["open"], 0.0, 0.0
    for candle in candles:
        profit = pnl_percentage("long", price, candle["close"], costs)
        highest = max(highest, profit)
        deepest = max(deepest, highest - profit)
    return price, candles[-1]["close"], profit, deepest


def held_of(run):
    return msgspec.structs.astuple(run.buy_and_hold)


def test_buy_and_hold_of_the_window():
    market = synthetic_market(3, 3_500, START)
    import_candles(market, "BTCUSDT")
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    whole = run_backtest("BTCUSDT", fee_percent=0.3, slippage_percent=0.05, stake_usd=50.0)
    costs = Costs(0.3, 0.05, 50.0)
    assert held_of(whole) == pytest.approx(held_plainly(market, costs), rel=1e-12)
    assert (whole.costs, whole.parameters, whole.window_end_ms) == (costs, {}, START + 3_500 * MINUTE)
    part = run_backtest("BTCUSDT", start_ms=START + 100 * MINUTE, end_ms=START + 2_222 * MINUTE)
    assert held_of(part) == pytest.approx(held_plainly(market[100:2_222], Costs()), rel=1e-12)
    assert msgspec.structs.replace(load_run(keep_run([part]).id).results[0], stats=part.stats) == part


def test_buy_and_hold_ends_where_the_run_did():
    market = synthetic_market(3, 2_500, START)
    import_candles(market, "BTCUSDT")
    import_candles(market[:1_500], "ETHUSDT")
    calls = []

    def fails(symbol, when):
        calls.append(when)
        if len(calls) > 300:
            raise ValueError("enough")

    add_strategy("fails", interval="5m", get_signal=fails)
    add_strategy("waits", interval="5m", get_signal=lambda symbol, when: None)
    results, failed = run_backtests(["BTCUSDT"], ["fails", "waits"])
    (error,) = failed
    assert isinstance(error, StrategyError)
    (ended,) = error.results
    assert not ended.complete
    assert 1_400 < ended.minutes < 1_600
    assert ended.window_end_ms == START + 2_500 * MINUTE
    assert held_of(ended) == pytest.approx(held_plainly(market[: ended.minutes], Costs()), rel=1e-12)
    assert held_of(results[0]) == pytest.approx(held_plainly(market, Costs()), rel=1e-12)
    with pytest.raises(InvalidValueError):
        run_backtest("ETHUSDT", "waits", end_ms=START + 2_500 * MINUTE)


def test_filled_holes_change_nothing_for_buy_and_hold():
    market = synthetic_market(3, 400, START)
    import_candles(np.delete(market, np.s_[100:130]), "BTCUSDT")
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    run = run_backtest("BTCUSDT", start_ms=START, end_ms=START + 400 * MINUTE, holes="fill")
    assert run.filled_candles == 30
    assert held_of(run) == pytest.approx(held_plainly(np.delete(market, np.s_[100:130]), Costs()), rel=1e-12)


def test_a_flat_market_costs_what_the_costs_are():
    import_candles(flat(100), "BTCUSDT")
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    run = run_backtest("BTCUSDT", fee_percent=0.0, slippage_percent=0.0)
    assert held_of(run) == (100.0, 100.0, 0.0, 0.0)
    run = run_backtest("BTCUSDT", fee_percent=0.1, slippage_percent=0.0)
    assert run.buy_and_hold.pnl_percentage == pytest.approx(-0.2)
    assert run.buy_and_hold.max_drawdown_percentage == pytest.approx(0.2)
    assert held_text(analysis_of([run], ())) == "-0.200 % of the stake, after the same costs, max drawdown 0.200 %"
    assert held_text(analysis_of([result([], 1)], ())) == "-"


def test_runs_together_hold_one_stake_each():
    import_candles(flat(100), "BTCUSDT")
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    run = run_backtest("BTCUSDT")
    held = analysis_of([run, run], ()).buy_and_hold
    assert held.pnl_percentage == 2 * run.buy_and_hold.pnl_percentage
    assert (held.max_drawdown_percentage, held.cagr_percentage) == (None, None)  # of one day there is no figure for a year
    assert analysis_of([run, result([], 1)], ()).buy_and_hold is None
    month = msgspec.structs.replace(run, end_ms=START + 73 * DAY)
    year = analysis_of([month, month], ()).buy_and_hold.cagr_percentage
    assert year == pytest.approx(((1 + run.buy_and_hold.pnl_percentage / 100) ** 5 - 1) * 100)


def test_a_result_knows_the_parameters_in_effect():
    import_candles(synthetic_market(3, 400, START), "BTCUSDT")
    with given_parameters({"FAST": "7"}) as declared:
        load_strategy_file(EXAMPLE)
        run = run_backtest("BTCUSDT", "sma_cross")
    assert run.parameters == {**declared, "FAST": 7}
    assert len(declared) > 1


def test_positions_with_several_entries_count_by_their_stakes():
    """A trade of 2 percent on three stakes is one of 6 percent on one, in every figure."""
    days = (5, 12, 41, 60, 75)
    profits = (2.0, -1.5, 0.75, -3.0, 4.0)
    heavy = [msgspec.structs.replace(closed(profit, day * DAY), stakes=3.0) for profit, day in zip(profits, days, strict=True)]
    plain = [closed(3 * profit, day * DAY) for profit, day in zip(profits, days, strict=True)]
    figures = []
    for trades in (heavy, plain):
        analysis, totals = msgspec.to_builtins(analysis_of([result(trades, 90)], trades)), msgspec.to_builtins(add_up(trades))
        del analysis["annualised"], analysis["drawdowns"]  # in percent of the capital, which is three stakes
        figures.append([analysis, totals, daily_equity(trades, START, START + 90 * DAY).tolist()])
    assert figures[0] == figures[1]


def test_extreme_trades_of_both_kinds_are_no_one_class():
    """The first class has no lower limit, and would hold a loss and a small win."""
    profits = [*np.linspace(0.25, 0.35, 400), -3.0, 0.02]
    rows = by_size([closed(profit, HOUR) for profit in profits])
    assert (rows[0].above_percentage, rows[0].up_to_percentage, rows[0].trades) == (None, 0.0, 1)
    assert (rows[1].above_percentage, rows[1].trades) == (0.0, 1)
    assert sum(one.trades for one in rows) == len(profits)
    mirrored = by_size([closed(-profit, HOUR) for profit in profits])
    assert [(one.above_percentage, one.up_to_percentage) for one in mirrored[-2:]] == [(mirrored[-2].above_percentage, 0.0), (0.0, None)]


def test_windows_that_do_not_touch_have_no_figures_for_a_year():
    runs = [result([closed(1.0, DAY)], 40, start=START), result([closed(1.0, 1501 * DAY)], 40, start=START + 1500 * DAY)]
    year = annualised(runs, [*runs[0].trades, *runs[1].trades])
    assert (year.cagr_percentage, year.sharpe_ratio, year.sortino_ratio) == (None, None, None)
    assert "gap between the windows" in year.missing["cagrPercentage"]
    assert annualised([runs[0], result([], 40, start=START + 40 * DAY)], runs[0].trades).cagr_percentage is not None


def test_the_capital_is_what_the_largest_position_cost():
    """A loss of 25 percent on five stakes is a loss of 25 percent, and not more than everything."""
    trades = [msgspec.structs.replace(closed(-25.0, day * DAY), stakes=5.0) for day in (10, 40)]
    run = result(trades, 60)
    assert capital_of([run]) == 5.0
    assert daily_equity(trades, START, START + 60 * DAY, 5.0)[-1] == pytest.approx(250.0)
    year = annualised([run], trades)
    assert year.cagr_percentage == pytest.approx((0.5 ** (365 / 60) - 1) * 100)


def test_a_frame_of_trades_has_numbers():
    frame = result([closed(1.0, DAY)], 2).to_dataframe()
    assert {name: str(frame[name].dtype) for name in ("pnlPercentage", "stakes", "entries", "partials")} == {
        "pnlPercentage": "float64", "stakes": "float64", "entries": "int64", "partials": "int64",
    }  # fmt: skip
