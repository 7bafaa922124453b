"""Profit by cost basis: cases computed by hand, those of backtest-kit's own tests, and a plain account of money and coins."""

from __future__ import annotations

import hypothesis
import pytest
from account import Account
from hypothesis import strategies as st

from backtest_kit_mongo.runner.engine.cost_basis import Costs, Entry, PartialClose, average_price, legs_of, profit_of_legs

pytestmark = pytest.mark.once

FREE = Costs(fee_percent=0.0, slippage_percent=0.0)
USUAL = Costs()  # 0.1 percent of each, as in those tests


def entries(*prices, cost=100.0):
    return [Entry(price, cost, 0) for price in prices]


def closed(*partials):
    return [PartialClose(percent, price, basis, count, 0, True) for percent, price, basis, count in partials]


def test_two_entries_of_one_cost_average_by_coins():
    # 100 USD at 100 are 1 coin, 100 USD at 80 are 1.25 coins: 2.25 coins for 200 USD.
    assert average_price(entries(100.0, 80.0), []) == pytest.approx(200 / 2.25)


def test_an_entry_after_a_partial_close_weighs_what_was_left():
    # 30 % of 1 coin were sold: 0.7 coins for 70 USD are left; 1.25 coins for 100 USD come on top.
    assert average_price(entries(100.0, 80.0), closed((30, 120, 100, 1))) == pytest.approx(170 / 1.95)


def test_one_entry_keeps_its_price_to_the_last_digit():
    assert average_price(entries(0.1 + 0.2, cost=33.3), []) == 0.1 + 0.2
    assert average_price(entries(0.1 + 0.2, cost=33.3), closed((30, 1.0, 33.3, 1), (50, 2.0, 33.3 * 0.7, 1))) == 0.1 + 0.2


def test_a_profit_by_hand():
    # Half of 1 coin sold at 120 (+10), then 1.25 coins bought at 80. Left: 50 + 100 USD for 1.75 coins, worth 90 each (+7.5).
    profit = profit_of_legs("long", entries(100.0, 80.0), closed((50, 120, 100, 1)), 90.0, FREE)
    assert profit == pytest.approx((10 + 7.5) / 200 * 100)


def test_a_short_by_hand():
    # 1 coin sold short at 100, 40 % bought back at 90 (+4), 1 coin more at 110 for 110 USD; 1.6 coins bought back at 95.
    profit = profit_of_legs("short", [Entry(100.0, 100.0, 0), Entry(110.0, 110.0, 0)], closed((40, 90, 100, 1)), 95.0, FREE)
    assert profit == pytest.approx((4 + (60 + 110 - 1.6 * 95)) / 210 * 100)


@pytest.mark.parametrize(
    ("prices", "partials", "price", "percent"),
    [
        ((100,), (), 110, 9.570439560),
        ((100, 80), (), 100, 12.062949550),
        ((100, 80), ((50, 120, 100, 1),), 90, 8.324184565),
        ((100, 80), ((50, 110, 200, 2),), 120, 28.887391983),
        ((100, 80), ((30, 75, 200, 2),), 100, 3.650728334),
        ((100, 80), ((30, 120, 100, 1),), 105, 19.914356019),
        ((100, 60), ((30, 80, 100, 1),), 90, 18.044973526),
        ((100, 80, 70), ((25, 115, 100, 1), (25, 112, 175, 2)), 105, 30.258272478),
        ((100, 85, 75), ((30, 110, 200, 2), (20, 88, 240, 3)), 95, 12.636520085),
    ],
)
def test_the_profit_is_that_of_backtest_kit(prices, partials, price, percent):
    """Cases and results of its test of toProfitLossDto."""
    assert profit_of_legs("long", entries(*prices), closed(*partials), price, USUAL) == pytest.approx(percent, abs=1e-8)


PRICES = st.floats(min_value=1e-6, max_value=1e6)
STEPS = st.lists(
    st.one_of(st.tuples(st.just("enter"), PRICES, st.floats(1.0, 1e5)), st.tuples(st.just("leave"), PRICES, st.floats(0.1, 99.0))),
    max_size=12,
)


@hypothesis.given(
    side=st.sampled_from(("long", "short")),
    first=st.tuples(PRICES, st.floats(1.0, 1e5)),
    steps=STEPS,
    last=PRICES,
    costs=st.builds(Costs, fee_percent=st.floats(0, 1), slippage_percent=st.floats(0, 1)),
)
def test_any_sequence_gives_what_an_account_of_money_and_coins_gives(side, first, steps, last, costs):
    account = Account(side, costs)
    account.enter(*first)
    bought, sold = [Entry(*first, 0)], []
    for what, price, size in steps:
        if what == "enter":
            account.enter(price, size)
            bought.append(Entry(price, size, 0))
        else:
            *_, left = legs_of(bought, sold)
            sold.append(PartialClose(size, price, left.cost, len(bought), 0, True))
            account.leave(price, size)
    *_, left = legs_of(bought, sold)
    assert left.cost == pytest.approx(account.basis, rel=1e-6, abs=1e-9 * account.invested)
    account.leave(last, 100.0)
    assert profit_of_legs(side, bought, sold, last, costs) == pytest.approx(account.profit / account.invested * 100, rel=1e-6, abs=1e-6)
