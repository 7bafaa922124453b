"""Risk limits: how many positions, which ones, and which runs count each other's."""

import pytest
from hand_market import MINUTE, START, flat, memory  # noqa: F401 - memory is a fixture
from recorder import Recorder

import backtest_kit_mongo as kit
from backtest_kit_mongo import InvalidTypeError, InvalidValueError, payloads
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.runner import add_risk, add_strategy, import_candles, list_risks, run_backtest
from backtest_kit_mongo.runner.engine.cost_basis import Costs
from backtest_kit_mongo.runner.engine.position import open_position, read_signal
from backtest_kit_mongo.runner.engine.risk import RiskBook
from backtest_kit_mongo.runner.engine.rows import RunContext

pytestmark = pytest.mark.once

LONG = {"position": "long", "priceTakeProfit": 110.0, "priceStopLoss": 95.0, "minuteEstimatedTime": 60}


def book(symbol="BTCUSDT", strategy="hand", *, exchange="binance", frame="", risk="all", books=None):
    context = RunContext(symbol, strategy, exchange, frame, risk, START, START, Costs(), backtest=bool(frame))
    return RiskBook(context, default_registry, books)


def commit(taken):
    taken.store(held(), START)
    taken.hold(held())


def release(taken):
    taken.store(None, START)
    taken.hold(None)


def held(when_ms=START, **changes):
    return open_position("id", read_signal({**LONG, **changes}, 100.0), 100.0, when_ms, 100.0)


def stored(risk="all"):
    return [key for key, _ in kit.PersistRiskAdapter.read_position_data(risk, "binance", START)]


def run(minutes=200, **signal):
    add_strategy(
        "hand",
        interval="5m",
        risk_name="all",
        get_signal=lambda symbol, when: {**LONG, **signal} if when.timestamp() * 1000 == START + 10 * MINUTE else None,
    )
    import_candles(flat(minutes), "BTCUSDT")
    return run_backtest("BTCUSDT")


def test_backtests_side_by_side_do_not_count_each_other():
    """Each is at another time, so the result would depend on how fast the others are."""
    add_risk("all", max_positions=1)
    one, two = (book(symbol, frame="march") for symbol in ("A", "B"))
    assert one.reserve(held(), 100.0, START) is None
    assert two.reserve(held(), 100.0, START) is None


def test_at_most_so_many_positions():
    add_risk("all", max_positions=2)
    one, two, three = (book(symbol, frame="") for symbol in ("A", "B", "C"))
    assert one.reserve(held(), 100.0, START) is None
    assert two.reserve(held(), 100.0, START) is None  # a reservation counts as a position
    commit(one)
    refusal = "risk 'all' allows 2 open positions, and 2 are open", 2
    assert three.reserve(held(), 100.0, START) == refusal
    commit(two)
    assert three.reserve(held(), 100.0, START) == refusal
    assert one.reserve(held(), 100.0, START) is None  # its own slot does not count against it
    release(two)
    assert three.reserve(held(), 100.0, START) is None
    release(three)
    for each in (one, two, three):
        each.leave()


@pytest.mark.parametrize("frame", ["", "march"])
def test_x21_who_only_asks_for_a_slot_does_not_take_it(monkeypatch, frame):
    add_risk("all", max_positions=1)
    recorder = Recorder(monkeypatch)
    books = {}
    one, two = book("A", frame=frame, books=books), book("B", frame=frame, books=books)
    assert one.reserve(held(), 100.0, START, ask=True) is None
    assert two.reserve(held(), 100.0, START, ask=True) is None
    assert recorder.order == []
    assert two.reserve(held(), 100.0, START) is None
    assert one.reserve(held(), 100.0, START, ask=True) == ("risk 'all' allows 1 open positions, and 1 are open", 1)
    assert [[key for key, _ in positions] for positions, *_ in recorder.of("risk")] == ([] if frame else [["hand_binance_B"]])


def test_exchanges_frames_and_names_have_their_own_limits():
    add_risk("all", max_positions=1)
    add_risk("other", max_positions=1)
    books = [book("A"), book("A", exchange="kraken"), book("A", risk="other"), book("A", frame="march"), book("A", frame="april")]
    assert [each.reserve(held(), 100.0, START) for each in books] == [None] * 5
    assert book("B").reserve(held(), 100.0, START) is not None
    for each in books:
        release(each)


def test_a_backtest_does_not_count_what_another_run_left():
    """The second run of the same backtest sees what the first one saw."""
    add_risk("all", max_positions=1)
    kit.PersistRiskAdapter.write_position_data([["other_binance_X", {"frameName": "backtest"}]], "all", "binance", START)
    assert len(run().trades) == 1
    assert stored() == ["other_binance_X"]


def test_validate_is_asked_with_the_position_and_those_that_are_open():
    asked = []

    @add_risk("all", max_positions=5)
    def validate(request):
        asked.append(request)
        return "no more than one of a kind" if request.active else None

    one, two = book("A"), book("B")
    assert one.reserve(held(), 101.0, START) is None
    commit(one)
    assert two.reserve(held(), 102.0, START) == ("no more than one of a kind", 1)
    assert (asked[0].position["symbol"], asked[0].price, asked[0].active) == ("A", 101.0, ())
    assert [row["symbol"] for row in asked[1].active] == ["A"]
    release(one)


@pytest.mark.parametrize(
    ("validate", "note"),
    [
        (lambda request: False, "risk 'all' refused the position"),
        (lambda request: 1 // 0, "risk 'all' raised ZeroDivisionError: integer division or modulo by zero"),
        (lambda request: "too much", "too much"),
    ],
)
def test_a_refused_signal_is_told_and_opens_nothing(monkeypatch, validate, note):
    add_risk("all", validate=validate)
    recorder = Recorder(monkeypatch)
    result = run()
    assert (result.trades, result.open_trade) == ((), None)
    assert recorder.of("risk") == recorder.of("signal") == []
    (told,) = kit.PersistNotificationAdapter.read_notification_data(True, type=payloads.NotificationModel)
    assert (told.type, told.rejection_note, told.symbol, told.active_position_count) == ("risk.rejection", note, "BTCUSDT", 0)
    assert (told.timestamp, told.position, told.price_take_profit, told.minute_estimated_time) == (START + 10 * MINUTE, "long", 110.0, 60)


@pytest.mark.parametrize("answer", [None, True])
def test_a_validated_signal_opens(answer):
    add_risk("all", validate=lambda request: answer)
    assert len(run().trades) == 1


def test_a_scheduled_signal_is_asked_about_again_when_it_opens():
    answers = [None, "not any more"]
    add_risk("all", validate=lambda request: answers.pop(0))
    add_strategy(
        "hand", interval="5m", risk_name="all",
        get_signal=lambda symbol, when: {**LONG, "priceOpen": 98.0} if when.timestamp() * 1000 == START + 10 * MINUTE else None,
    )  # fmt: skip
    market = flat(60)
    market["low"][20] = 97.0
    import_candles(market, "BTCUSDT")
    assert run_backtest("BTCUSDT").trades == ()
    told = kit.PersistNotificationAdapter.read_notification_data(True, type=payloads.NotificationModel)
    assert [note.type for note in told] == ["signal.scheduled", "risk.rejection", "signal.cancelled"]
    assert told[-1].cancel_reason == "risk_reject"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"max_positions": 0}, InvalidValueError, "max_positions is 0; it must be at least 1"),
        ({"max_positions": True}, InvalidTypeError, "max_positions must be an int"),
        ({"validate": lambda: None}, InvalidTypeError, r"validate of risk 'x' must take \(request\)"),
    ],
)
def test_bad_limits_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        add_risk("x", **arguments)
    assert list_risks() == ()


def test_names_are_unique():
    add_risk("x", max_positions=1)
    with pytest.raises(InvalidValueError, match=r"risk 'x' at .*test_risk.py:\d+ is already registered at .*test_risk.py:\d+"):
        add_risk("x", max_positions=2)
