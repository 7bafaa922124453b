"""The options of runs: one struct, the same names as keyword arguments, one check."""

import math
from typing import get_type_hints

import msgspec
import pytest
from hand_market import MINUTE, START, flat, memory  # noqa: F401 - memory is a fixture

from backtest_kit_mongo import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import Backtest, Live, RunOptions, add_strategy, import_candles, run_backtest
from backtest_kit_mongo.runner.engine.options import RunKeywords

pytestmark = pytest.mark.once


def test_keyword_arguments_have_the_names_and_types_of_the_fields():
    assert get_type_hints(RunKeywords) == get_type_hints(RunOptions)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"fee_percent": "1"}, InvalidTypeError, "fee_percent must be a number, got str"),
        ({"fee_percent": 100}, InvalidValueError, "fee_percent is 100.0; it must be a finite number from 0 to below 100"),
        ({"stake_usd": math.inf}, InvalidValueError, "stake_usd is inf; it must be a finite number from 0"),
        ({"slippage_percent": math.nan}, InvalidValueError, "slippage_percent is nan"),
        ({"slippage_percent": True}, InvalidTypeError, "slippage_percent must be a number, got bool"),
        ({"on_error": "ignore"}, InvalidValueError, "on_error is 'ignore'; it must be 'stop' or 'skip'"),
        ({"exchange_name": ""}, InvalidValueError, "exchange_name"),
        ({"frame_name": 5}, InvalidTypeError, "frame_name"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_when_they_are_made_and_when_they_are_changed(options, error, text):
    for make in (lambda: RunOptions(**options), lambda: RunOptions().replaced(**options)):
        with pytest.raises(error, match=text):
            make()


def test_an_option_that_does_not_exist():
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    for call in (
        lambda: run_backtest("BTCUSDT", fee=1),
        lambda: Backtest.run("BTCUSDT", fee=1),
        lambda: Live.run("BTCUSDT", exchange_name="binance", fee=1, fetch=lambda *_, **__: None),
    ):
        with pytest.raises(TypeError, match="fee"):
            call()


def test_a_keyword_argument_wins_over_the_options():
    add_strategy("hand", interval="5m", get_signal=lambda symbol, when: None)
    import_candles(flat(60), "BTCUSDT")
    options = RunOptions(frame_name="first", start_ms=START + 10 * MINUTE, end_ms=START + 20 * MINUTE)
    result = run_backtest("BTCUSDT", options=options, frame_name="second", end_ms=START + 30 * MINUTE)
    assert (result.frame_name, result.start_ms, result.end_ms) == ("second", options.start_ms, START + 30 * MINUTE)
    assert msgspec.structs.asdict(options)["frame_name"] == "first"
