"""Batches of records in one call, cached strings, and dates: compared with the plain reference, with hostile input."""

import collections
import gc
import random
import struct
import threading
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import bson
import pytest
import reference
from bson import Decimal128, ObjectId
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_bson import (
    AWARE,
    BAD_UTF8,
    KEY,
    MUTATIONS,
    NAME,
    OF_PYMONGO,
    RECORDS,
    SCALARS,
    SEED,
    VALUES,
    Foreign,
    document,
    element,
    failing,
    mutated,
    nested,
    outcome,
    raw_element,
    read_one,
    refuse,
    same,
    steady,
    unwrap,
)
from test_bson import test_no_path_keeps_memory as keeps_no_memory

from backtest_kit_mongo._core import bson as core
from backtest_kit_mongo._core import writer

pytestmark = pytest.mark.once


class Row(NamedTuple):
    """A record as the stores define it."""

    key: tuple[Any, ...]
    body: Any
    when: int | None = None
    removed: bool = False


READER = core.RecordReader(KEY, "payload", Row)
IDS = [bytes([number]) * 12 for number in range(6)]


def raw_of(fields):
    return document(*[element(name, value) for name, value in fields.items()])


def rows_of(raws):
    """Read documents with the reference: (id, Row) each."""
    read = [reference.record(bson.decode(raw, AWARE), KEY, "payload") for raw in raws]
    return [(identity, Row(*record)) for identity, record in read]


def same_rows(left, right):
    return same(left, right) and all(type(row) is Row for _, row in left)


# ======================================================================================================================
# Batches
# ======================================================================================================================


@pytest.mark.slow
@settings(steady, max_examples=150)
@given(st.lists(RECORDS, max_size=5))
def test_a_batch_is_taken_apart_like_its_documents(contents):
    """``open_all`` returns, in order, what ``open`` returns for each document, as records of the requested class."""
    raws = [raw_of(fields) for fields in contents]
    try:
        expected = rows_of(raws)
    except bson.errors.InvalidBSON:
        expected = ValueError
    answer = read_one(READER.open_all, b"".join(raws))
    assert answer is expected if expected is ValueError else same_rows(answer, expected)
    assert same(answer, outcome(lambda: [READER.open(raw) for raw in raws]))


def matched(raw, wanted):
    """Return the records that ``match_ids`` finds, by id; ``wanted`` maps ids to keys."""
    records = [None] * len(wanted)
    count = READER.match_ids(raw, {identity: position for position, identity in enumerate(wanted)}, list(wanted.values()), records)
    assert count == len(records) - records.count(None)
    return {identity: row for identity, row in zip(wanted, records, strict=True) if row is not None}


@pytest.mark.slow
@settings(steady, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(IDS), st.tuples(VALUES, VALUES, VALUES)), max_size=6), st.data())
def test_records_are_found_by_their_ids(stored, data):
    """Only records with a requested id and the key requested for that id are returned."""
    raws = [raw_of({"_id": ObjectId(identity), **dict(zip(KEY, key, strict=True)), "payload": {"n": 1}}) for identity, key in stored]
    by_id = {}
    for identity, key in stored:
        other = data.draw(st.sampled_from([key, *(each for _, each in stored)]))
        if data.draw(st.booleans()) and not any(isinstance(field, (list, dict)) for field in other):  # hashable keys only
            by_id[identity] = other
    expected = {identity: row for identity, row in rows_of(raws) if identity in by_id and row.key == by_id[identity]}
    records = matched(b"".join(raws), by_id)
    assert records == expected
    assert all(type(row) is Row for row in records.values())


def test_a_batch_adds_to_what_was_found_before():
    """Several batches can fill one list; documents without an ObjectId, or without an id, match nothing."""
    first = {"_id": ObjectId(IDS[0]), "symbol": "a", "bucket": "b", "backtest": True, "payload": 1, "when": 5, "removed": True}
    foreign = [first | {"_id": IDS[1]}, {name: value for name, value in first.items() if name != "_id"}, first | {"_id": None}]
    records: list[Any] = ["kept", None, None]
    keys = [("old",), ("a", "b", True), ("a", "b", True)]
    batch = b"".join(map(raw_of, [first, *foreign]))
    assert READER.match_ids(batch, {IDS[0]: 1, IDS[1]: 2}, keys, records) == 1
    assert records == ["kept", Row(("a", "b", True), 1, 5, True), None]
    assert READER.match_ids(batch, {IDS[0]: 1, IDS[1]: 2}, keys, records) == 0  # already records
    assert READER.match_ids(b"", {}, keys, records) == 0
    with pytest.raises(IndexError):
        READER.match_ids(batch, {IDS[0]: 3}, keys, records)
    with pytest.raises(ValueError, match="keys and records must have the same length, got 2 and 3"):
        READER.match_ids(batch, {IDS[0]: 1}, keys[:2], records)
    assert READER.open_all(b"") == []


@pytest.mark.parametrize(("key", "error"), [("abc", TypeError), (["a", "b", True], TypeError), (("a",), ValueError), (None, None)])
def test_keys_that_are_none(key, error):
    """The key requested for an id must be a tuple of the right length; None matches nothing."""
    raw = raw_of({"_id": ObjectId(IDS[0]), "symbol": "a"})
    if error is None:
        assert matched(raw, {IDS[0]: key}) == {}
        return
    with pytest.raises(error):
        matched(raw, {IDS[0]: key})


BROKEN = {
    "a body": (raw_element(0x02, "payload", struct.pack("<i", 2) + b"\xff\0"), "_id " + IDS[1].hex() + ": 'utf-8' codec"),
    "a date": (raw_element(0x09, "payload", struct.pack("<q", 2**62)), "_id " + IDS[1].hex() + ": a date"),
    "a length": (raw_element(0x02, "payload", struct.pack("<i", 99) + b"x\0"), "_id " + IDS[1].hex() + ": BSON value reaches beyond"),
    "a type": (raw_element(0x42, "x"), "_id " + IDS[1].hex() + ": BSON type 0x42 is unknown"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_error_names_the_document(name):
    """The error names the id of the document, or its offset in the batch if it has none."""
    part, text = BROKEN[name]
    good = raw_of({"_id": ObjectId(IDS[0]), "symbol": "a", "bucket": "b", "backtest": True, "payload": 1})
    fields = [element("symbol", "a"), element("bucket", "b"), element("backtest", True), part]
    batch = good + document(element("_id", ObjectId(IDS[1])), *fields)
    expected = dict.fromkeys(IDS, ("a", "b", True))
    for call in (lambda: READER.open_all(batch), lambda: matched(batch, expected)):
        with pytest.raises(ValueError, match=f"^{text}"):
            call()
    with pytest.raises(ValueError, match=f"^at byte {len(good)} of a batch: {text.partition(': ')[2]}"):
        READER.open_all(good + document(*fields))
    with pytest.raises(ValueError, match=f"^at byte {len(good)} of a batch: BSON document reaches beyond its batch"):
        READER.open_all(good + good[:-1])


@pytest.mark.parametrize("record", [list, int, object, Row((), 1), "tuple", None])
def test_a_record_is_a_kind_of_tuple(record):
    """The record class must be a tuple: no other type could hold the four fields."""
    with pytest.raises(TypeError, match="record must be tuple or a subclass of it"):
        core.RecordReader(KEY, "payload", record)


@pytest.mark.parametrize("wrong", ["text", 5, None, [b"x"]])
def test_batches_are_bytes(wrong):
    """A batch must be bytes, the ids a dict and the found records a list."""
    for call in (
        lambda: READER.open_all(wrong),
        lambda: READER.match_ids(wrong, {}, [], []),
        lambda: READER.match_ids(b"", wrong, [], []),
        lambda: READER.match_ids(b"", {}, [], wrong if type(wrong) is not list else tuple(wrong)),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(TypeError):
        core.RecordReader.__new__(core.RecordReader).open_all(raw_of({"a": 1}))


def test_mutated_batches():
    """Damage anywhere is a ValueError, or leaves the records that each document yields on its own."""
    rng = random.Random(SEED + 2)
    rich = {"symbol": "BTCUSDT", "bucket": "ö", "backtest": True, "when": 1.5, "removed": False, "payload": {"a": [1, "x", {"b": None}]}}
    documents = [bson.encode({"_id": ObjectId(identity), **rich, "d": Decimal128("1.5")}) for identity in IDS[:3]]
    by_id = dict.fromkeys(IDS[:2], ("BTCUSDT", "ö", True))
    outcomes = collections.Counter()
    for _ in range(MUTATIONS // 4):
        batch = mutated(rng, b"".join(documents))
        answer = read_one(READER.open_all, batch)
        expected = outcome(lambda batch=batch: [READER.open(raw) for raw in core.split(batch)])
        assert same(answer, expected)
        outcomes[answer is ValueError] += 1
        ours = outcome(matched, batch, by_id)
        if ours is not ValueError and answer is not ValueError:
            assert ours == {identity: row for identity, row in answer if by_id.get(identity or b"") == row.key}
    assert min(outcomes[True], outcomes[False]) > MUTATIONS // 100


# ======================================================================================================================
# Cached strings
# ======================================================================================================================

ALPHABET = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)


@pytest.mark.slow
@settings(steady, max_examples=400)
@given(st.dictionaries(ALPHABET, ALPHABET, max_size=40))
@example({"a" * size: "b" * size for size in range(40)})
@example({"a" * 8 + middle + "b" * 8: middle for middle in ("", "x", "y", "xyz", "zyx", "xxxxxxxx", "yyyyyyyy", "é")})
@example({"é": "é", "éa": "aé", "\x7f": "\x7f", "\x80": "\x80"})
def test_remembered_texts_are_the_right_ones(texts):
    """Cached names and texts stay correct: lengths around the cached ones, equal at both ends, and read twice."""
    raw = bson.encode(texts)
    for _ in range(2):
        assert core.decode(raw) == texts


def test_more_texts_than_are_remembered():
    """Texts that evict one another are still decoded correctly, also from eight threads at once."""
    texts = [
        {f"{prefix}{number}": f"{number:0{width}}" for number in range(3000)} for prefix, width in (("k", 1), ("name-of-", 8), ("", 20))
    ]
    raws = [bson.encode(each) for each in texts]
    wrong = []

    def work():
        wrong.extend(1 for _ in range(5) for raw, each in zip(raws, texts, strict=True) if core.decode(raw) != each)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_is_no_utf8_is_not_remembered():
    """Invalid UTF-8 is rejected every time, as a name and as a value, even when a valid text of that length is cached."""
    for bad in (*[BAD_UTF8[4:-1]], b"\xff", b"a\xff", b"abcd\xc3", b"abcdefgh\xe2\x82", b"\x80" * 24):
        good = "a" * len(bad)
        core.decode(bson.encode({good: good}))
        for raw in (
            document(b"\x0a" + bad + b"\0"),
            document(raw_element(0x02, good, struct.pack("<i", len(bad) + 1) + bad + b"\0")),
        ):
            for _ in range(3):
                with pytest.raises(UnicodeDecodeError):
                    core.decode(raw)


# ======================================================================================================================
# Dates
# ======================================================================================================================

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = -62135596800000, 253402300799999


def date_of(milliseconds):
    return core.decode(document(raw_element(0x09, "a", struct.pack("<q", milliseconds))))["a"]


@settings(steady, max_examples=500)
@given(st.integers(FIRST, LAST))
@example(FIRST)
@example(LAST)
@example(-1)
@example(0)
@example(951782400000)
def test_dates_are_those_of_the_calendar(milliseconds):
    """A date is the instant that the standard library computes, in UTC itself."""
    moment = date_of(milliseconds)
    assert moment == EPOCH + timedelta(milliseconds=milliseconds)
    assert type(moment) is datetime
    assert (moment.tzinfo, moment.fold) == (UTC, 0)
    assert reference.milliseconds(moment) == milliseconds


def test_every_day_of_nine_centuries():
    """Check each day from 1600 to 2500, and the days around the end of February in every year up to 9999."""
    days = [*range(-135140, 193628)]
    days += [datetime(year, 3, 1, tzinfo=UTC).toordinal() - 719163 + shift for year in range(1, 10000) for shift in (-2, -1, 0)]
    raw = document(raw_element(0x04, "a", document(*[raw_element(0x09, "", struct.pack("<q", day * 86400000)) for day in days])))
    for day, moment in zip(days, core.decode(raw)["a"], strict=True):
        assert moment.toordinal() == day + 719163


@pytest.mark.parametrize("milliseconds", [FIRST - 1, LAST + 1, 2**63 - 1, -(2**63), 2**62])
def test_dates_outside_the_calendar(milliseconds):
    """A date that Python cannot represent is a ValueError that says so."""
    with pytest.raises(ValueError, match=f"a date {milliseconds} ms from 1970 is outside the years 1 to 9999"):
        date_of(milliseconds)


# ======================================================================================================================
# Writing many documents
# ======================================================================================================================


@pytest.mark.slow
@settings(steady, max_examples=200)
@given(st.lists(st.dictionaries(NAME, nested(SCALARS | OF_PYMONGO | st.builds(Foreign, SCALARS)), max_size=3), max_size=5))
@example([{}, {"a": "x" * 5000}, {}])
def test_documents_are_written_end_to_end(documents):
    """The bytes are those of the documents encoded one by one."""
    raw = writer.encode_many(documents, unwrap)
    alone = [writer.encode(each, unwrap) for each in documents]
    assert raw == b"".join(alone)


@pytest.mark.parametrize("position", [0, 1, 7])
@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        ({"q": {}, "u": {"$set": {"payload": [1, object()]}}}, TypeError, r"^u\.\$set\.payload\.1: a object cannot be stored$"),
        ({"q": {"a\0": 1}}, ValueError, "^q: key 'a.x00' holds a NUL character$"),
        ({"a": {"b": datetime(2024, 1, 1)}}, ValueError, r"^a\.b: .* is naive"),
        ({1: 2}, TypeError, "^document: keys must be str"),
        (5, TypeError, "^expected a dict, got int$"),
        (None, TypeError, "^expected a dict, got NoneType$"),
    ],
)
def test_the_error_has_the_position(position, wrong, kind, text):
    """The path begins inside the document, as for a single one; ``index`` says which document it is."""
    documents = [{"q": {"a": index}, "u": {"$set": {"payload": [1, 2]}}} for index in range(8)]
    documents[position] = wrong
    with pytest.raises(kind, match=text) as caught:
        writer.encode_many(documents, unwrap)
    assert caught.value.index == position  # type: ignore[attr-defined]


def test_a_list_that_changes_while_it_is_written():
    """If a fallback removes or adds documents, the result is still well-formed."""
    for change in (list.clear, lambda documents: documents.extend({"n": 1} for _ in range(50)) if len(documents) < 50 else None):
        documents = [{"a": Foreign(1)}, {"a": Foreign(2)}, {"b": 1}]

        def fallback(value, change=change, documents=documents):
            change(documents)
            gc.collect(0)
            return value.value

        assert core.split(writer.encode_many(documents, fallback))


@pytest.mark.parametrize("arguments", [(None, refuse), ({}, refuse), (({},), refuse), ([], None), ([],)])
def test_encode_many_takes_a_list_and_a_fallback(arguments):
    """Anything but a list and a fallback is a TypeError."""
    with pytest.raises(TypeError):
        writer.encode_many(*arguments)
    assert writer.encode_many([], refuse) == b""


# ======================================================================================================================
# Memory
# ======================================================================================================================

KEY_FIELDS = {"symbol": "a", "bucket": "ö", "backtest": True}
RAW = raw_of({"_id": ObjectId(IDS[0]), **KEY_FIELDS, "payload": [{"a": EPOCH}, "short", "x" * 50], "when": 5})
WANTED = {IDS[0]: ("a", "ö", True)}
PATHS = {
    "encode_many": lambda: writer.encode_many([{"a": EPOCH, "b": [Foreign(1), "x" * 600]}] * 3, unwrap),
    "encode_many, foreign type": failing(lambda: writer.encode_many([{"a": 1}, {"a": [{"b": object()}]}], unwrap), TypeError),
    "open_all": lambda: READER.open_all(RAW * 3),
    "match_ids": lambda: matched(RAW * 3, WANTED),
    "match_ids, another key": lambda: matched(RAW * 3, {IDS[0]: ("a", "ö", False)}),
    "open_all, malformed": failing(lambda: READER.open_all(RAW * 3 + RAW[:-1]), ValueError),
    "match_ids, key": failing(lambda: matched(RAW * 3, {IDS[0]: "abc"}), TypeError),
    "dates": failing(lambda: date_of(LAST + 1), ValueError),
}  # fmt: skip


@pytest.mark.parametrize("call", PATHS.values(), ids=list(PATHS))
def test_no_path_of_records_keeps_memory(call):
    """No path leaks memory, whether it succeeds or fails."""
    keeps_no_memory(call)
