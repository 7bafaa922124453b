"""What type checkers find in the code of users: mypy and pyright (strict) report every mistake, and nothing that is right."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from paths import ROOT

from backtest_kit_mongo.candles import CANDLE_DTYPE, GRIDS, INTERVAL_MS, CandleInterval, PlainInterval
from backtest_kit_mongo.config import SETTINGS
from backtest_kit_mongo.metrics import LAYERS, OPERATIONS, PERCENTILES, Metrics
from backtest_kit_mongo.observability.stats import DomainStats, OperationStats
from backtest_kit_mongo.runner import CandleDict, SignalDict
from backtest_kit_mongo.runner.engine.position import _KNOWN, _REQUIRED
from backtest_kit_mongo.setting_types import Settings

pytestmark = pytest.mark.once

FILES = [ROOT / "tests" / name for name in ("typing_examples.py", "typing_mistakes.py")]
MISTAKES = {
    (path.name, number) for path in FILES for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# wrong")
}
NEEDS_NODE = pytest.mark.skipif(shutil.which("node") is None, reason="pyright needs node")


def checked(*command, folder=ROOT):
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, timeout=600, cwd=folder)


def pyright(folder, files, **settings):
    """Return the lines that pyright (strict) reports: (file, line) -> messages."""
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT / "src")], **settings}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    run = checked("pyright", "--outputjson", "--project", str(folder), "--pythonpath", sys.executable, *map(str, files), folder=folder)
    reported = {}
    for error in json.loads(run.stdout)["generalDiagnostics"]:
        for line in range(error["range"]["start"]["line"], error["range"]["end"]["line"] + 1):
            reported.setdefault((Path(error["file"]).name, line + 1), []).append(error["message"])
    return reported


def test_there_are_mistakes():
    assert len(MISTAKES) > 50


@pytest.mark.slow
def test_mypy_reports_the_mistakes_alone():
    run = checked("mypy", "--no-error-summary", "--show-absolute-path", *map(str, FILES))
    reported = {
        (Path(file).name, int(line)): text for file, line, text in re.findall(r"^(.+?):(\d+): error: (.*)$", run.stdout, re.MULTILINE)
    }
    assert {place: text for place, text in reported.items() if place not in MISTAKES} == {}, run.stdout + run.stderr
    assert set(reported) == MISTAKES


@pytest.mark.slow
@NEEDS_NODE
def test_pyright_reports_the_mistakes_alone(tmp_path):
    reported = pyright(tmp_path, FILES)
    assert {line: texts for line, texts in reported.items() if line not in MISTAKES} == {}
    assert set(reported) == MISTAKES


USER = """
from datetime import datetime

import backtest_kit_mongo as kit
from backtest_kit_mongo import records, setup, stats, to_arrow, to_pandas, to_polars, write_trades
from backtest_kit_mongo.runner import BacktestResult, SignalDict, add_strategy, read_candles, run_backtest, trades_frame

setup(mode="backtest")
rows = records("signal")
print(rows[0]["symbol"], stats()["signal"]["reads"], kit.get_config().CC_MODE)
write_trades(rows, engine="mine")


@add_strategy("mine")
def get_signal(symbol: str, when: datetime) -> SignalDict | None:
    return None


result = run_backtest("BTCUSDT")
for trade in result.trades:
    print(trade.price_open)
print(read_candles("BTCUSDT", "1h", "2024-01-01", "2024-02-01", to="numpy")["close"])
setup(mode="bakctest")  # wrong
"""


@pytest.mark.slow
@NEEDS_NODE
def test_without_pandas_pyright_checks_the_rest(tmp_path):
    installed, alone = Path(sysconfig.get_path("purelib")), tmp_path / "alone" / "lib" / "python3.11" / "site-packages"
    alone.mkdir(parents=True)
    for name in ("bson", "msgspec", "numpy", "pymongo", "redis"):
        (alone / name).symlink_to(installed / name)
    file = tmp_path / "user.py"
    file.write_text(USER)
    settings = {"venvPath": str(tmp_path), "venv": "alone", "reportUnusedImport": False}
    assert set(pyright(tmp_path, [file], **settings)) == {("user.py", len(USER.splitlines()))}


def test_the_types_are_those_of_the_values():
    assert list(get_type_hints(Settings)) == list(SETTINGS)
    assert SignalDict.__required_keys__ == set(_REQUIRED)
    assert set(get_type_hints(SignalDict)) == set(_KNOWN)
    assert get_args(CandleInterval) == tuple(GRIDS)
    assert get_args(PlainInterval) == tuple(INTERVAL_MS)
    assert tuple(get_type_hints(CandleDict)) == CANDLE_DTYPE.names
    kinds = get_type_hints(DomainStats)
    assert set(kinds) == set(Metrics().snapshot()["signal"])
    layer, _ = get_args(kinds["hit_ratios"])
    operation, _ = get_args(kinds["operations"])
    assert (get_args(layer), get_args(operation)) == (LAYERS, OPERATIONS)
    assert tuple(get_type_hints(OperationStats)) == ("count", *(label for label, _ in PERCENTILES))
