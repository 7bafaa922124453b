"""Registering a name again: code of ``__main__`` (a notebook, a script) replaces what it registered itself, other code may not."""

import warnings

import pytest
from hand_market import MINUTE, clear_registered, flat, memory  # noqa: F401 - memory is a fixture

from backtest_kit_mongo import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner import (
    add_strategy,
    find_broker,
    find_exchange,
    find_frame,
    import_candles,
    list_brokers,
    list_exchanges,
    list_frames,
    list_risks,
    list_strategies,
    load_strategy_file,
    run_backtest,
)
from backtest_kit_mongo.runner.strategy import find_strategy

pytestmark = pytest.mark.once

CELL = """
from backtest_kit_mongo import runner

@runner.add_strategy("s", "1m")
def get_signal(symbol, when):
    return SIGNAL

@runner.add_exchange("e")
def candles(symbol, interval, since, limit):
    return VERSION

@runner.add_risk("r", max_positions=VERSION)
def allow(request):
    return VERSION

class Broker:
    version = VERSION
    def submit(self, order):
        return None

runner.add_broker("b", Broker())
runner.add_frame("f", 60_000 * VERSION, "2023-03-02")
"""


def run_cell(number, name="__main__", **values):
    """Run the cell as Jupyter does: each edited cell has a file name of its own, all share the names of __main__."""
    exec(compile(CELL, f"/tmp/ipykernel_1/{number}.py", "exec"), {"__name__": name, "SIGNAL": None, "VERSION": number, **values})


@pytest.fixture(autouse=True)
def warned():
    """The warnings of a test, which a notebook shows instead of raising them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def test_a_cell_that_is_run_again_replaces_what_it_registered_with_one_note_per_name(warned):
    add_strategy("another", get_signal=lambda symbol, when: None)
    run_cell(1)
    assert warned == []
    run_cell(2)
    notes = [str(warning.message) for warning in warned]
    assert [note.split(" at ")[0] for note in notes] == ["strategy 's'", "exchange 'e'", "risk 'r'", "broker 'b'", "frame 'f'"]
    assert "ipykernel_1/2.py:4 replaces the one registered at /tmp/ipykernel_1/1.py:4; this is said once" in notes[0]
    assert (warned[0].category, warned[0].filename, warned[0].lineno) == (UserWarning, "/tmp/ipykernel_1/2.py", 4)
    run_cell(3)
    assert len(warned) == len(notes)
    assert [strategy.name for strategy in list_strategies()] == ["another", "s"]
    assert [len(items()) for items in (list_exchanges, list_risks, list_brokers, list_frames)] == [1, 1, 1, 1]
    assert find_exchange("e").get_candles("BTCUSDT", "1m", 0, 1) == 3
    assert (list_risks()[0].max_positions, list_risks()[0].validate(None)) == (3, 3)
    assert find_broker("b").version == 3
    assert find_frame("f").start_ms == 3 * MINUTE


@pytest.mark.parametrize(("first", "second"), [("__main__", "helpers"), ("helpers", "__main__"), ("helpers", "helpers")])
def test_from_another_file_it_stays_an_error_that_says_how_to_start_again(first, second, warned):
    run_cell(1, first)
    with pytest.raises(InvalidValueError, match=r"1\.py:4\n.*call clear_strategies\(\) first") as caught:
        run_cell(2, second)
    assert "strategy 's' at /tmp/ipykernel_1/2.py:4 is already registered at /tmp/ipykernel_1/1.py:4" in str(caught.value)
    assert find_strategy("s").file == "/tmp/ipykernel_1/1.py"
    assert warned == []


def test_a_strategy_file_keeps_its_rules(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from backtest_kit_mongo.runner import add_strategy\nadd_strategy('s', get_signal=lambda symbol, when: None)\n")
    load_strategy_file(file)
    load_strategy_file(file)
    with pytest.raises(InvalidValueError, match=r"already registered at .*mine\.py:2"):
        run_cell(1)
    assert find_strategy("s").file == str(file)


def test_a_run_that_has_begun_keeps_what_it_began_with():
    """The strategy replaces itself in the middle of its run, as a cell does beside a run in the background."""
    import_candles(flat(60), "BTCUSDT")
    calls = []

    def replacing(symbol, when):
        calls.append(when)
        run_cell(len(calls) + 1)

    exec(
        compile("from backtest_kit_mongo.runner import add_strategy\nadd_strategy('s', '1m', get_signal=f)", "<cell>", "exec"),
        {"__name__": "__main__", "f": replacing},
    )
    result = run_backtest("BTCUSDT", "s", exchange_name="binance")
    assert result.signals_asked == len(calls) == 55
    assert run_backtest("BTCUSDT", "s", exchange_name="binance").signals_asked == 55
    assert len(calls) == 55  # the second run asked the last one that was registered


def test_a_risk_with_a_bad_function_leaves_the_one_before():
    """Otherwise the next run would trade without limits."""
    run_cell(1)
    bad = "from backtest_kit_mongo import runner\n@runner.add_risk('{}')\ndef allow(): pass"
    for name in ("r", "new"):
        with pytest.raises(InvalidTypeError, match="must take"):
            exec(compile(bad.format(name), "/tmp/ipykernel_1/2.py", "exec"), {"__name__": "__main__"})
    (risk,) = list_risks()
    assert (risk.name, risk.max_positions, risk.validate is None) == ("r", 1, False)
