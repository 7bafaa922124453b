"""Every payload as the TypeScript framework stores it is decoded, encoded again, and equal."""

import math
import typing
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from bson import decode, encode
from bson.codec_options import CodecOptions
from bson.int64 import Int64
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit_mongo import payloads as p

pytestmark = pytest.mark.once

MS = 1_700_000_000_000
WHEN = datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)

CANDLE = {"timestamp": MS, "open": 1.5, "high": 2, "low": 1, "close": 1.75, "volume": 0}
PNL = {"pnlPercentage": -1.5, "priceOpen": 100.2, "priceClose": 99, "pnlCost": -1.5, "pnlEntries": 100}
PEAK = {**PNL, "price": 101.5, "timestamp": MS}
PARTIAL = {"type": "profit", "percent": 25, "currentPrice": 110, "costBasisAtClose": 100, "entryCountAtClose": 1, "timestamp": MS}
ENTRY = {"price": 100, "cost": 100, "timestamp": MS}
DTO = {"position": "long", "priceTakeProfit": 110, "priceStopLoss": 90}
DTO_FULL = {**DTO, "id": "a", "symbol": "BTCUSDT", "note": "por qué", "priceOpen": 100, "minuteEstimatedTime": math.inf, "cost": 100}
ROW = {
    **DTO,
    "id": "6f0f",
    "symbol": "BTCUSDT",
    "strategyName": "sma",
    "exchangeName": "binance",
    "frameName": "",
    "priceOpen": 100,
    "minuteEstimatedTime": math.inf,
    "cost": 100,
    "scheduledAt": MS,
    "pendingAt": MS + 1,
    "timestamp": MS,
    "_isScheduled": False,
    "_peak": PEAK,
    "_fall": PEAK,
}
ROW_FULL = {
    **ROW,
    "note": None,  # an undefined in BSON
    "_partial": [PARTIAL],
    "_entry": [ENTRY, ENTRY],
    "_trailingPriceStopLoss": 95,
    "_trailingPriceTakeProfit": 115.5,
}
ORIGINAL = {"originalPriceOpen": 100, "originalPriceTakeProfit": 110, "originalPriceStopLoss": 90}
HISTORY = {**ORIGINAL, "totalEntries": 1, "totalPartials": 0, "pnl": PNL, "peakProfit": PNL, "maxDrawdown": PNL}
PUBLIC = {**ROW_FULL, **HISTORY, "partialExecuted": 25}
STORED = {**PUBLIC, "createdAt": MS, "updatedAt": MS, "priority": MS}
CLOSED = {**STORED, "status": "closed", "currentPrice": 110, "closeReason": "take_profit", "closeTimestamp": MS}
COMMITS = {
    "partial-profit": (p.PartialProfitCommitRow, {"percentToClose": 25, "currentPrice": 1}),
    "partial-loss": (p.PartialLossCommitRow, {"percentToClose": 25, "currentPrice": 1}),
    "breakeven": (p.BreakevenCommitRow, {"currentPrice": 1}),
    "average-buy": (p.AverageBuyCommitRow, {"currentPrice": 1, "cost": 100, "totalEntries": 2}),
    "trailing-stop": (p.TrailingStopCommitRow, {"percentShift": -0.5, "currentPrice": 1}),
    "trailing-take": (p.TrailingTakeCommitRow, {"percentShift": 0.5, "currentPrice": 1}),
    "activate-scheduled": (p.ActivateScheduledCommitRow, {"signalId": "a", "activateId": "b"}),
}
COMMIT_ROWS = [{"action": action, "symbol": "BTCUSDT", "backtest": False, **rest} for action, (_, rest) in COMMITS.items()]
STRATEGY_OLD = {
    "pendingSignalId": None,
    "createdSignal": None,
    "commitQueue": [],
    "closedSignal": None,
    "takeProfitSignal": None,
    "stopLossSignal": None,
    "cancelledSignal": None,
    "activatedSignal": None,
}
STRATEGY = {
    "pendingSignalId": "a",
    "lastPendingId": "b",
    "createdSignal": DTO,
    "commitQueue": COMMIT_ROWS,
    "closedSignal": {**ROW, "closeId": "c", "closeNote": "n"},
    "takeProfitSignal": ROW,
    "stopLossSignal": {**ROW, "closeId": None},
    "cancelledSignal": {**ROW, "cancelId": "c", "cancelNote": "n"},
    "activatedSignal": {**ROW, "activateId": "c", "activateNote": "n"},
    "retryOpenSignal": ROW,
    "retryOpenCount": 1,
    "retryCloseCount": 0,
    "isPaused": True,
}
RISK = {
    "strategyName": "sma",
    "exchangeName": "binance",
    "frameName": "",
    "symbol": "BTCUSDT",
    "position": "short",
    "priceOpen": 100,
    "priceStopLoss": 110,
    "priceTakeProfit": 90.5,
    "minuteEstimatedTime": 60,
    "openTimestamp": MS,
}
LOG = {
    "id": "0.abc",
    "type": "info",
    "priority": MS,
    "createdAt": "2023-11-14T22:13:20.123Z",
    "timestamp": MS,
    "methodContext": {"exchangeName": "binance", "strategyName": "sma", "frameName": ""},
    "executionContext": {"symbol": "BTCUSDT", "when": WHEN, "backtest": True},
    "topic": "tick",
    "args": [1, "two", {"three": None}, [4.5]],
}
MEASURE = {"id": "k", "data": {"any": [1, None]}, "removed": False}
MEMORY = {"priority": MS, "data": {"text": "x"}, "removed": False, "index": "x y", "when": MS}
STATE = {"id": "signal_bucket", "data": {"level": 3}, "when": MS}

SAMPLES = {
    "candle": (p.Candle, CANDLE),
    "pnl": (p.StrategyPnL, PNL),
    "peak": (p.PeakPoint, PEAK),
    "partial close": (p.PartialClose, PARTIAL),
    "entry": (p.DcaEntry, ENTRY),
    "dto": (p.SignalDto, DTO),
    "dto, full": (p.SignalDto, DTO_FULL),
    "dto, undefined became null": (p.SignalDto, {**DTO, "id": None, "note": None, "priceOpen": None, "cost": None}),
    "signal": (p.SignalRow, ROW),
    "signal, full": (p.SignalRow, ROW_FULL),
    "signal with leverage": (p.SignalRow, {**ROW, "multiplier": 3, "isolated": True}),
    "schedule": (p.ScheduledSignalRow, {**ROW, "_isScheduled": True}),
    "cancel": (p.ScheduledSignalCancelRow, {**ROW, "cancelId": "c", "cancelNote": None}),
    "activate": (p.ScheduledSignalActivateRow, {**ROW, "activateId": "c", "activateNote": "n"}),
    "close": (p.SignalCloseRow, {**ROW, "closeId": "c"}),
    "recent": (p.RecentData, PUBLIC),
    "storage, opened": (p.StorageSignalRow, {**STORED, "status": "opened", "currentPrice": 101}),
    "storage, scheduled": (p.StorageSignalRow, {**STORED, "status": "scheduled", "currentPrice": 101}),
    "storage, closed": (p.StorageSignalRow, CLOSED),
    "storage, closed for a new reason": (p.StorageSignalRow, {**CLOSED, "closeReason": "liquidation"}),
    "storage, cancelled": (p.StorageSignalRow, {**STORED, "status": "cancelled"}),
    "commits": (list[p.CommitRow], COMMIT_ROWS),
    "strategy": (p.StrategyData, STRATEGY),
    "strategy, empty": (p.StrategyData, {**STRATEGY_OLD, "lastPendingId": None, "retryOpenSignal": None}),
    "strategy before 14.0": (p.StrategyData, STRATEGY_OLD),
    "risk position": (p.RiskPosition, RISK),
    "risk": (p.RiskData, [["sma_binance_BTCUSDT", RISK], ["a_b_c", {**RISK, "minuteEstimatedTime": math.inf}]]),
    "risk, empty": (p.RiskData, []),
    "levels": (p.PartialLevels, {"profitLevels": [10, 20], "lossLevels": []}),
    "partial": (p.PartialData, {"a": {"profitLevels": [], "lossLevels": [100]}, "b": {"profitLevels": [10], "lossLevels": []}}),
    "breakeven level": (p.BreakevenLevel, {"reached": False}),
    "breakeven": (p.BreakevenData, {"a": {"reached": True}}),
    "method context": (p.MethodContext, LOG["methodContext"]),
    "execution context": (p.ExecutionContext, LOG["executionContext"]),
    "log": (p.LogEntry, LOG),
    "log outside of a run": (p.LogEntry, {**LOG, "type": "agent", "methodContext": None, "executionContext": None, "args": []}),
    "measure": (p.MeasureData, MEASURE),
    "measure of null": (p.MeasureData, {**MEASURE, "data": None, "removed": True}),
    "interval": (p.IntervalData, {**MEASURE, "when": WHEN}),
    "memory": (p.MemoryData, MEMORY),
    "state": (p.StateData, STATE),
    "state of a list": (p.StateData, {**STATE, "data": [1, 2]}),
    "session": (p.SessionData, STATE),
    "session, cleared": (p.SessionData, {**STATE, "data": None}),
    "dictionary": (p.DictionaryData, STATE),
}

BASE = {"id": "n1", "timestamp": MS, "backtest": False, "symbol": "BTCUSDT", "strategyName": "sma", "exchangeName": "binance"}
FLAT = {
    f"{prefix}{name}": float(i)
    for prefix in ("pnl", "peakProfit", "maxDrawdown")
    for i, name in enumerate(("Percentage", "PriceOpen", "PriceClose", "Cost", "Entries"))
}
SCHEDULED = {
    **BASE,
    **HISTORY,
    **FLAT,
    "signalId": "6f0f",
    "position": "long",
    "currentPrice": 101,
    "priceOpen": 100,
    "priceTakeProfit": 110,
    "priceStopLoss": 90,
    "cost": 100,
    "scheduledAt": MS,
    "createdAt": MS,
    "note": None,
}
OPENED = {**SCHEDULED, "pendingAt": MS}
REJECTION = {
    **BASE,
    "rejectionNote": "too many",
    "rejectionId": None,
    "activePositionCount": 3,
    "currentPrice": 100,
    "position": "long",
    "priceTakeProfit": 110,
    "priceStopLoss": 90,
    "minuteEstimatedTime": math.inf,
    "signalNote": None,
    "createdAt": MS,
}
ERROR = {"id": "n1", "error": {"name": "Error", "stack": "..."}, "message": "boom", "backtest": False}

NOTIFICATIONS = {
    "signal.opened": (p.SignalOpenedNotification, OPENED),
    "signal.scheduled": (p.SignalScheduledNotification, SCHEDULED),
    "signal.closed": (p.SignalClosedNotification, {**OPENED, "priceClose": 110, "closeReason": "take_profit", "duration": 15}),
    "signal.cancelled": (p.SignalCancelledNotification, {**OPENED, "cancelReason": "timeout", "cancelId": None, "duration": 15}),
    "signal.info": (p.SignalInfoNotification, {**OPENED, "note": "hi", "notificationId": "x"}),
    "partial_profit.available": (p.PartialProfitAvailableNotification, {**OPENED, "level": 10}),
    "partial_loss.available": (p.PartialLossAvailableNotification, {**OPENED, "level": 20}),
    "breakeven.available": (p.BreakevenAvailableNotification, OPENED),
    "partial_profit.commit": (p.PartialProfitCommitNotification, {**OPENED, "percentToClose": 25}),
    "partial_loss.commit": (p.PartialLossCommitNotification, {**OPENED, "percentToClose": 12.5}),
    "breakeven.commit": (p.BreakevenCommitNotification, OPENED),
    "average_buy.commit": (p.AverageBuyCommitNotification, {**OPENED, "effectivePriceOpen": 99.5}),
    "activate_scheduled.commit": (p.ActivateScheduledCommitNotification, {**OPENED, "activateId": "x"}),
    "cancel_scheduled.commit": (p.CancelScheduledCommitNotification, {**OPENED, "cancelId": "x", "pendingAt": 0}),
    "close_pending.commit": (p.ClosePendingCommitNotification, OPENED),
    "trailing_stop.commit": (p.TrailingStopCommitNotification, {**OPENED, "percentShift": -1}),
    "trailing_take.commit": (p.TrailingTakeCommitNotification, {**OPENED, "percentShift": 0.5}),
    "order_sync.open": (p.OrderSyncOpenNotification, {**OPENED, "orderType": "schedule"}),
    "order_sync.check": (p.OrderSyncCheckNotification, {**OPENED, "orderType": "active"}),
    "order_sync.close": (p.OrderSyncCloseNotification, {**OPENED, "closeReason": "closed"}),
    "order_continue.check": (p.OrderContinueCheckNotification, {**OPENED, "orderType": "active", "attempt": 0}),
    "order_stop.check": (p.OrderStopCheckNotification, {**OPENED, "reason": "deleted", "attempt": 1}),
    "order_fill.open": (p.OrderFillOpenNotification, {**OPENED, "attempt": 2}),
    "order_fill.close": (p.OrderFillCloseNotification, {**OPENED, "attempt": 0, "closeReason": "stop_loss"}),
    "order_reject.open": (p.OrderRejectOpenNotification, {**OPENED, "attempt": 0, "message": "no"}),
    "order_reject.close": (p.OrderRejectCloseNotification, {**OPENED, "attempt": 0, "message": "no", "closeReason": "closed"}),
    "risk.rejection": (p.RiskRejectionNotification, REJECTION),
    "strategy.pause": (p.StrategyPauseNotification, {**BASE, "frameName": "", "paused": True, "createdAt": MS}),
    "error.info": (p.InfoErrorNotification, ERROR),
    "error.critical": (p.CriticalErrorNotification, {**ERROR, "timestamp": MS, "createdAt": MS}),
    "error.validation": (p.ValidationErrorNotification, ERROR),
}
for _type, (_cls, _doc) in NOTIFICATIONS.items():
    SAMPLES[_type] = (p.NotificationModel, {"type": _type, **_doc})

samples = pytest.mark.parametrize(("shape", "doc"), SAMPLES.values(), ids=SAMPLES)


def builtins(row):
    # datetime is a BSON type: without this it would become text
    return listed(msgspec.to_builtins(row, builtin_types=(datetime,)))


def listed(value):
    """Turn tuples into lists: the pairs of the Risk contract are tuples in Python and arrays everywhere else."""
    if isinstance(value, dict):
        return {k: listed(v) for k, v in value.items()}
    return [listed(v) for v in value] if isinstance(value, (list, tuple)) else value


def through_bson(doc):
    """Return what a reader gets of a document that mongoose wrote: integers beyond int32 are doubles."""
    return decode(encode({"doc": as_javascript(doc)}), CodecOptions(tz_aware=True))["doc"]


def as_javascript(value, small=2**31):
    if isinstance(value, dict):
        return {k: as_javascript(v, small) for k, v in value.items()}
    if isinstance(value, list):
        return [as_javascript(v, small) for v in value]
    return float(value) if type(value) is int and abs(value) >= small else value


def structs_in(value):
    if isinstance(value, msgspec.Struct):
        yield value
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)) and type(value) is not type({}.values()):
        return
    for item in value:
        yield from structs_in(item)


def with_unknown_fields(value):
    if isinstance(value, dict):
        opaque = ("data", "args", "error")  # its content is the user's
        return {**{k: v if k in opaque else with_unknown_fields(v) for k, v in value.items()}, "addedIn99": {"x": 1}}
    return [with_unknown_fields(v) for v in value] if isinstance(value, list) else value


@samples
def test_a_payload_survives(shape, doc):
    before = deepcopy(doc)
    row = msgspec.convert(doc, type=shape)
    assert builtins(row) == before  # absent stays absent, null stays null
    assert doc == before


@samples
def test_a_payload_survives_bson_as_javascript_writes_it(shape, doc):
    assert builtins(msgspec.convert(through_bson(doc), type=shape)) == doc


@samples
@pytest.mark.parametrize("small", [0, 2**31], ids=["all doubles", "int32 and doubles"])
def test_whole_doubles_become_int(shape, doc, small):
    """The legacy mongo shell writes even 1 as 1.0."""
    plain = msgspec.convert(doc, type=shape)
    row = msgspec.convert(as_javascript(doc, small), type=shape)
    assert builtins(row) == doc
    for ours, theirs in zip(structs_in(plain), structs_in(row), strict=True):
        for f in msgspec.structs.fields(ours):
            if f.type is not typing.Any:
                assert type(getattr(theirs, f.name)) is type(getattr(ours, f.name)), f.name


@samples
def test_json_reads_as_bson_does(shape, doc):
    """The file store holds JSON: dates are text there."""
    finite = msgspec.json.decode(msgspec.json.encode(doc).replace(b'"minuteEstimatedTime":null', b'"minuteEstimatedTime":60'))
    row = msgspec.convert(finite, type=shape)
    assert msgspec.json.decode(msgspec.json.encode(row)) == finite


STRUCTS = {k: v for k, v in SAMPLES.items() if v[0] not in (p.PartialData, p.BreakevenData)}  # they have keys, not fields


@pytest.mark.parametrize(("shape", "doc"), STRUCTS.values(), ids=STRUCTS)
def test_fields_of_newer_versions_are_tolerated(shape, doc):
    assert builtins(msgspec.convert(with_unknown_fields(doc), type=shape)) == doc


@pytest.mark.parametrize(("shape", "doc"), [v for v in STRUCTS.values() if isinstance(v[1], dict)])
def test_a_missing_required_field_is_named(shape, doc):
    cls = NOTIFICATIONS[doc["type"]][0] if shape is p.NotificationModel else shape
    required = [f.encode_name for f in msgspec.structs.fields(cls) if f.required]
    for name in [*required, *(["type"] if shape is p.NotificationModel else [])]:
        with pytest.raises(msgspec.ValidationError, match=f"missing required field `{name}`"):
            msgspec.convert({k: v for k, v in doc.items() if k != name}, type=shape)


@pytest.mark.parametrize("kind", NOTIFICATIONS)
def test_a_notification_knows_its_type(kind):
    cls, doc = NOTIFICATIONS[kind]
    row = msgspec.convert({"type": kind, **doc}, type=p.NotificationModel)
    assert type(row) is cls
    assert row.type == kind
    assert isinstance(row, p.NotificationBase)
    assert isinstance(row, p.PositionNotification) == ("pendingAt" in doc)
    assert builtins(row)["type"] == kind
    assert msgspec.json.decode(msgspec.json.encode(row), type=p.NotificationModel).type == kind


def test_there_are_31_notifications():
    variants = typing.get_args(p.NotificationModel)
    assert {v.__struct_config__.tag for v in variants} == set(NOTIFICATIONS)
    assert len(variants) == len(NOTIFICATIONS) == 31
    common = {f.encode_name for f in msgspec.structs.fields(p.PositionNotification)} | {"type"}
    assert len(common - {"multiplier", "isolated"}) == 41  # the framework's common fields


@pytest.mark.parametrize("action", COMMITS)
def test_a_commit_knows_its_action(action):
    cls, rest = COMMITS[action]
    row = msgspec.convert({"action": action, "symbol": "BTCUSDT", "backtest": True, **rest}, type=p.CommitRow)
    assert type(row) is cls
    assert row.action == action


def test_unknown_types_are_refused():
    with pytest.raises(msgspec.ValidationError, match=r"Invalid value 'signal.invented' - at `\$.type`"):
        msgspec.convert({"type": "signal.invented", "id": "1"}, type=p.NotificationModel)
    with pytest.raises(msgspec.ValidationError, match=r"at `\$.commitQueue\[0\].action`"):
        msgspec.convert({**STRATEGY, "commitQueue": [{**COMMIT_ROWS[0], "action": "moon"}]}, type=p.StrategyData)


@pytest.mark.parametrize("value", [1.5, math.inf, math.nan, True, "1700000000000", None])
def test_what_is_not_a_whole_number_is_no_timestamp(value):
    with pytest.raises(msgspec.ValidationError, match=r"at `\$.timestamp`"):
        msgspec.convert({**CANDLE, "timestamp": value}, type=p.Candle)


@pytest.mark.parametrize("value", [True, "1", None])
def test_what_is_not_a_number_is_no_price(value):
    with pytest.raises(msgspec.ValidationError, match=r"at `\$.open`"):
        msgspec.convert({**CANDLE, "open": value}, type=p.Candle)


@pytest.mark.parametrize("value", [1, 0, 1.0, "true", None])
def test_a_number_is_no_bool(value):
    with pytest.raises(msgspec.ValidationError, match=r"at `\$.reached`"):
        msgspec.convert({"reached": value}, type=p.BreakevenLevel)


def test_int64_of_the_bson_package_is_an_int():
    row = msgspec.convert({**CANDLE, "timestamp": Int64(MS), "close": Int64(5)}, type=p.Candle)
    assert (row.timestamp, row.close) == (MS, 5.0)


def test_a_struct_made_by_hand_holds_ints_too():
    row = p.Candle(timestamp=float(MS), open=1, high=1, low=1, close=1, volume=0)
    assert type(row.timestamp) is int
    assert p.PartialLevels(profit_levels=[10.0], loss_levels=[10.5]).profit_levels == [10]
    assert p.PartialLevels(profit_levels=[], loss_levels=[10.5]).loss_levels == [10.5]  # not truncated in silence
    assert p.Candle(timestamp=1.5, open=1, high=1, low=1, close=1, volume=0).timestamp == 1.5


def test_rows_can_be_edited():
    row = msgspec.convert(ROW, type=p.SignalRow)
    assert not row.trailing_price_stop_loss
    row.trailing_price_stop_loss = 97.5
    row.note = "tightened"
    assert builtins(row) == {**ROW, "_trailingPriceStopLoss": 97.5, "note": "tightened"}
    row.note = msgspec.UNSET
    assert "note" not in builtins(row)


@pytest.mark.parametrize("cls", [p.ExecutionContext, p.IntervalData])
@pytest.mark.parametrize(
    "when",
    [WHEN, WHEN.astimezone(timezone(timedelta(hours=2))), "2023-11-14T22:13:20.123Z", "2023-11-15T00:13:20.123+02:00"],
)
def test_dates_of_bson_and_of_json(cls, when):
    doc = {"id": "k", "data": 1, "removed": False, "symbol": "BTCUSDT", "backtest": True, "when": when}
    assert msgspec.convert(doc, type=cls).when == WHEN


@pytest.mark.parametrize("when", [WHEN.replace(tzinfo=None), "2023-11-14T22:13:20.123", MS, None])
def test_naive_dates_and_numbers_are_refused(when):
    with pytest.raises(msgspec.ValidationError, match=r"at `\$.when`"):
        msgspec.convert({**MEASURE, "when": when}, type=p.IntervalData)


def test_data_can_have_a_type():
    class Level(msgspec.Struct):
        level: int

    state = msgspec.convert(STATE, type=p.StateData[Level])
    assert state.data == Level(level=3)
    assert builtins(state) == STATE
    assert msgspec.convert({**STATE, "data": None}, type=p.SessionData[Level]).data is None
    with pytest.raises(msgspec.ValidationError, match=r"at `\$.data.level`"):
        msgspec.convert({**STATE, "data": {"level": "3"}}, type=p.StateData[Level])


def test_opaque_data_is_left_alone():
    data = {"float": 1700000000000.0, "int": 2**62, "null": None, "date": WHEN, "bytes": b"\x00", "deep": [{}, []]}
    row = msgspec.convert({**MEMORY, "data": data}, type=p.MemoryData)
    assert row.data is data
    assert type(row.data["float"]) is float


PRICES = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
TIMES = st.integers(-(2**53), 2**53)


@given(st.builds(dict, timestamp=TIMES, open=PRICES, high=PRICES, low=PRICES, close=PRICES, volume=PRICES))
def test_any_candle_round_trips(doc):
    assert builtins(msgspec.convert(doc, type=p.Candle)) == doc
    assert builtins(msgspec.convert(through_bson(doc), type=p.Candle)) == doc


OPTIONAL = [f.encode_name for f in msgspec.structs.fields(p.SignalRow) if not f.required]


@given(
    absent=st.sets(st.sampled_from(OPTIONAL)),
    null=st.sets(st.sampled_from(OPTIONAL)),
    note=st.text(),
    minutes=st.floats(min_value=0, allow_nan=False),
    entries=st.lists(st.fixed_dictionaries({"price": PRICES, "cost": PRICES, "timestamp": TIMES}), max_size=3),
)
def test_any_combination_of_optional_fields_round_trips(absent, null, note, minutes, entries):
    doc = {**ROW_FULL, "multiplier": 2, "isolated": True, "note": note, "minuteEstimatedTime": minutes, "_entry": entries}
    doc.update(dict.fromkeys(null))
    doc = {k: v for k, v in doc.items() if k not in absent}
    assert builtins(msgspec.convert(doc, type=p.SignalRow)) == doc


def test_every_struct_is_documented_public_and_sampled():
    assert p.__all__ == sorted(p.__all__)
    seen = {type(s) for shape, doc in SAMPLES.values() for s in structs_in(msgspec.convert(doc, type=shape))}
    for name in p.__all__:
        value = getattr(p, name)
        if not (isinstance(value, type) and issubclass(value, msgspec.Struct)):
            continue
        assert value.__doc__, name
        assert name in ("RecentData", value.__name__)
        assert value in seen or value.__struct_config__.tag == "base", name
        for f in msgspec.structs.fields(value):
            stem = f.encode_name.lstrip("_")
            assert stem.lower() == f.name.replace("_", ""), f"{name}.{f.name} is stored as {f.encode_name}"
