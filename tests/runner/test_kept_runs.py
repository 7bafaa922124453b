"""Kept results: what is read back of a run, which run an id refers to, and files that are not kept runs."""

import json

import msgspec
import pytest
from hand_market import MINUTE, flat, memory  # noqa: F401 - memory is a fixture

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidValueError, StorageError
from backtest_kit_mongo.runner import StrategyError, add_strategy, import_candles, keep_run, list_runs, load_run, run_backtest
from backtest_kit_mongo.runner.backtest.kept_runs import runs_folder

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def result():
    signal = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 5}
    add_strategy("hand", interval="15m", get_signal=lambda symbol, when: signal)
    import_candles(flat(100), "BTCUSDT")
    return run_backtest("BTCUSDT")


def test_a_run_comes_back_as_it_was(result):
    with kit.profile() as report:
        kit.PersistStateAdapter.read_state_data("a", "b")
    failed = [StrategyError("broken")]
    kept = keep_run([result], strategy_file="x.py", parameters={"FAST": 6}, settings={"fee": 0.1}, failed=failed, profile=report)
    again = load_run(kept.id)
    assert again == kept
    assert again.results == (msgspec.structs.replace(result, stats={}),)
    assert len(again.results[0].trades) > 3
    assert (again.parameters, again.settings, again.failed) == ({"FAST": 6}, {"fee": 0.1}, ("broken",))
    assert again.report.domains["state"]["reads"] == 1
    assert (runs_folder() / f"{kept.id}.json").stat().st_mode & 0o077 == 0 or (runs_folder().stat().st_mode & 0o077) == 0


def test_ids_are_found_by_their_beginning_and_the_newest_as_last(result):
    for run_id in ("20230301-000000-000001", "20230301-000000-000002", "20230302-000000-000003"):
        keep_run([result], run_id=run_id)
    assert [run.id for run in list_runs()] == ["20230302-000000-000003", "20230301-000000-000002", "20230301-000000-000001"]
    assert load_run("last").id == load_run("20230302").id == "20230302-000000-000003"
    with pytest.raises(InvalidValueError, match="several run ids begin with '20230301'"):
        load_run("20230301")
    for unknown in ("nope", "", "../x", "/etc/passwd"):
        with pytest.raises(InvalidValueError, match="no kept run"):
            load_run(unknown)


@pytest.mark.parametrize("run_id", ["last", "mine", "../mine", "20230301-000000-000001/x", "20230301-000000-000001\n", ""])
def test_an_id_that_would_not_be_found_again_is_refused(result, run_id):
    with pytest.raises(InvalidValueError, match="it must be like 20230301-143000-000000"):
        keep_run([result], run_id=run_id)
    assert list(list_runs()) == []


def test_nothing_kept_is_said():
    assert list(list_runs()) == []
    with pytest.raises(InvalidValueError, match="no backtest has been kept"):
        load_run("last")


def test_a_file_that_makes_no_sense_is_named_and_passed_over_in_lists(result):
    kept = keep_run([result])
    broken = runs_folder() / "20200101-000000-000004.json"
    broken.write_text(json.dumps({"id": 1}))
    (runs_folder() / "notes.json").write_text("{}")
    assert [run.id for run in list_runs()] == [kept.id]
    with pytest.raises(InvalidValueError, match=r"20200101-000000-000004\.json is not a kept run"):
        load_run("20200101")


def test_a_folder_that_cannot_be_made_is_an_error(result, home):
    (home / "data").write_text("a file")
    with pytest.raises(StorageError, match="cannot be created"):
        keep_run([result])


def test_the_newest_is_the_last_also_of_runs_in_one_second(result):
    ids = [keep_run([result]).id for _ in range(20)]
    assert ids == sorted(ids)
    assert load_run("last").id == ids[-1]
