"""Trades of several engines in one Storage."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import msgspec
import numpy as np
import pandas
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo import read_trades, write_trades

pytestmark = pytest.mark.once

NOON = datetime(2023, 3, 1, 12, tzinfo=UTC)
FRAME = pandas.DataFrame(
    {
        "PnL": [1.5, np.nan],
        "Size": np.array([1, 2]),
        "Exit": pandas.to_datetime([NOON, None], utc=True),
        "Duration": pandas.to_timedelta(["90min", None]),
        "Tag": pandas.array(["a", None], dtype="string"),
    }
)
ROWS = [
    {"PnL": 1.5, "Size": 1, "Exit": NOON, "Duration": "PT5400S", "Tag": "a"},
    {"PnL": None, "Size": 2, "Exit": None, "Duration": None, "Tag": None},
]


def without_ids(trades):
    shown = [{name: value for name, value in trade.items() if name not in ("id", "engine", "run")} for trade in trades]
    return [{**trade, "PnL": None} if trade.get("PnL") != trade.get("PnL") else trade for trade in shown]


def test_engines_and_runs_share_a_storage(store):
    """Names that would make equal ids if they were joined, and names of which one begins another."""
    names = [("a", ""), ("a", "b"), ("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c"), ("ab", "c"), ("a;", "b"), ("a", "b/ü")]
    kit.PersistStorageAdapter.write_storage_data([{"id": "a", "n": -1}, {"id": "a:", "n": -1}], True)
    for index, (engine, run) in enumerate(names):
        assert write_trades([{"n": index}, {"n": index + 100}], engine, run) == 2
    for index, (engine, run) in enumerate(names):
        trades = read_trades(engine, run)
        assert [trade["n"] for trade in trades] == [index, index + 100]
        assert {(trade["engine"], trade["run"]) for trade in trades} == {(engine, run)}
    of_all = [trade["n"] for trade in read_trades("a")]
    assert sorted(of_all[::2]) == [0, 1, 2, 7]
    assert of_all[1::2] == [n + 100 for n in of_all[::2]]  # each run in one piece
    assert len(kit.PersistStorageAdapter.read_storage_data(True)) == 2 * len(names) + 2
    assert read_trades("a", backtest=False) == read_trades("A") == read_trades("a", "c") == []


def test_a_frame_comes_back_as_rows(store):
    write_trades(FRAME, "engine")
    assert without_ids(read_trades("engine")) == ROWS
    write_trades(FRAME.set_index("Size"), "indexed", backtest=False)
    assert without_ids(read_trades("indexed", backtest=False)) == ROWS
    assert write_trades(FRAME[:0], "none") == 0
    assert read_trades("none") == []


def test_a_run_replaces_its_own_trades_and_never_mixes_them(store):
    write_trades([{"n": 1}, {"n": 2}], "engine", "run")
    write_trades(({"n": n} for n in range(10, 1510)), "engine", "run")  # more than a list of the contract returns
    assert [trade["n"] for trade in read_trades("engine", "run")] == list(range(10, 1510))
    with pytest.raises(kit.InvalidValueError, match=r"run 'run' of 'engine' has stored more than 2 trades before.*\n.*another name"):
        write_trades([{"n": 1}, {"n": 2}], "engine", "run")
    assert len(read_trades("engine", "run")) == 1500


@dataclasses.dataclass
class Trade:
    n: int


class Fill(msgspec.Struct):
    n: int


@pytest.fixture
def memory():
    """A registry of its own in memory."""
    registry = kit.Registry()
    registry.setup(stores={"storage": "memory"})
    yield registry
    registry.close()


def test_rows_are_dicts_dataclasses_or_structs(memory):
    write_trades([{"n": 1}, Trade(2), Fill(3)], "engine", registry=memory)
    assert [trade["n"] for trade in read_trades("engine", registry=memory)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("trades", "said"),
    [
        ([{"n": 1}, {"id": 5}], "trade 1 has a field 'id', which write_trades sets itself\n  hint: rename the field"),
        (FRAME.assign(run=1), "trade 0 has a field 'run', which"),
        (FRAME.set_axis(range(5), axis=1), "the columns of trades must have different names, got "),
        (FRAME[["PnL", "PnL"]], "the columns of trades must have different names, got "),
        (FRAME.set_axis(pandas.Index([1, 2], name="PnL")), "the columns of trades must have different names, got "),
        ([{"n": 1}, 2], "trade 1 must be a dict, dataclass or Struct, got int"),
        ([Trade], "trade 0 must be a dict, dataclass or Struct, got type"),
        ({"n": 1}, "trades must be a DataFrame or a list of trades, got dict"),
        (None, "trades must be a DataFrame or a list of trades, got NoneType"),
        (
            [{"n": 1}, {"at": datetime(2023, 3, 1)}],
            "storage True, 'engine::00000001': payload.at: .* is naive; give it a time zone, as in ",
        ),
    ],
    ids=lambda value: None if not isinstance(value, str) else value[:20],
)
def test_wrong_trades_are_refused_before_anything_is_written(memory, trades, said):
    with pytest.raises((kit.InvalidTypeError, kit.InvalidValueError), match=f"^{said}"):
        write_trades(trades, "engine", registry=memory)
    assert memory.PersistStorageAdapter.read_storage_data(True) == []


def test_wrong_names_are_refused(memory):
    for engine, run in (("", "a"), (None, "a"), ("a", 5), ("a", b"b"), ("a\0", "b")):
        with pytest.raises((kit.InvalidTypeError, kit.InvalidValueError), match=r"engine|run|signalId"):
            write_trades([{"n": 1}], engine, run, registry=memory)
    with pytest.raises(kit.InvalidTypeError, match="backtest"):
        write_trades([{"n": 1}], "a", backtest=1, registry=memory)
    assert memory.PersistStorageAdapter.read_storage_data(True) == []


def test_a_class_of_the_user_keeps_its_own_rows(memory):
    class Own(memory.PersistStorageInstance):
        pass

    memory.PersistStorageAdapter.use_persist_storage_adapter(Own)
    for call in (lambda: write_trades([{"n": 1}], "engine", registry=memory), lambda: read_trades("engine", registry=memory)):
        with pytest.raises(kit.InvalidValueError, match="a class of your own serves the Storage contract"):
            call()
