"""The log as JSON lines, on real files: with other processes, kills, full disks and damaged lines."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import math
import os
import random
import signal
import subprocess
import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import bson
import numpy as np
import pytest
from prepared import Prepared

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import Record
from backtest_kit_mongo.stores.files import jsonl
from backtest_kit_mongo.stores.files.json_text import value_of
from backtest_kit_mongo.stores.files.jsonl import JsonlStore

pytestmark = pytest.mark.once

LOG = DOMAINS["log"]


def entry(name, **others):
    return Record((name,), {"id": name, "type": "info", **others})


def names(store, **how):
    return [record.key[0] for record in store.scan(LOG, (), **how)]


def path_of(folder):
    return folder / "log" / "log.jsonl"


@pytest.fixture
def store(tmp_path):
    return JsonlStore(tmp_path)


class Lines:
    """A logger that records messages."""

    def __init__(self):
        self.warnings = []

    def warning(self, message):
        self.warnings.append(message)

    debug = info = error = warning


@pytest.fixture
def warnings():
    logger = Lines()
    kit.set_logger(logger)
    yield logger.warnings
    kit.set_logger(None)


# --- entries ---


def test_entries_come_back_newest_first_and_after_a_restart(tmp_path, store):
    store.write(LOG, [entry("a", n=1), entry("b", n=2)])
    store.write(LOG, [entry("c", n=3)])
    for one in (store, JsonlStore(tmp_path)):
        assert [record.body["n"] for record in one.scan(LOG, ())] == [3, 2, 1]
        assert names(one, limit=2) == ["c", "b"]
        assert names(one, limit=0) == []
        assert names(one, bodies=False) == ["c", "b", "a"]
        assert [record.body["n"] for record in one.records(LOG)] == [1, 2, 3]
        assert one.read(LOG, [("b",), ("no",), ("b",)]) == [entry("b", n=2), None, entry("b", n=2)]
        assert [record.key for record in one.scan(LOG, ("b",))] == [("b",)]
        assert one.read(LOG, []) == []


def test_nothing_is_made_before_the_first_entry(tmp_path, store):
    assert names(store) == []
    assert list(store.records(LOG)) == []
    assert store.read(LOG, [("a",)]) == [None]
    store.write(LOG, [])
    assert list(tmp_path.iterdir()) == []
    store.wait_for_init(1)
    assert list((tmp_path / "log").iterdir()) == []


def test_the_first_entry_of_an_id_stays(tmp_path, store):
    store.write(LOG, [entry("a", n=1), entry("a", n=2), entry("", n=1)])
    store.write(LOG, [entry("a", n=3), entry("b", n=1)])
    JsonlStore(tmp_path).write(LOG, [entry("", n=4), entry("b", n=4), entry("c", n=1)])
    store.write(LOG, [entry("c", n=5), entry("", n=5)])
    assert path_of(tmp_path).read_text() == "".join(f'{{"id":"{name}","type":"info","n":1}}\n' for name in ("a", "", "b", "c"))


def test_a_line_is_what_json_gives(tmp_path, store):
    @dataclasses.dataclass
    class Row:
        id: str
        args: list
        executionContext: dict

    moment = datetime(2024, 1, 2, 3, 4, 5, 6789, tzinfo=timezone(timedelta(hours=2)))
    name = "ü\n\0\u2028"
    args = [moment, math.nan, -math.inf, b"\0\xff", Decimal("1.50"), np.float64(2.5), bson.Regex("a", "i")]
    store.write(LOG, [Record((name,), Row(name, args, {"when": moment}))])
    line = path_of(tmp_path).read_bytes()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "id": name,
        "args": [
            {"$date": "2024-01-02T01:04:05.006Z"},
            {"$numberDouble": "NaN"},
            {"$numberDouble": "-Infinity"},
            {"$binary": {"base64": "AP8=", "subType": "00"}},
            {"$numberDecimal": "1.50"},
            2.5,
            {"$regularExpression": {"pattern": "a", "options": "i"}},
        ],
        "executionContext": {"when": "2024-01-02T01:04:05.006Z"},
    }
    for reader in (store, JsonlStore(tmp_path)):
        body = next(reader.scan(LOG, ())).body
        stored = moment.astimezone(UTC).replace(microsecond=6000)
        assert math.isnan(body["args"].pop(1))
        assert body == {
            "id": name,
            "args": [stored, -math.inf, b"\0\xff", Decimal("1.50"), 2.5, bson.Regex("a", "i")],
            "executionContext": {"when": stored},
        }


def test_a_line_of_plain_values_is_as_before(tmp_path, store):
    """What looks like Extended JSON in it is what somebody stored."""
    moment = "2024-01-02T01:04:05.006Z"
    literal = {"$date": moment}
    store.write(LOG, [entry("a", args=[literal], executionContext={"when": datetime.fromisoformat(moment)})])
    line = b'{"id":"a","type":"info","args":[{"$date":"%b"}],"executionContext":{"when":"%b"}}\n' % (moment.encode(), moment.encode())
    assert path_of(tmp_path).read_bytes() == line
    assert next(store.scan(LOG, ())).body["args"] == [literal]


@pytest.mark.parametrize("cut", range(1, 60))
def test_a_line_with_types_that_was_cut_is_no_entry_of_other_types(tmp_path, store, cut):
    store.write(LOG, [entry("a", args=[Decimal("1.5")])])
    line = path_of(tmp_path).read_bytes()
    path_of(tmp_path).write_bytes(line[:-cut])
    store.write(LOG, [entry("b")])
    bodies = [record.body for record in JsonlStore(tmp_path).records(LOG)]
    assert bodies in ([entry("b").body], [entry("a", args=[Decimal("1.5")]).body, entry("b").body])


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"id": "b", "args": {1, 2}}, kit.InvalidTypeError),
        ({"id": "b", "args": object()}, kit.InvalidTypeError),
        ({"id": "b", "args": {1: 2}}, kit.InvalidTypeError),
        ({"id": "b", "args": 2**64}, kit.InvalidValueError),
        ({"id": "b", "args": "\ud800"}, kit.InvalidValueError),
        ({"id": "b", "args": datetime(2024, 1, 1)}, kit.InvalidValueError),
        ({"id": "b", "args": "x" * 2**24}, kit.InvalidValueError),
        ({"id": "b", "args": bson.DatetimeMS(2**60)}, kit.InvalidValueError),
        ({"id": "other"}, kit.InvalidValueError),
        ({}, kit.InvalidValueError),
        (["b"], kit.InvalidValueError),
        (None, kit.InvalidValueError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_what_cannot_be_stored_leaves_nothing_behind(tmp_path, store, body, error):
    with pytest.raises(error, match="'b'"):
        store.write(LOG, [entry("a"), Record(("b",), body)])
    assert list(tmp_path.iterdir()) == []
    store.write(LOG, [entry("a")])
    assert names(store) == ["a"]


def test_lines_of_other_programs_are_read(tmp_path, store):
    store.write(LOG, [entry("a")])
    with open(path_of(tmp_path), "ab") as file:
        file.write(b' {"n": 123456789012345678901, "id": "b", "half": "\\ud800"}\r\n\n{"id": "c", "id2": 1e999}\n')
    assert [record.body for record in store.scan(LOG, (), limit=2)] == [
        {"id": "c", "id2": math.inf},
        {"n": float(123456789012345678901), "id": "b", "half": "\ufffd"},
    ]
    store.write(LOG, [entry("b"), entry("d")])
    assert names(store) == ["d", "c", "b", "a"]


@pytest.mark.parametrize("text", [b"", b"[NaN]", b"{", b'"\xff"', b"[" * 100_000, b"[NaN," + b"[" * 100_000])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - each parser has its own words
        value_of(text)


@pytest.mark.parametrize("digits", [b"1" * 5000, b"-" + b"9" * 400, b"123456789012345678901"])
def test_integer_of_any_length_is_what_javascript_reads(digits):
    assert value_of(b'["\\ud800",' + digits + b"]") == ["\ufffd", float(digits)]
    assert value_of(digits) == float(digits)


def test_mark_of_the_byte_order_is_no_damage(tmp_path, store):
    store.write(LOG, [entry("a")])
    path = path_of(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert names(store) == ["a"]
    store.write(LOG, [entry("a"), entry("b")])
    assert names(store) == ["b", "a"]


def test_file_that_is_cut_in_place_and_grows_again_is_noticed(tmp_path, store):
    """Programs that rotate logs by copying do this."""
    other = JsonlStore(tmp_path)
    store.write(LOG, [entry("a"), entry("b")])
    with open(path_of(tmp_path), "r+b") as file:
        file.truncate()
    other.write(LOG, [entry(f"other{number}") for number in range(3)])
    store.write(LOG, [entry("a"), entry("b"), entry("c")])
    assert names(store) == ["c", "b", "a", "other2", "other1", "other0"]


def test_a_number_beyond_all_doubles_is_infinite():
    assert value_of(b"1" * 400) == math.inf


def test_only_the_log_is_taken(store):
    for act in (
        lambda: store.write(DOMAINS["signal"], [Record(("s", "t", "e"), {})]),
        lambda: store.read(DOMAINS["signal"], [("s", "t", "e")]),
        lambda: list(store.scan(DOMAINS["storage"], (True,))),
        lambda: list(store.records(DOMAINS["storage"])),
        lambda: store.remove(DOMAINS["memory"], [("s", "b", "m")]),
        lambda: store.read_candles("s", "1m", "e", 0, 1),
        lambda: store.write_candles("s", "1m", "e", np.empty(0)),
        store.candle_series,
        lambda: store.stored_candles(("e", "s", "1m")),
        lambda: store.read_at(LOG, [("a",)], 0),
        lambda: store.discard_versions(LOG, [("a",)], 0),
    ):
        with pytest.raises(kit.InvalidValueError, match="only the log can be stored as JSON lines"):
            act()
    with pytest.raises(kit.InvalidValueError, match="cannot be removed"):
        store.remove(LOG, [("a",)])
    store.remove(LOG, [])
    assert store.blocks is None
    assert store.hits is None
    store.close()
    store.close()


# --- damage ---


def test_a_torn_last_line_is_passed_over_wherever_it_ends(tmp_path, warnings):
    store = JsonlStore(tmp_path)
    store.write(LOG, [entry("a")])
    whole = path_of(tmp_path).stat().st_size
    store.write(LOG, [entry("b", text="ü")])
    content = path_of(tmp_path).read_bytes()
    for length in range(whole, len(content) + 1):
        path_of(tmp_path).write_bytes(content[:length])
        other = JsonlStore(tmp_path)
        # An entry that lacks only its line feed is whole; a torn one never is.
        there = ["b", "a"] if length >= len(content) - 1 else ["a"]
        assert names(other) == names(other, bodies=False) == there, length
        assert [record.key[0] for record in other.records(LOG)] == there[::-1]
        assert warnings == []
        other.write(LOG, [entry("b", text="ü"), entry("c")])
        assert names(other) == ["c", "b", "a"], length
        rest = path_of(tmp_path).read_bytes()
        assert rest.startswith(content[:length]), "nothing that was there is changed"
        assert rest.endswith(b"\n")
        torn = whole < length < len(content) - 1
        assert len(warnings) == torn
        warnings.clear()
        other.write(LOG, [entry("b"), entry("c")])
        assert path_of(tmp_path).read_bytes() == rest


def test_a_damaged_line_is_named_once(tmp_path, warnings):
    store = JsonlStore(tmp_path)
    store.write(LOG, [entry(f"e{number}", text="x" * 100) for number in range(3000)])
    lines = path_of(tmp_path).read_bytes().splitlines(keepends=True)
    lines[2500] = b"\0" * 50 + b"\n"
    lines[17] = b'{"id":5}\n'
    lines[20] = b'{"id":"e20","x":"\xff"}\n'
    path_of(tmp_path).write_bytes(b"".join(lines))
    for _ in range(2):
        names_read = names(store)
        assert len(names_read) == len(list(store.records(LOG))) == 2997
        assert not {"e2500", "e17", "e20"} & set(names_read)
        assert [warning.split(":")[0] for warning in warnings] == [f"{path_of(tmp_path)}, line {number}" for number in (2501, 21, 18)]
    JsonlStore(tmp_path).write(LOG, [entry("e2500"), entry("e20"), entry("e21")])
    assert names(store, limit=3) == ["e20", "e2500", "e2999"]


def test_a_file_that_is_no_log_does_not_fill_the_log(tmp_path, warnings):
    store = JsonlStore(tmp_path)
    store.write(LOG, [entry("a")])
    with open(path_of(tmp_path), "ab") as file:
        file.write(b"no\n" * 1000)
    assert names(store) == ["a"]
    assert len(warnings) == 20
    assert warnings[-1].endswith("further warnings about this file are suppressed")


def test_lines_longer_than_what_is_read_at_once(store):
    draw = random.Random(4)
    written = [entry(f"e{number}", text="ü" * draw.choice((1, 32_760, 65_536, 400_000))) for number in range(30)]
    store.write(LOG, written)
    assert list(store.records(LOG)) == written
    assert list(store.scan(LOG, ())) == written[::-1]


# --- rotation ---


def test_full_files_are_kept_under_growing_numbers(tmp_path):
    store = JsonlStore(tmp_path, rotate_bytes=1000)
    for number in range(200):
        store.write(LOG, [entry(f"e{number}", text="x" * 50)])
    files = sorted((tmp_path / "log").iterdir())
    assert len(files) > 12
    assert {file.name for file in files} == {"log.jsonl", *(f"log.{number}.jsonl" for number in range(1, len(files)))}
    assert all(file.stat().st_size <= 1000 for file in files)
    order = [f"e{number}" for number in range(200)]
    for one in (store, JsonlStore(tmp_path, 1000)):
        assert names(one) == order[::-1]
        assert [record.key[0] for record in one.records(LOG)] == order
        assert names(one, limit=30) == order[:-31:-1]
        assert one.read(LOG, [("e3",), ("e199",)]) == [entry("e3", text="x" * 50), entry("e199", text="x" * 50)]
        one.write(LOG, [entry(name) for name in order])  # ids in older files are known
    assert sorted((tmp_path / "log").iterdir()) == files
    big = [entry(f"b{number}", text="x" * 50) for number in range(100)]
    store.write(LOG, big)  # one write, even if it is larger than a file should be
    assert path_of(tmp_path).stat().st_size > 5000
    assert names(store)[:101] == [record.key[0] for record in big[::-1]] + ["e199"]


def test_a_log_whose_newest_file_is_gone_goes_on(tmp_path):
    store = JsonlStore(tmp_path, rotate_bytes=100)
    for number in range(5):
        store.write(LOG, [entry(f"e{number}", text="x" * 50)])
    path_of(tmp_path).rename(tmp_path / "log" / "log.5.jsonl")  # as if killed between the two steps of a rotation
    assert names(store) == [f"e{number}" for number in (4, 3, 2, 1, 0)]
    store.write(LOG, [entry("e4"), entry("e5")])
    assert names(store)[:2] == ["e5", "e4"]
    assert len(names(store)) == 6


def test_a_log_that_was_deleted_begins_anew(tmp_path, store):
    store.write(LOG, [entry("a")])
    path_of(tmp_path).unlink()
    store.write(LOG, [entry("a"), entry("b")])
    assert names(store) == ["b", "a"]
    path_of(tmp_path).write_bytes(b"")
    store.write(LOG, [entry("a")])
    assert names(store) == ["a"]


# --- costs ---


def test_ids_in_use_are_known_however_many_come_between(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "_REMEMBERED", 50)
    store = JsonlStore(tmp_path)
    window = [entry(f"mine{number}") for number in range(30)]
    for number in range(300):
        store.write(LOG, [entry(f"other{number}"), *window])
    assert len(names(store)) == 330
    content = path_of(tmp_path).read_bytes()
    assert content.count(b"mine") == 30
    store.write(LOG, [entry("other290")])
    assert path_of(tmp_path).read_bytes() == content
    ids = store._ids
    assert len(ids._newer) + len(ids._older) <= 100


def test_only_the_end_of_a_long_log_is_read(tmp_path, monkeypatch):
    (tmp_path / "log").mkdir()
    with open(path_of(tmp_path), "w") as file:
        for number in range(100_000):
            file.write(f'{{"id":"e{number}","type":"info","args":["some text of a usual length"]}}\n')
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: read.append(length) or pread(descriptor, length, offset))
    store = JsonlStore(tmp_path)
    assert names(store, limit=100) == [f"e{number}" for number in range(99_999, 99_899, -1)]
    assert sum(read) == 65_536
    read.clear()
    store.write(LOG, [entry("new")])
    assert sum(read) < 3 * 2**20 < path_of(tmp_path).stat().st_size
    read.clear()
    for number in range(10):
        store.write(LOG, [entry(f"more{number}"), entry("new"), entry("e90000")])
    assert names(store, limit=11) == [*(f"more{number}" for number in range(9, -1, -1)), "new"]
    assert 65_536 <= sum(read) <= 65_536 + 20 * 128  # and the tails that identify a file


# --- other writers ---


CHILD = """
import os, sys
from pathlib import Path
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import Record
from backtest_kit_mongo.stores.files.jsonl import JsonlStore

folder, task, rotate = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
LOG = DOMAINS["log"]
store = JsonlStore(folder, rotate)
def entry(name, **others):
    return Record((name,), {"id": name, **others})
def say(text):
    os.write(1, f"{text}\\n".encode())
if task == "shared":
    number = sys.argv[4]
    say("ready")
    sys.stdin.readline()
    for turn in range(200):
        store.write(LOG, [entry(f"{number}-{turn}", text="x" * 100), entry(f"both{turn}")])
    say("done")
elif task == "endless":
    turn = int(sys.argv[4])
    while True:
        store.write(LOG, [entry(f"{turn}-{index}", text="x" * 50_000, of=turn) for index in range(40)])
        say(turn)
        turn += 1
elif task == "limit":
    import resource, signal
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    store.write(LOG, [entry("a")])
    try:
        store.write(LOG, [entry("b", text="x" * 500), entry("c", text="x" * 500)])
    except OSError as error:
        say(f"{type(error).__name__} {error.errno} {error}")
    store.write(LOG, [entry("d")])
"""


def child(folder, *arguments):
    return Prepared("prepared:run_code", [CHILD, folder, *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("rotate", [2**26, 4000])
def test_two_processes_share_a_log(tmp_path, warnings, rotate):
    children = [child(tmp_path, "shared", rotate, number) for number in (1, 2)]
    for one in children:
        assert one.stdout.readline() == "ready\n"
    for one in children:
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in children:
        assert one.communicate()[0] == "done\n"
        assert one.returncode == 0
    content = b"".join(file.read_bytes() for file in (tmp_path / "log").iterdir())
    lines = [json.loads(line) for line in content.splitlines()]
    expected = {f"{number}-{turn}" for number in (1, 2) for turn in range(200)} | {f"both{turn}" for turn in range(200)}
    assert len(lines) == len(expected)
    names_read = [record.key[0] for record in JsonlStore(tmp_path).records(LOG)]
    assert len(names_read) == len(expected)
    assert set(names_read) == expected
    for number in (1, 2):  # each process's entries are in order
        own = [name for name in names_read if name.startswith(f"{number}-")]
        assert own == [f"{number}-{turn}" for turn in range(200)]
    assert warnings == []


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_write_loses_nothing(tmp_path, warnings):
    """Batches of 2 MB: some kills tear one, and each time everything acknowledged before is there."""
    draw = random.Random(7)
    turn = torn = 0
    acknowledged = []
    for _ in range(12):
        writer = child(tmp_path, "endless", 2**23, turn)
        acknowledged.append(int(writer.stdout.readline()))
        threading.Event().wait(draw.uniform(0, 0.03))
        writer.kill()
        acknowledged += [int(line) for line in writer.communicate()[0].splitlines()]
        assert writer.returncode == -signal.SIGKILL
        turn = acknowledged[-1] + 2  # the one after it may be there in part
        torn += not path_of(tmp_path).read_bytes().endswith(b"\n") if path_of(tmp_path).exists() else 0
    collected = {}
    for record in JsonlStore(tmp_path).records(LOG):
        assert record.body["text"] == "x" * 50_000
        collected.setdefault(record.body["of"], []).append(record.key[0])
    for number in acknowledged:
        assert collected[number] == [f"{number}-{index}" for index in range(40)]
    assert len(warnings) <= torn


def test_threads_share_a_store(tmp_path, store):
    def work(number):
        for turn in range(50):
            store.write(LOG, [entry(f"{number}-{turn}"), entry(f"all{turn}")])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(path_of(tmp_path).read_bytes().splitlines()) == len(set(names(store))) == 8 * 50 + 50


def test_a_forked_child_goes_on_while_the_parent_writes(tmp_path, store):
    store.write(LOG, [entry("before")])
    with store._open_locked():  # as if another thread were writing at this moment
        pid = os.fork()
        if pid == 0:
            os._exit(store._locked is not None or not store._lock.acquire(blocking=False))
        assert os.waitpid(pid, 0)[1] == 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jsonl, "LOCK_SECONDS", 0.05)
            with pytest.raises(kit.StorageError, match=r"another process has held its lock.*\n  hint: look for a stopped process"):
                JsonlStore(tmp_path).write(LOG, [entry("no")])
    pid = os.fork()
    if pid == 0:
        store.write(LOG, [entry("before"), entry("child")])
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    store.write(LOG, [entry("child"), entry("parent")])
    assert names(store) == ["parent", "child", "before"]


def test_a_lock_is_free_after_every_write(tmp_path, store):
    store.write(LOG, [entry("a")])
    with open(path_of(tmp_path)) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# --- files that cannot be written ---


def test_a_path_that_runs_through_a_file(tmp_path):
    (tmp_path / "dump").write_text("")
    for folder in (tmp_path / "dump", tmp_path / "dump" / "deeper"):
        store = JsonlStore(folder)
        for act in (lambda store=store: store.write(LOG, [entry("a")]), lambda store=store: store.wait_for_init(1)):
            with pytest.raises(kit.StorageError, match="a part of the path is a file"):
                act()


def test_a_folder_where_the_file_belongs(tmp_path, store):
    path_of(tmp_path).mkdir(parents=True)
    with pytest.raises(kit.StorageError, match=r"nothing was written: Is a directory .*log\.jsonl"):
        store.write(LOG, [entry("a")])
    with pytest.raises(kit.StorageError, match="cannot be read"):
        names(store)


def test_a_read_only_folder(public_folder):
    store = JsonlStore(public_folder)
    store.write(LOG, [entry("a")])
    size = path_of(public_folder).stat().st_size
    user = 65534 if os.geteuid() == 0 else os.geteuid()
    for path, mode in ((public_folder, 0o755), (path_of(public_folder), 0o444), (public_folder / "log", 0o555)):
        path.chmod(mode)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresuid(user, user, user)
            for act in (lambda: store.write(LOG, [entry("b")]), lambda: store.wait_for_init(1)):
                with pytest.raises(kit.StorageError, match="give this user permission to read and write there"):
                    act()
            assert names(store) == ["a"]
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    (public_folder / "log").chmod(0o755)
    path_of(public_folder).chmod(0o644)
    store.write(LOG, [entry("a"), entry("b")])
    assert names(store) == ["b", "a"]
    assert path_of(public_folder).stat().st_size > size


def test_a_short_write_leaves_the_file_as_it_was(tmp_path):
    writer = child(tmp_path, "limit", 2**20)
    said = writer.communicate()[0]
    assert writer.returncode == 0
    assert said.startswith(f"StorageError {errno.EFBIG} ")
    assert path_of(tmp_path).read_text() == '{"id":"a"}\n{"id":"d"}\n'


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of one's own needs root")
def test_a_full_disk(tmp_path):
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)], capture_output=True, text=True, check=False)
    if mount.returncode:
        pytest.skip(mount.stderr)
    try:
        store = JsonlStore(tmp_path)
        count = 0
        with pytest.raises(kit.StorageError, match="No space left on device") as error:  # noqa: PT012 - which write it is depends
            while True:
                store.write(LOG, [entry(f"{count}-{index}", text="x" * 500) for index in range(10)])
                count += 1
        assert error.value.errno == errno.ENOSPC
        assert "free some space" in str(error.value)
        assert count > 8
        order = [f"{turn}-{index}" for turn in range(count) for index in range(10)]
        assert path_of(tmp_path).read_bytes().count(b"\n") == len(order)
        assert names(store) == order[::-1]
        with pytest.raises(kit.StorageError, match="No space left"):
            store.write(LOG, [entry("more", text="x" * 20_000)])
        store.write(LOG, [entry("0-0")])
        assert names(JsonlStore(tmp_path)) == order[::-1]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_an_entry_that_does_not_reach_the_disk_is_not_acknowledged(tmp_path, store, monkeypatch):
    store.write(LOG, [entry("a")])

    def broken(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(kit.StorageError, match="Input/output error"):
            store.write(LOG, [entry("b")])
    assert names(store) == ["a"]
    store.write(LOG, [entry("b")])
    assert path_of(tmp_path).read_bytes().count(b"\n") == 2


def test_what_others_appended_is_on_the_disk_before_it_counts(tmp_path, store, monkeypatch):
    store.write(LOG, [entry("a")])
    with open(path_of(tmp_path), "ab") as file:
        file.write(b'{"id":"b"}\n')
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.path.realpath(f"/proc/self/fd/{descriptor}")) or fsync(descriptor))
    store.write(LOG, [entry("b")])
    assert synced == [str(path_of(tmp_path))]
    store.write(LOG, [entry("a"), entry("b")])
    assert len(synced) == 1
    store.drop_cache()
    store.write(LOG, [entry("a")])
    assert sorted(synced[1:]) == [str(Path(tmp_path, "log")), str(path_of(tmp_path))]


def test_a_folder_given_by_a_relative_path_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = JsonlStore(Path("dump"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    store.write(LOG, [entry("a")])
    assert path_of(tmp_path / "dump").exists()


def test_a_file_must_be_able_to_hold_something(tmp_path):
    with pytest.raises(kit.InvalidValueError, match="rotate_bytes"):
        JsonlStore(tmp_path, 0)
