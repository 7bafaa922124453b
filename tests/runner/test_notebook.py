"""A notebook: cells in IPython, with a running event loop as in Jupyter, on real servers."""

import asyncio
import sys
import warnings

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

import backtest_kit_mongo as kit
from backtest_kit_mongo.runner import clear_strategies

pytestmark = pytest.mark.once

SETUP = """
from backtest_kit_mongo import profile, setup, stats
from backtest_kit_mongo.runner import *
setup(SETTINGS, mode="backtest", CC_DUMP_DIR=FOLDER)
import_candles(synthetic_market(seed=1, minutes=2 * 1440, start_ms=1_677_628_800_000), "MADEUP")
"""
CANDLES = """read_candles("MADEUP", "1h", "2023-03-01", "2023-03-02", exchange="binance")"""
STRATEGY = """
@add_strategy("mine", interval="15m")
async def get_signal(symbol, when):
    await asyncio.sleep(0)
    closes = get_candles(symbol, "15m", 4, as_array=True)["close"]
    if len(closes) < 4:
        return None
    price, side = get_average_price(symbol), 1 if closes[-1] > closes.mean() else -1
    return {
        "position": "long" if side == 1 else "short",
        "priceTakeProfit": price * (1 + side * 0.01),
        "priceStopLoss": price * (1 - side * 0.01),
        "minuteEstimatedTime": LIFETIME,
    }
"""
RUN = """
with profile() as report:
    result = Backtest.run("MADEUP")
result
"""


class Notebook:
    """Runs cells and returns what is shown: the value of the last line in each form, text of streams, and log messages."""

    def __init__(self, folder):
        config = Config()
        config.HistoryManager.enabled = False
        self.shell = InteractiveShell(config=config, ipython_dir=str(folder / "ipython"))
        self.shell.user_ns["FOLDER"] = folder / "dump"

    async def run(self, source):
        outcome = await self.shell.run_cell_async(source, store_history=True, transformed_cell=self.shell.transform_cell(source))
        outcome.raise_error()
        return self.shell.display_formatter.format(outcome.result)[0]


@pytest.fixture
def notebook(settings, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])  # IPython puts its own there
    clear_strategies()
    book = Notebook(tmp_path)
    book.shell.user_ns["SETTINGS"] = settings
    yield book
    clear_strategies()
    book.shell.restore_sys_module_state()


def test_cells_are_edited_and_run_again(notebook):
    async def cells():
        await notebook.run("import asyncio\n" + SETUP)
        assert "<table" in (await notebook.run(CANDLES))["text/html"]
        shown = []
        for lifetime in (240, 60, 60):  # edited once, then run again as it is
            await notebook.run(STRATEGY.replace("LIFETIME", str(lifetime)))
            shown.append((await notebook.run(RUN))["text/html"])
        assert "mine on MADEUP, binance: 2023-03-01 00:00 to 2023-03-03 00:00 UTC (2d)" in shown[0]
        assert shown[0] != shown[1] == shown[2]
        assert (await notebook.run("result.plot()"))["image/png"].startswith(b"\x89PNG")
        assert "time expired" in (await notebook.run("result.to_dataframe().assign(by='time expired')"))["text/html"]
        for counters in ("report", "stats()", "result.stats"):
            assert ">candle</td>" in (await notebook.run(counters))["text/html"]
        with pytest.raises(kit.InvalidValueError, match="call clear_strategies"):
            await notebook.run("exec('add_strategy(\\'mine\\', get_signal=get_signal)', {**globals(), '__name__': 'helpers'})")
        assert await asyncio.sleep(0, "alive") == "alive"  # the loop of the notebook still runs

    with capture_output(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(cells())
    notes = [str(warning.message) for warning in warned if issubclass(warning.category, UserWarning)]
    assert len(notes) == 1
    assert "strategy 'mine' at " in notes[0]
    assert " replaces the one registered at " in notes[0]
