"""Faults of files: a full disk, missing rights, deleted folders, killed and racing processes, and invalid content."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from file_helpers import START, TRIPLE, all_keys, candles, files_in, get, in_child, keys, plant, put

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.stores.base import History, Record
from backtest_kit_mongo.stores.files import store as files
from backtest_kit_mongo.stores.files.store import FileStore

pytestmark = pytest.mark.once

STATE = DOMAINS["state"]
KEY = ("s", "b")


@pytest.fixture
def small_disk(tmp_path):
    """A separate file system of 64 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=100", "tmpfs", folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


# --- no room, no rights ----------------------------------------------------------------------------------------------


def test_full_disk_is_a_clear_error_and_nothing_is_lost(small_disk):
    """A failed write leaves nothing behind, and once there is space the store works again."""
    store = FileStore(small_disk / "dump", History(frozenset({"state"})))
    kept = 0

    def fill():
        nonlocal kept
        for kept in range(1000):
            put(store, "state", ("s", f"b{kept}"), {"text": "x" * 3000}, kept)

    with pytest.raises(kit.StorageError, match=r"state: 's', 'b\d+' cannot be written: No space left.*\n  hint: free some space") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.startswith(str(small_disk))
    assert isinstance(caught.value.__cause__, OSError)
    assert kept > 3
    with pytest.raises(kit.StorageError, match="No space left"):
        put(store, "state", ("s", "b0"), {"text": "y" * 60_000}, 5)
    with pytest.raises(kit.StorageError, match=r"state: 50 records cannot be written: No space left"):
        store.write(STATE, [Record(("t", f"b{number}"), {"text": "x" * 3000}, 1) for number in range(50)])
    with pytest.raises(kit.StorageError, match=r"candles of binance BTC 1m cannot be written: No space left"):
        store.write_candles("BTC", "1m", "binance", candles(100))
    assert not [path for path in files_in(small_disk) if ".tmp-" in path]
    for number in range(kept):
        assert get(store, "state", ("s", f"b{number}")) == Record(("s", f"b{number}"), {"text": "x" * 3000}, number)
    shutil.rmtree(small_disk / "dump/state/s/b1")
    put(store, "state", ("s", "b0"), {"text": "new"}, 100)
    assert get(store, "state", ("s", "b0")).body == {"text": "new"}


def test_file_that_must_not_grow_so_far(store):
    """This is a full disk for machines where no file system can be mounted."""
    put(store, "state", KEY, {"n": 1})

    def work():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        put(store, "state", KEY, {"n": "x" * 5000})

    assert in_child(work).startswith("StorageError: state: 's', 'b' cannot be written: File too large")
    assert get(store, "state", KEY).body == {"n": 1}
    assert files_in(store.folder) == ["state/s/b/b.json"]


def test_read_only_folder_can_be_read(small_disk, warnings):
    folder = small_disk / "dump"
    put(FileStore(folder), "partial", (*TRIPLE, "i"), {"n": 1})
    FileStore(folder).write_candles("BTC", "1m", "binance", candles(3))
    plant(folder, "state/s/bad/bad.json", b"{")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = FileStore(folder)
    assert get(store, "partial", (*TRIPLE, "i")).body == {"n": 1}
    assert all_keys(store, "partial") == [(*TRIPLE, "i")]
    assert len(store.read_candles("BTC", "1m", "binance", START, 3)) == 3
    assert get(store, "state", ("s", "bad")) is None
    assert "could not be moved aside" in warnings[0][1]
    for attempt in (
        lambda: put(store, "partial", (*TRIPLE, "i"), {"n": 2}),
        lambda: put(store, "state", KEY, {}),
        lambda: store.write_candles("BTC", "1m", "binance", candles(5)),
    ):
        with pytest.raises(
            kit.StorageError, match=r"cannot be written: Read-only file system.*\n  hint: .*choose another folder"
        ) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS
    with pytest.raises(kit.StorageError, match=r"^the folder .*dump cannot be used: Read-only"):
        store.wait_for_init(1)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_rights_that_are_missing(public_folder):
    """Missing rights are not corruption: the file stays in its path, and the error names it."""
    store = FileStore(public_folder / "dump")
    put(store, "state", KEY, {"n": 1})
    (public_folder / "dump/state/s/b/b.json").chmod(0o600)

    def as_nobody(work):
        def run():
            os.setresuid(65534, 65534, 65534)
            work()

        return in_child(run)

    assert as_nobody(lambda: get(store, "state", KEY)).startswith("StorageError: state: 's', 'b' cannot be read: Permission denied")
    assert "b.json" in as_nobody(lambda: all_keys(store, "state"))
    assert "Permission denied" in as_nobody(lambda: put(FileStore(public_folder / "dump"), "state", KEY, {}))
    assert "cannot be used: Permission denied" in as_nobody(lambda: store.wait_for_init(1))
    assert get(store, "state", KEY).body == {"n": 1}


@pytest.mark.parametrize("part", ["", "state", "state/s", "state/s/b"])
def test_file_where_a_folder_belongs(store, folder, part):
    target = folder / part
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"precious")
    attempts = [lambda: put(store, "state", KEY, {}), lambda: get(store, "state", KEY)]
    if not part.startswith("state/"):  # next to folders of records there may be files of other people
        attempts.append(lambda: all_keys(store, "state"))
    if not part:
        attempts.append(lambda: store.wait_for_init(1))
    for attempt in attempts:
        with pytest.raises(kit.StorageError, match="Not a directory") as caught:
            attempt()
        assert "is a file" in str(caught.value)
    assert target.read_bytes() == b"precious"


def test_folder_where_a_file_belongs(store, folder):
    (folder / "state/s/b/b.json").mkdir(parents=True)
    for attempt in (lambda: put(store, "state", KEY, {}), lambda: get(store, "state", KEY)):
        with pytest.raises(kit.StorageError, match="Is a directory") as caught:
            attempt()
        assert caught.value.errno == errno.EISDIR
    assert files_in(folder) == []


def test_path_that_is_too_long(tmp_path):
    store = FileStore(tmp_path.joinpath(*["x" * 200] * 19))
    for attempt in (
        lambda: put(store, "memory", ("a" * 150, "b" * 150, "m"), {}),
        lambda: get(store, "memory", ("a" * 150, "b" * 150, "m")),
    ):
        with pytest.raises(kit.StorageError, match="File name too long") as caught:
            attempt()
        assert caught.value.errno == errno.ENAMETOOLONG


def test_folder_on_another_file_system(store, folder, small_disk):
    """This includes a folder in the middle of the path, by a symbolic link."""
    (folder / "state").mkdir(parents=True)
    (folder / "state/s").symlink_to(small_disk)
    for number in range(3):
        put(store, "state", KEY, {"n": number})
    assert get(store, "state", KEY).body == {"n": 2}
    assert all_keys(store, "state") == [KEY]
    assert files_in(small_disk) == ["b/b.json"]


def test_deleted_folders_are_made_again(store, folder):
    store.wait_for_init(1)
    first, second = ("a_b", "c", "e"), ("a", "b_c", "e")
    for key in (first, second):
        put(store, "strategy", key, {"n": 1})
    put(store, "state", ("x" * 300, "b"), {"n": 1})
    store.write_candles("BTC", "1m", "binance", candles(3))
    shutil.rmtree(folder)
    assert get(store, "strategy", first) is None
    assert store.read_candles("BTC", "1m", "binance", START, 1) is None
    assert all_keys(store, "strategy") == []
    assert store.write_candles("BTC", "1m", "binance", candles(2)) == 2
    put(store, "strategy", second, {"n": 2})
    put(store, "strategy", first, {"n": 3})
    put(store, "state", ("x" * 300, "b"), {"n": 4})
    fresh = FileStore(folder)
    assert [get(fresh, "strategy", key).body["n"] for key in (first, second)] == [3, 2]
    assert sorted(all_keys(fresh, "strategy")) == sorted([first, second])
    assert all_keys(fresh, "state") == [("x" * 300, "b")]


# --- invalid content -------------------------------------------------------------------------------------------------

CORRUPT = [
    b"",
    b"{",
    b'{"a":1}{',
    b"\xff\xfe",
    b"\0" * 100,
    b"[1]",
    b"5",
    b'"text"',
    b'{"a":NaN}',
    b"\xef\xbb\xbf",
    b'{"a":' * 5000,
    b"[" * 10**6,
]


@pytest.mark.parametrize("content", CORRUPT, ids=lambda content: repr(content[:10]))
def test_corrupt_record_is_set_aside_and_the_rest_still_loads(store, folder, warnings, content):
    for name in ("a", "b", "c"):
        put(store, "memory", ("s", "n", name), {"is": name})
    path = plant(folder, "memory/s/n/b.json", content)
    assert keys(store, "memory", ("s", "n")) == [("s", "n", "a"), ("s", "n", "c")]
    assert get(store, "memory", ("s", "n", "b")) is None
    aside = folder / "memory/s/n/b.json.corrupt-1"
    assert aside.read_bytes() == content
    assert [(level, str(path) in line and str(aside) in line) for level, line in warnings] == [("warning", True)]
    plant(folder, "memory/s/n/b.json", b"second")
    store.remove(DOMAINS["memory"], [("s", "n", "b")])
    assert [path.read_bytes() for path in sorted((folder / "memory/s/n").glob("*.corrupt-*"))] == [content, b"second"]
    put(store, "memory", ("s", "n", "b"), {"is": "new"})
    assert get(store, "memory", ("s", "n", "b")).body == {"is": "new"}


def test_positions_must_be_a_list_and_rows_must_not(store, folder, warnings):
    plant(folder, "data/risk/main_binance/positions.json", {})
    plant(folder, "data/storage/live/a.json", [])
    plant(folder, "data/storage/live/b.json", {"id": "b"})
    assert get(store, "risk", ("main", "binance")) is None
    assert keys(store, "storage", (False,)) == [(False, "b")]
    assert len(warnings) == 2


NOTES = [
    b"{", b"[]", b'{"symbol":"BTCUSDT"}', b'{"symbol":"BTCUSDT","strategyName":5,"exchangeName":"x"}',
    b'{"symbol":"x","strategyName":"y","exchangeName":"z"}',
]  # fmt: skip


@pytest.mark.parametrize("note", NOTES)
def test_damaged_note_of_a_folder_is_set_aside(store, folder, warnings, note):
    key = ("BTCUSDT", "a_b", "x")
    put(store, "strategy", key, {"n": 1})
    (folder / "data/strategy/BTCUSDT_a_b_x/.key").write_bytes(note)
    fresh = FileStore(folder)
    assert get(fresh, "strategy", key).body == {"n": 1}
    assert all_keys(fresh, "strategy") == [key]
    put(fresh, "strategy", key, {"n": 2})
    assert len(warnings) == 1
    assert json.loads((folder / "data/strategy/BTCUSDT_a_b_x/.key").read_bytes())["strategyName"] == "a_b"
    assert [path.read_bytes() for path in (folder / "data/strategy/BTCUSDT_a_b_x").glob(".key.corrupt-*")] == [note]


@pytest.mark.parametrize("note", [None, *NOTES])
def test_spare_folder_is_known_without_its_note(store, folder, note):
    first, second = ("a_b", "c", "e"), ("a", "b_c", "e")
    put(store, "strategy", first, {"n": 1})
    put(store, "strategy", second, {"n": 2})
    (path,) = (folder / "data/strategy").glob("*%-*/.key")
    path.unlink() if note is None else path.write_bytes(note)
    fresh = FileStore(folder)
    assert {record.key: record.body["n"] for record in fresh.records(DOMAINS["strategy"])} == {first: 1, second: 2}
    assert get(fresh, "strategy", second).body == {"n": 2}


def test_renamed_folder_is_that_of_its_new_name(store, folder, warnings):
    """This is as in the TypeScript package, where folders have no note. The note and the marks of an ambiguous name no longer count."""
    put(store, "strategy", TRIPLE, {"n": 1})
    put(store, "strategy", ("BTCUSDT", "a_b", "binance"), {"n": 2})
    for old, new in (("sma", "ema"), ("a_b", "c_d")):
        (folder / f"data/strategy/BTCUSDT_{old}_binance").rename(folder / f"data/strategy/BTCUSDT_{new}_binance")
    fresh = FileStore(folder)
    assert get(fresh, "strategy", ("BTCUSDT", "ema", "binance")).body == {"n": 1}
    assert get(fresh, "strategy", TRIPLE) is None
    assert get(fresh, "strategy", ("BTCUSDT", "c_d", "binance")).body == {"n": 2}
    assert get(fresh, "strategy", ("BTCUSDT", "a_b", "binance")) is None
    assert all_keys(fresh, "strategy") == [("BTCUSDT", "c_d", "binance"), ("BTCUSDT", "ema", "binance")]
    assert len(warnings) == 1


def test_lost_note_of_a_long_name_is_said(store, folder, warnings):
    put(store, "measure", ("b", "k" * 300), {"removed": False})
    put(store, "measure", ("b", "k"), {"removed": False})
    next((folder / "data/measure/b").glob(".name-*")).unlink()
    assert keys(store, "measure", ("b",)) == [("b", "k")]
    assert ".name-" in warnings[0][1]
    assert get(store, "measure", ("b", "k" * 300)) is not None


def test_good_record_that_replaces_a_corrupt_one_meanwhile_is_not_set_aside(store, folder, warnings, monkeypatch):
    path = plant(folder, "state/s/b/b.json", b"{")
    real = os.rename

    def late(source, target, **options):
        monkeypatch.setattr(os, "rename", real)
        put(FileStore(folder), "state", KEY, {"n": "good"})
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", late)
    assert get(store, "state", KEY).body == {"n": "good"}
    assert json.loads(path.read_bytes()) == {"n": "good"}


def test_good_record_that_gets_the_number_of_the_corrupt_file_is_not_set_aside(store, folder, warnings, monkeypatch):
    """File systems reuse the inode numbers of deleted files, usually at once."""
    path = plant(folder, "state/s/b/b.json", b"{")
    number, other = path.stat().st_ino, FileStore(folder)
    real = files.set_aside

    def late(*arguments):
        for round in range(100):
            put(other, "state", KEY, {"n": round})
            if path.stat().st_ino == number:
                break
        return real(*arguments)

    monkeypatch.setattr(files, "set_aside", late)
    newest = get(store, "state", KEY).body
    assert json.loads(path.read_bytes()) == newest == get(other, "state", KEY).body
    assert warnings == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]"])
def test_entry_on_top_of_a_corrupt_file_is_stored(store, folder, warnings, content):
    """Where stored records never change, an existing file is left alone unless it holds no valid record."""
    put(store, "log", ("a",), {"id": "a", "n": 1})
    plant(folder, "data/log/log/b.json", content)
    put(store, "log", ("b",), {"id": "b"})
    put(store, "log", ("a",), {"id": "a", "n": 2})
    assert get(store, "log", ("b",)).body == {"id": "b"}
    assert get(store, "log", ("a",)).body["n"] == 1
    assert (folder / "data/log/log/b.json.corrupt-1").read_bytes() == content


def test_body_that_could_not_be_read_again_is_refused(store, folder):
    with pytest.raises(kit.InvalidTypeError, match="a list is not a valid state body"):
        put(store, "state", KEY, [1])
    with pytest.raises(kit.InvalidTypeError, match="a dict is not a valid risk body"):
        put(store, "risk", ("r", "e"), {})
    assert not folder.exists()


def fifo(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path.name)


def nowhere(path):
    path.symlink_to("not there")


@pytest.mark.parametrize("make", [Path.mkdir, fifo, loop, nowhere])
@pytest.mark.parametrize("name", ["state", "memory", "log", "candle"])
def test_what_is_no_file_is_said_and_does_not_break_a_list(store, folder, warnings, make, name):
    domain = DOMAINS[name]
    if name == "candle":
        store.write_candles("B", "1m", "e", candles(3))
        path = folder / f"data/candle/e/B/1m/{START + 3 * 60_000}.json"
    else:
        key = ("s", "n", "a")[: len(domain.key)]
        put(store, name, key, {"id": "s"})
        path = next(folder.rglob("*.json")).with_name("z.json")
    make(path)
    if name == "candle":
        assert sum(map(len, store.stored_candles(("e", "B", "1m")))) == 3
        if make is nowhere:
            assert store.read_candles("B", "1m", "e", START, 4) is None
        else:
            with pytest.raises(kit.StorageError, match="move it away"):
                store.read_candles("B", "1m", "e", START, 4)
        with pytest.raises(kit.StorageError, match="move it away"):
            store.write_candles("B", "1m", "e", candles(4))
    elif name == "state":
        assert all_keys(store, name) == [key]
    else:
        assert all_keys(store, name) == keys(store, name) == [key]
        with pytest.raises(kit.StorageError, match="move it away"):
            get(store, name, (*key[:-1], "z"))
    if name != "state" and (name, make) != ("candle", nowhere):
        assert any(str(path) in line for _, line in warnings)


def test_name_that_is_no_utf8_does_not_break_a_list(store, folder, warnings):
    put(store, "memory", ("s", "n", "a"), {"n": 1})
    (folder / os.fsdecode(b"memory/s/n/\xff.json")).write_bytes(b"{}")
    (folder / os.fsdecode(b"memory/\xfe/n")).mkdir(parents=True)
    assert all_keys(store, "memory") == keys(store, "memory", ("s", "n")) == [("s", "n", "a")]
    assert any("not UTF-8" in line for _, line in warnings)


# --- temporary files -------------------------------------------------------------------------------------------------


def test_old_temporaries_are_swept_and_young_ones_stay(store, folder):
    old = plant(folder, "state/s/b/.tmp-0123456789ab-b.json", b"half")
    young = plant(folder, "state/s/b/.tmp-ba9876543210-b.json", b"hal")
    os.utime(old, (time.time() - 130,) * 2)
    os.utime(young, (time.time() - 100,) * 2)
    plant(folder, "state/s/b/b.json", {"n": 1})
    assert all_keys(store, "state") == [KEY]
    put(store, "state", KEY, {"n": 2})
    assert not old.exists()
    assert young.read_bytes() == b"hal"
    assert all_keys(store, "state") == [KEY]


def test_temporaries_have_the_names_of_the_original(store, folder, monkeypatch):
    put(store, "state", KEY, {})
    seen = []
    real = os.fsync

    def watch(descriptor):
        seen.extend(path.name for path in (folder / "state/s/b").iterdir())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    put(store, "state", KEY, {"n": 1})
    assert len([name for name in seen if len(name) == len(".tmp-0123456789ab-b.json") and name.startswith(".tmp-")]) == 1


def test_each_content_is_on_the_disk_before_its_name_and_each_folder_once(store, folder, monkeypatch):
    store.write(STATE, [Record(("s", f"b{number}"), {}) for number in range(3)])
    steps = []
    sync, rename = os.fsync, os.rename
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name), sync(fd)))
    monkeypatch.setattr(os, "rename", lambda *names: (steps.append("rename"), rename(*names)))
    store.write(DOMAINS["memory"], [Record(("s", "n", name), {}) for name in "abc"])
    steps.clear()
    store.write(DOMAINS["memory"], [Record(("s", "n", name), {"n": 1}) for name in "abc"])
    assert [step if step in ("rename", "n") else step[:5] for step in steps] == [".tmp-"] * 3 + ["rename"] * 3 + ["n"]


def test_what_need_not_be_on_the_disk_waits_for_no_disk(folder, monkeypatch):
    """Neither contents nor new folders are synced, and an unchanged record is not written again."""
    store = FileStore(folder, durable=False)
    syncs = []
    monkeypatch.setattr(os, "fsync", syncs.append)
    file = folder / "state/s/b/b.json"
    put(store, "state", KEY, {"n": 1})
    first = file.stat()
    put(store, "state", KEY, {"n": 1})
    assert file.stat() == first
    put(store, "state", KEY, {"n": 2})
    assert file.stat().st_ino != first.st_ino
    assert store.read(STATE, [KEY])[0].body == {"n": 2}
    assert syncs == []


def test_what_has_to_be_on_the_disk_is_written_again(store, folder):
    """An unchanged record is written again, since it may never have reached the disk."""
    file = folder / "state/s/b/b.json"
    put(store, "state", KEY, {"n": 1})
    first = file.stat()
    put(store, "state", KEY, {"n": 1})
    assert file.stat().st_ino != first.st_ino


def test_error_in_the_middle_of_a_batch_leaves_no_temporary(store, folder, monkeypatch):
    for name in "abc":
        put(store, "memory", ("s", "n", name), {"n": 0})
    rename, done = os.rename, []

    def broken(source, target):
        if len(done) == 1:
            raise OSError(errno.EIO, "Input/output error", source, None, target)
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(kit.StorageError, match="Input/output error") as caught:
        store.write(DOMAINS["memory"], [Record(("s", "n", name), {"n": 1}) for name in "abc"])
    assert caught.value.errno == errno.EIO
    assert [record.body["n"] for record in store.scan(DOMAINS["memory"], ("s", "n"))] == [1, 0, 0]
    assert files_in(folder) == ["memory/s/n/a.json", "memory/s/n/b.json", "memory/s/n/c.json"]
