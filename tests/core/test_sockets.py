"""Wire sockets of the compiled core on a socket pair: the peer sends whatever a test wants, with no server and no driver."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import struct
import threading
import time
from types import SimpleNamespace

import bson
import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from backtest_kit_mongo._core import hit_reader, op_msg, resp, wire_socket
from backtest_kit_mongo._core.bson import RecordReader

pytestmark = pytest.mark.once

KEY = ("BTCUSDT", "sma")
READER = RecordReader(("symbol", "strategyName"), "payload")
ID = b"0123456789ab"


def message(document: dict, answers: int = 1, *, kind: int = 0, flags: int = 0, opcode: int = 2013, extra: bytes = b"") -> bytes:
    """Encode an OP_MSG as the server sends it."""
    body = struct.pack("<iB", flags, kind) + bson.encode(document) + extra
    return struct.pack("<iiii", 16 + len(body), 77, answers, opcode) + body


def found(*documents: dict, cursor: int = 0) -> dict:
    return {"cursor": {"firstBatch": list(documents), "id": bson.Int64(cursor), "ns": "d.c"}, "ok": 1.0}


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.settimeout(1.0)
    with ours, theirs:
        yield ours, theirs


def mongo_link(ours: socket.socket, seconds: float = 60) -> op_msg.MongoSocket:
    return op_msg.MongoSocket((ours,), ours.fileno(), seconds, SimpleNamespace(_generation=1), 1)


def redis_link(ours: socket.socket, seconds: float = 60) -> resp.RedisSocket:
    return resp.RedisSocket((ours,), ours.fileno(), seconds)


# --- MongoDB ---


def test_find_one(pair):
    ours, theirs = pair
    connection = mongo_link(ours)
    row = {"_id": ObjectId(ID), "n": 1}
    theirs.sendall(message(found(row)))
    assert bson.decode(connection.find_one(b"head", b"123456789012", b"tail")) == row
    sent = theirs.recv(1000)
    assert sent == struct.pack("<iiii", 16 + 20, 1, 0, 2013) + b"head123456789012tail"
    theirs.sendall(message(found(), answers=2))
    assert connection.find_one(b"x", b"", b"") is None


def test_replies_come_in_the_order_of_the_messages(pair):
    ours, theirs = pair
    connection = mongo_link(ours)
    for part in (b"one", b"two", b"three"):
        connection.post(part)
    theirs.sendall(b"".join(message(found({"n": number}), answers=number) for number in (1, 2, 3)))
    for number in (1, 2, 3):
        documents, cursor = connection.find_documents()
        assert bson.decode_all(documents) == [{"n": number}]
        assert cursor == 0
    with pytest.raises(ValueError, match="no reply is due"):
        connection.reply()


def test_documents_stand_end_to_end(pair):
    ours, theirs = pair
    connection = mongo_link(ours)
    rows = [{"n": number, "text": "x" * number} for number in range(250)]
    connection.post(b"find")
    theirs.sendall(message(found(*rows, cursor=2**40)))
    documents, cursor = connection.find_documents()
    assert bson.decode_all(documents) == rows
    assert cursor == 2**40


@pytest.mark.parametrize(
    "reply",
    [
        message(found(), answers=2),  # to another request
        message(found(), opcode=2012),  # compressed
        message(found(), kind=1),
        message(found(), flags=2),  # more to come
        message(found(), extra=b"x"),
        message(found()) + b"x",  # more than one reply
        message(found()) + message(found()),
        struct.pack("<iiii", 20, 1, 1, 2013) + b"\0" * 4,  # too short
        struct.pack("<iiii", 2**31 - 1, 1, 1, 2013),
        struct.pack("<iiii", -5, 1, 1, 2013),
    ],
)
def test_what_is_no_reply_breaks_the_link(pair, reply):
    ours, theirs = pair
    connection = mongo_link(ours)
    theirs.sendall(reply)
    with pytest.raises(wire_socket.BrokenSocketError):
        connection.find_one(b"x", b"", b"")


def test_checksum_is_taken_off(pair):
    ours, theirs = pair
    connection = mongo_link(ours)
    theirs.sendall(message(found({"n": 1}), flags=1, extra=b"\1\2\3\4"))
    assert bson.decode(connection.find_one(b"x", b"", b"")) == {"n": 1}


@pytest.mark.parametrize(
    "reply",
    [{"ok": 0.0, "errmsg": "no", "code": 11000}, {}, {"ok": 1.0}, {"ok": 1.0, "cursor": {"id": bson.Int64(0)}},
     {"ok": 1.0, "cursor": {"firstBatch": []}}, {**found(), "writeConcernError": {"code": 64}}, {**found(), "writeErrors": []}],
)  # fmt: skip
def test_what_is_no_plain_success_is_unusual_and_in_step(pair, reply):
    ours, theirs = pair
    connection = mongo_link(ours)
    theirs.sendall(message(reply))
    with pytest.raises(wire_socket.UnexpectedReplyError):
        connection.find_one(b"x", b"", b"")
    theirs.sendall(message(found({"n": 2}), answers=2))
    assert bson.decode(connection.find_one(b"x", b"", b"")) == {"n": 2}


def test_silence_and_end(pair):
    ours, theirs = pair
    connection = mongo_link(ours, 0.3)
    with pytest.raises(wire_socket.SocketTimeoutError):
        connection.find_one(b"x", b"", b"")
    connection = mongo_link(ours, 0.3)
    theirs.recv(1000)
    theirs.sendall(message(found())[:30])
    with pytest.raises(wire_socket.SocketTimeoutError):
        connection.find_one(b"x", b"", b"")
    theirs.recv(1000)
    theirs.close()
    with pytest.raises(wire_socket.BrokenSocketError):
        mongo_link(ours, 0.3).find_one(b"x", b"", b"")


def test_peer_that_reads_nothing(pair):
    ours, _ = pair
    with pytest.raises(wire_socket.SocketTimeoutError):
        mongo_link(ours, 0.3).post(b"x" * 20_000_000)
    with pytest.raises(ValueError, match="exceeds MongoDB's limit"):
        mongo_link(ours, 0.3).post(b"x" * 48_100_000)


def test_long_messages_go_through_in_pieces(pair):
    ours, theirs = pair
    connection = mongo_link(ours, 5.0)
    got = bytearray()

    def read():
        while len(got) < 16 + 5_000_005:
            got.extend(theirs.recv(1 << 20))
        theirs.sendall(message({"ok": 1.0, "n": 3}))

    reader = threading.Thread(target=read)
    reader.start()
    assert bson.decode(connection.command(b"first", b"y" * 5_000_000)) == {"ok": 1.0, "n": 3}
    reader.join()
    assert got[16:] == b"first" + b"y" * 5_000_000


def test_peer_that_answers_at_length_before_it_reads(pair):
    """With two messages sent and a long reply to the first, the sender must read while it sends, or both sides block forever."""
    ours, theirs = pair
    connection = mongo_link(ours, 5.0)
    rows = [{"n": number, "text": "x" * 1000} for number in range(4000)]
    connection.post(b"first")

    def serve():
        theirs.sendall(message(found(*rows)))
        left = 16 + 5 + 16 + 4_000_000
        while left:
            left -= len(theirs.recv(1 << 20))
        theirs.sendall(message({"ok": 1.0}, answers=2))

    server = threading.Thread(target=serve)
    server.start()
    connection.post(b"y" * 4_000_000)
    documents, _ = connection.find_documents()
    assert bson.decode_all(documents) == rows
    assert bson.decode(connection.success()) == {"ok": 1.0}
    server.join()


@pytest.mark.parametrize("whole", [False, True])
def test_signals_do_not_renew_the_time_out(pair, whole):
    ours, _ = pair
    connection = op_msg.MongoSocket((ours,), ours.fileno(), 0.4, SimpleNamespace(_generation=1), 1, whole)
    signals = itertools.count(1)

    def handler(*_):
        assert next(signals) < 400, "the time-out begins anew with each signal"

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    started = time.monotonic()
    try:
        with pytest.raises(wire_socket.SocketTimeoutError):
            connection.find_one(b"x", b"", b"")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started > 0.35


@pytest.mark.parametrize("whole", [False, True])
def test_reply_that_drips(pair, whole):
    """A time-out per wait does not expire while bytes arrive; a time-out for the whole exchange does."""
    ours, theirs = pair
    connection = op_msg.MongoSocket((ours,), ours.fileno(), 1.5, SimpleNamespace(_generation=1), 1, whole)
    reply = message(found({"n": 1}))

    def drip():
        for start in range(0, len(reply), 4):
            time.sleep(0.1)
            theirs.sendall(reply[start : start + 4])

    assert len(reply) / 4 * 0.1 > 1.5

    server = threading.Thread(target=drip)
    server.start()
    if whole:
        with pytest.raises(wire_socket.SocketTimeoutError):
            connection.find_one(b"x", b"", b"")
    else:
        assert bson.decode(connection.find_one(b"x", b"", b"")) == {"n": 1}
    server.join()


def test_upserted(pair):
    ours, theirs = pair
    connection = mongo_link(ours)
    for number, (value, known, expected) in enumerate(
        [(ObjectId(ID), True, (ID, False)), (ObjectId(ID), False, (ID, True)), ("text", True, (None, False))], 1
    ):
        theirs.sendall(message({"lastErrorObject": {"n": 1, "updatedExisting": known}, "value": {"_id": value}, "ok": 1.0}, answers=number))
        assert connection.upserted(b"x") == expected
    theirs.sendall(message({"lastErrorObject": {"n": 1, "updatedExisting": True}, "value": None, "ok": 1.0}, answers=4))
    with pytest.raises(wire_socket.UnexpectedReplyError):
        connection.upserted(b"x")


def test_garbled_replies_never_harm(pair):
    """Seeded bit flips and cuts over all kinds of replies yield an answer or one of the socket errors, and never read out of bounds."""
    chance = random.Random(5)
    whole = [
        (message(found({"_id": ObjectId(ID), "symbol": "BTCUSDT", "strategyName": "sma", "payload": {"a": [1, 2.5, "x"]}})), "one"),
        (message(found({"n": 1}, {"n": 2})), "many"),
        (message({"lastErrorObject": {"n": 1, "updatedExisting": True}, "value": {"_id": ObjectId(ID)}, "ok": 1.0}), "upserted"),
    ]
    outcomes = set()
    for _ in range(3000):
        reply, kind = chance.choice(whole)
        garbled = bytearray(reply)
        for _ in range(chance.randint(1, 3)):
            garbled[chance.randrange(len(garbled))] ^= 1 << chance.randrange(8)
        if chance.random() < 0.1:
            del garbled[chance.randrange(len(garbled)) :]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            connection = mongo_link(ours, 0.002)
            theirs.sendall(garbled)
            try:
                if kind == "one":
                    document = connection.find_one(b"x", b"", b"")
                    with contextlib.suppress(ValueError):
                        READER.match(document or b"", KEY)
                elif kind == "many":
                    connection.post(b"x")
                    documents, _ = connection.find_documents()
                    with contextlib.suppress(ValueError):
                        READER.open_all(documents)
                else:
                    connection.upserted(b"x")
                outcomes.add("answer")
            except (wire_socket.BrokenSocketError, wire_socket.UnexpectedReplyError) as error:
                outcomes.add(type(error).__name__)
    assert outcomes == {"answer", "BrokenSocketError", "SocketTimeoutError", "UnexpectedReplyError"}


@given(st.lists(st.binary(min_size=12, max_size=12), max_size=1200))
def test_find_by_ids_is_what_pymongo_encodes(ids):
    head, tail = bson.encode({"find": "signal-items"})[4:-1], bson.encode({"batchSize": 7, "$db": "d"})[4:-1]
    expected = {"find": "signal-items", "filter": {"_id": {"$in": [ObjectId(value) for value in ids]}}, "batchSize": 7, "$db": "d"}
    assert op_msg.find_by_ids(head, ids, tail) == b"\0" * 5 + bson.encode(expected)


def test_find_by_ids_refuses_what_is_no_id():
    for wrong in (b"short", None, "x" * 12):
        with pytest.raises((ValueError, TypeError)):
            op_msg.find_by_ids(b"", [wrong], b"")


def test_upserted_ids():
    reply = {"ok": 1.0, "n": 3, "upserted": [{"index": 0, "_id": ObjectId(ID)}, {"index": 2, "_id": "text"}]}
    assert op_msg.upserted_ids(bson.encode(reply)) == {0: ID, 2: None}
    assert op_msg.upserted_ids(bson.encode({"ok": 1.0})) == {}
    for wrong in ({"upserted": 1}, {"upserted": [1]}, {"upserted": [{"index": 1}]}, {"upserted": [{"_id": 1}]}):
        with pytest.raises(ValueError, match="upserted"):
            op_msg.upserted_ids(bson.encode(wrong))
    raw = bson.encode(reply)
    chance = random.Random(7)
    for _ in range(3000):
        garbled = bytearray(raw)
        garbled[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(ValueError, OverflowError):
            op_msg.upserted_ids(bytes(garbled))


# --- Redis ---


@pytest.mark.parametrize(
    ("reply", "answer"),
    [(b"+OK\r\n", b"OK"), (b":12\r\n", 12), (b":-3\r\n", -3), (b"$-1\r\n", None), (b"$0\r\n\r\n", b""), (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
     (b"*-1\r\n", None), (b"*0\r\n", []), (b"*3\r\n$1\r\na\r\n$-1\r\n:7\r\n", [b"a", None, 7])],
)  # fmt: skip
def test_redis_replies(pair, reply, answer):
    ours, theirs = pair
    connection = redis_link(ours)
    for start in range(len(reply)):
        theirs.sendall(reply[:start])
        timer = threading.Timer(0.002, theirs.sendall, (reply[start:],))
        timer.start()
        assert connection.call(b"X") == answer
        timer.join()


@pytest.mark.parametrize(
    "reply",
    [b"\r\n", b"x\r\n", b"?1\r\n", b"$x\r\n", b"$-2\r\n", b"$99999999999\r\n", b"$3\r\nabcde\r\n",
     b"*2\r\n$1\r\na\r\n-ERR\r\n", b"*1\r\n*1\r\n:1\r\n",
     b"*99999999\r\n", b"+OK\n", b"+OK\r\n+OK\r\n", b":\r\n", b":1234567890123456789012\r\n", b"+" + b"x" * 70_000],
)  # fmt: skip
def test_what_is_no_redis_reply_breaks_the_link(pair, reply):
    ours, theirs = pair
    connection = redis_link(ours)
    theirs.sendall(reply)
    with pytest.raises(wire_socket.BrokenSocketError):
        connection.call(b"X")


def test_posted_commands_are_settled_by_the_next_call(pair):
    ours, theirs = pair
    connection = redis_link(ours)
    connection.post(b"SET 1;")
    connection.post(b"SET 2;")
    theirs.sendall(b"+OK\r\n-OOM command not allowed\r\n$2\r\nhi\r\n")
    assert connection.call(b"GET;") == b"hi"
    assert theirs.recv(100) == b"SET 1;SET 2;GET;"
    assert "OOM" in str(connection.take_posted_error())
    assert connection.take_posted_error() is None
    theirs.sendall(b"-WRONGTYPE x\r\n")
    with pytest.raises(wire_socket.UnexpectedReplyError, match="WRONGTYPE"):
        connection.call(b"GET;")
    theirs.sendall(b":1\r\n")
    assert connection.call(b"DEL;") == 1


def test_many_posted_commands_do_not_pile_up(pair):
    """After 64 unread replies the next post reads them, so no socket buffer fills up."""
    ours, theirs = pair
    connection = redis_link(ours, 1.0)
    theirs.sendall(b"+OK\r\n" * 64)
    for _ in range(65):
        connection.post(b"S;")
    with pytest.raises(wire_socket.SocketTimeoutError):
        connection.read_posted()


# --- hits ---


@given(
    st.one_of(
        st.binary(max_size=30), st.text(max_size=30), st.none(), st.binary(min_size=12, max_size=12).map(lambda raw: raw.hex().encode())
    )
)
def test_parse_id(value):
    expected = None
    if isinstance(value, bytes) and len(value) == 24 and all(byte in b"0123456789abcdefABCDEF" for byte in value):
        expected = bytes.fromhex(value.decode())
    assert hit_reader.parse_id(value) == expected


LIFETIME = ("minuteEstimatedTime", "createdSignal")


def test_bodies():
    inf = float("inf")
    row = {"minuteEstimatedTime": None}
    records = [None, ((), {"a": 1}, 1, False), ((), {"a": 1}, 1, True), ((), None, 1, False), ((), dict(row), 1, False)]
    assert hit_reader.bodies(records, list, None) == [[], {"a": 1}, [], [], row]
    assert hit_reader.bodies(records, lambda: None, LIFETIME) == [None, {"a": 1}, None, None, {"minuteEstimatedTime": inf}]
    nested = {"x": dict(row), "createdSignal": dict(row), "y": [dict(row)]}
    hit_reader.restore_infinity(nested, *LIFETIME)
    assert nested == {"x": {"minuteEstimatedTime": inf}, "createdSignal": row, "y": [row]}
    pairs = [["k", dict(row)], ["short"], "text", ["k", 5]]
    hit_reader.restore_infinity(pairs, *LIFETIME)
    assert pairs == [["k", {"minuteEstimatedTime": inf}], ["short"], "text", ["k", 5]]
