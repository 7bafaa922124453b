"""Stored candles that are wrong: imports that replace them, and exchanges that are asked again; on every store."""

from __future__ import annotations

import numpy as np
import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidValueError, PersistCandleAdapter, PersistCandleInstance
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import (
    CandleConflictError,
    ExchangeError,
    add_exchange,
    add_file_exchange,
    clear_exchanges,
    import_candles,
    imported_spans,
    list_candles,
    refresh_candles,
    synthetic_market,
)
from backtest_kit_mongo.runner.market.candle_import import check_source

MINUTE, START = 60_000, 1_677_628_800_000
SERIES = ("BTCUSDT", "1m", "csv")


def at(minute):
    return START + minute * MINUTE


def market(first=0, last=500):
    return synthetic_market(1, 2_000, START)[first:last].copy()


def changed(candles, *positions):
    candles = candles.copy()
    candles["volume"][list(positions)] += 1
    return candles


def stored(first=0, last=500):
    return PersistCandleAdapter.read_candles_array(*SERIES, last - first, at(first))


@pytest.fixture(autouse=True)
def exchanges():
    clear_exchanges()
    yield
    clear_exchanges()


# --- import_candles(replace=True) ---


def test_what_differs_is_replaced_and_nothing_else(store):
    import_candles(market(), *SERIES)
    import_candles(market(), "ETHUSDT", "1m", "csv")
    assert (stored() == market()).all()  # now also in the memory of the process
    given = changed(market(100, 700), 3, 40, 41, 399)
    shown = import_candles(given, *SERIES, replace=True, dry_run=True)
    assert (stored() == market()).all()
    assert imported_spans(*SERIES) == ((at(0), at(500)),)
    report = import_candles(given, *SERIES, replace=True)
    assert report == shown
    assert (report.candles, report.new, report.replaced) == (600, 200, 4)
    assert [conflict.timestamp for conflict in report.conflicts] == [at(103), at(140), at(141)]
    assert report.conflicts[0].stored == {"volume": market()["volume"][103]}
    assert report.conflicts[0].given == {"volume": market()["volume"][103] + 1}
    assert (stored(last=700) == np.concatenate([market(0, 100), given])).all()
    assert imported_spans(*SERIES) == ((at(0), at(700)),)
    assert next(list_candles(symbol="ETHUSDT")).candles == 500
    assert (PersistCandleAdapter.read_candles_array("ETHUSDT", "1m", "csv", 500, START) == market()).all()
    again = import_candles(given, *SERIES, replace=True)
    assert (again.new, again.replaced, again.conflicts) == (0, 0, ())


def test_holes_stay_and_the_first_write_still_wins(store):
    import_candles(np.concatenate([market(0, 100), market(200, 500)]), *SERIES)
    report = import_candles(changed(np.concatenate([market(50, 100), market(200, 250)]), 0, 99), *SERIES, replace=True)
    assert (report.replaced, report.new) == (2, 0)
    assert stored(100, 101) is None
    assert imported_spans(*SERIES) == ((at(0), at(100)), (at(200), at(500)))
    PersistCandleAdapter.write_candles_data(changed(market(), *range(500)), *SERIES)
    assert stored(50, 51)["volume"] == market()["volume"][50] + 1
    assert stored(49, 50) == market()[49]
    with pytest.raises(CandleConflictError, match="candles import --replace"):
        import_candles(market(), *SERIES)


def test_a_dry_run_without_replace_writes_nothing_and_refuses_the_same(store):
    report = import_candles(market(), *SERIES, dry_run=True)
    assert (report.candles, report.new, report.replaced) == (500, 500, 0)
    assert list(list_candles()) == []
    assert imported_spans(*SERIES) == ()
    import_candles(market(), *SERIES)
    with pytest.raises(CandleConflictError, match="1 of 500"):
        import_candles(changed(market(), 7), *SERIES, dry_run=True)


def test_bad_candles_replace_nothing(store):
    import_candles(market(), *SERIES)
    bad = changed(market(), *range(500))
    bad["close"][400] = np.nan
    with pytest.raises(InvalidValueError, match="close is nan"):
        import_candles(bad, *SERIES, replace=True)
    assert (stored() == market()).all()


def test_another_writer_that_is_first_with_other_values_is_replaced_too(store, monkeypatch):
    """Between the comparison and the write."""
    target = default_registry.store(kit.domains.DOMAINS["candle"])
    write = target.write_candles

    def after_another(*series_and_candles):
        monkeypatch.undo()
        write(*SERIES, changed(market(), *range(500)))
        return write(*series_and_candles)

    monkeypatch.setattr(target, "write_candles", after_another)
    report = import_candles(market(), *SERIES, replace=True)
    assert report.replaced == 500
    assert (stored() == market()).all()


class Own(PersistCandleInstance):
    """A user's class."""


def test_a_class_of_the_user_cannot_replace(mongo):
    import_candles(market(), *SERIES)
    PersistCandleAdapter.use_persist_candle_adapter(Own)
    asked = []
    add_exchange("csv", get_candles=lambda symbol, interval, since, limit: asked.append(since) or [])
    for call in (
        lambda: import_candles(changed(market(), 1), *SERIES, replace=True),
        lambda: refresh_candles(*SERIES, at(0), at(10)),
    ):
        with pytest.raises(InvalidValueError, match="a class of your own"):
            call()
    assert asked == []
    assert (stored() == market()).all()


# --- refresh_candles ---


def exchange_with(candles, *, name="csv", most=1_000):
    """Register an exchange that has these candles, at most ``most`` per answer; return the requests that it gets."""
    requests = []

    def get_candles(symbol, interval, since, limit):
        requests.append((symbol, interval, since, limit))
        return candles[candles["timestamp"] >= since][: min(limit, most)]

    add_exchange(name, get_candles=get_candles)
    return requests


@pytest.mark.parametrize("most", [1_000, 70])
def test_an_exchange_is_asked_again(store, most):
    """What it revised is replaced, what was missing is added, and what it no longer has stays."""
    import_candles(np.concatenate([market(0, 300), market(320, 1_500)]), *SERIES)
    revised = changed(market(0, 1_500), 10, 200, 1_400)
    requests = exchange_with(np.delete(revised, slice(600, 650)), most=most)
    passed = []
    shown = refresh_candles(*SERIES, at(100), at(1_450), dry_run=True)
    assert stored(100, 101) == market()[100]
    assert stored(200, 201) == market()[200]
    report = refresh_candles(*SERIES, at(100), at(1_450), progress=lambda *counts: passed.append(counts))
    assert report == shown
    assert (report.candles, report.replaced, report.new) == (1_300, 2, 20)
    assert passed[-1] == (1_350, 1_350)
    assert min(request[2] for request in requests) == at(100)
    expected = market(0, 1_500)
    expected[[200, 1_400]] = revised[[200, 1_400]]
    assert (stored(0, 1_500) == expected).all()
    assert imported_spans(*SERIES) == ((at(0), at(1_500)),)


def test_nothing_is_written_if_an_answer_is_bad(store):
    import_candles(market(0, 1_500), *SERIES)
    bad = changed(market(0, 1_500), 3)
    bad["low"][1_200] = -1
    exchange_with(bad)
    with pytest.raises(ExchangeError, match="impossible values"):
        refresh_candles(*SERIES, at(0), at(1_500))
    assert (stored(0, 1_500) == market(0, 1_500)).all()


def test_an_exchange_that_has_nothing_changes_nothing(store):
    import_candles(market(), *SERIES)
    exchange_with(market(0, 0))
    report = refresh_candles(*SERIES, at(0), at(500))
    assert (report.candles, report.replaced, report.new, report.since_ms, report.until_ms) == (0, 0, 0, at(0), at(500))
    assert (stored() == market()).all()


def test_windows_that_make_no_sense_are_refused(mongo):
    requests = exchange_with(market())
    with pytest.raises(InvalidValueError, match="the window is empty"):
        refresh_candles(*SERIES, at(5), at(5))
    with pytest.raises(InvalidValueError, match="since_ms"):
        refresh_candles(*SERIES, at(0) + 1, at(5))
    with pytest.raises(InvalidValueError, match="no candle of the window has closed yet"):
        refresh_candles(*SERIES, 4_000_000_020_000, 4_000_000_080_000)
    with pytest.raises(InvalidValueError, match="csv"):
        refresh_candles("BTCUSDT", "1m", "unknown", at(0), at(5))
    assert requests == []


def test_a_file_that_changed_is_read_again(store, tmp_path):
    """By the exchange that was registered before it changed: its candles can be refreshed, and a run on old ones is refused."""
    file = tmp_path / "BTCUSDT-1m.csv"

    def save(candles):
        rows = [",".join(map(str, row)) for row in candles.tolist()]
        file.write_text("\n".join(["timestamp,open,high,low,close,volume", *rows]))

    save(market())
    add_file_exchange("csv", file)
    import_candles(market(), *SERIES)
    check_source("BTCUSDT", "csv", at(500))
    save(changed(market(), 5, 6, 7)[:499])
    with pytest.raises(CandleConflictError, match="3 of 499"):
        check_source("BTCUSDT", "csv", at(500))
    assert refresh_candles(*SERIES, at(0), at(500)).replaced == 3
    check_source("BTCUSDT", "csv", at(500))
    assert (stored() == changed(market(), 5, 6, 7)).all()
