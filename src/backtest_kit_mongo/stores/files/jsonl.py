"""Store the log as JSON lines in ``<dump>/log/log.jsonl``: append-only, one entry per line. Full files become ``log.1.jsonl``, ...

Acknowledged entries are on disk. A crash may leave an incomplete line at the end of the file: readers skip it, and the next entry
begins on a new line. Processes lock the file itself (``flock``), so there is no separate lock file.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

import msgspec

from ..._core import bson
from ...candles import CandleArray
from ...domains import DOMAINS, Domain
from ...errors import InvalidValueError
from ...logs import log
from ..base import Key, Record, encode, has_fields
from ..fork_safety import renew_after_fork
from ..skipped_records import report_skipped
from .atomic_files import LOCK_SECONDS, locked, make_folder, storage_errors, sync_folder
from .extended_json import json_value, opened
from .json_text import text_of

__all__ = ["JsonlStore"]

_LOG: Final = DOMAINS["log"]

_CHUNK: Final = 1 << 16
_TAIL: Final = 128  # bytes; enough to tell files apart, since each line holds an id and a time
_REMEMBERED: Final = 20_000
_WARNINGS: Final = 20  # per file; a file that is not a log at all would flood the program's log
_ROTATED: Final = re.compile(r"log\.([1-9][0-9]*)\.jsonl", re.ASCII)


class _Entry(msgspec.Struct):
    """The part of a line that tells whether an entry is already stored."""

    id: str


_id_decoder: Final = msgspec.json.Decoder(_Entry)


class _Ids:
    """The ids last written or looked up, between ``_REMEMBERED`` and twice that many. An id that is looked up often stays."""

    def __init__(self) -> None:
        self._newer: set[str] = set()
        self._older: set[str] = set()

    def add(self, name: str) -> None:
        if len(self._newer) >= _REMEMBERED:
            self._older, self._newer = self._newer, set()
        self._newer.add(name)

    def __contains__(self, name: str) -> bool:
        if name in self._newer:
            return True
        if name in self._older:
            self.add(name)
            return True
        return False


class JsonlStore:
    """The log domain, in ``folder``/log. An id counts as stored if it is among the last 20,000 that were written or looked up."""

    blocks = None
    hits = upserts = None

    def __init__(self, folder: Path, rotate_bytes: int = 64 * 1024 * 1024, *, durable: bool = True) -> None:
        """Prepare a store; it reads and creates nothing before its first use.

        A file grows to at most ``rotate_bytes`` before the next one begins; only a single batch that is larger exceeds it. ``durable`` is
        the same as in FileStore. Raises InvalidValueError if ``rotate_bytes`` is below 1.
        """
        if rotate_bytes < 1:
            raise InvalidValueError(f"rotate_bytes must be at least 1, got {rotate_bytes}")
        self._folder = os.path.join(os.path.abspath(folder), "log")
        self._path = os.path.join(self._folder, "log.jsonl")
        self._rotate_bytes = rotate_bytes
        self._durable = durable
        self._warned: dict[tuple[int, int], set[int]] = {}  # offsets, by device and inode
        self._locked: int | None = None
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with an unlocked lock; see ``fork_safety``."""
        if self._locked is not None:  # the parent's descriptor: kept open here, its lock would outlive a killed parent
            os.close(self._locked)
        self._locked = None
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._ids = _Ids()
        self._file: os.stat_result | None = None  # the file that was read
        self._end = 0  # how far it was read: the offset after its last line feed
        self._tail = b""  # the bytes before that offset: they differ if the file was truncated and has grown again

    def wait_for_init(self, timeout: float) -> None:
        """See Store. Raises StorageError if the folder cannot be created, or cannot be read or written to."""
        with storage_errors("the log cannot be written"):
            make_folder(self._folder)
            if not os.access(self._folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self._folder)

    # --- writing ---

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store. An entry with a known id costs one lookup; the others are appended in one piece."""
        _only_log(domain)
        if not records:
            return
        with self._lock, storage_errors(f"{self._path}: nothing was written"):
            if not os.path.exists(self._path):  # create nothing before all entries are encoded without an error
                self._forget()
            elif not self._is_known():
                with self._open_locked() as descriptor:
                    self._catch_up(descriptor)
            lines: dict[str, bytes] = {}
            for record in records:
                name = record.key[0]
                if name not in self._ids:
                    lines.setdefault(name, _line_of(domain, record))
            if lines:
                try:
                    self._append(lines)
                except BaseException:
                    self._forget()  # read again from the file what was stored of this
                    raise

    def _is_known(self) -> bool:
        """Return whether the file is the one that was read, and nobody has written to it since."""
        read = self._file
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        return read is not None and os.path.samestat(read, now) and (read.st_size, read.st_mtime_ns) == (now.st_size, now.st_mtime_ns)

    def _in_place(self, status: os.stat_result | None) -> bool:
        """Return whether the file with this ``status`` is still ``log.jsonl`` and has not become shorter."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        return status is not None and os.path.samestat(status, now) and status.st_size <= now.st_size

    def _append(self, lines: dict[str, bytes]) -> None:
        while True:
            with self._open_locked() as descriptor:
                size = self._catch_up(descriptor)
                fresh = {name: line for name, line in lines.items() if name not in self._ids}
                if not fresh:
                    return
                text = b"".join(fresh.values())
                if self._end < size:  # the file ends with an incomplete line, which stays as it is
                    text = b"\n" + text
                if not size or size + len(text) <= self._rotate_bytes:
                    _put(descriptor, text, size, durable=self._durable)
                    self._seen(descriptor, size + len(text))
                    self._file = os.fstat(descriptor)
                    for name in fresh:
                        self._ids.add(name)
                    return
                newest = max((number for number, _ in self._rotated()), default=0)
                os.rename(self._path, os.path.join(self._folder, f"log.{newest + 1}.jsonl"))

    @contextmanager
    def _open_locked(self) -> Iterator[int]:
        """Open the file, creating it if needed, and hold its lock: no other process appends to it or renames it meanwhile."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            if not os.path.isdir(self._folder):
                make_folder(self._folder)
            self._locked = descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                with locked(descriptor, self._path, deadline):
                    if self._in_place(os.fstat(descriptor)):  # otherwise the previous holder of the lock has renamed it
                        yield descriptor
                        return
            finally:
                self._locked = None
                os.close(descriptor)

    def _catch_up(self, descriptor: int) -> int:
        """Read what other processes appended to the locked file, so that those ids count as stored; return the file's size."""
        status = os.fstat(descriptor)
        size = status.st_size
        start = self._end - len(self._tail)
        same = (
            self._file is not None and os.path.samestat(status, self._file) and os.pread(descriptor, len(self._tail), start) == self._tail
        )
        if same and size == self._end:
            self._file = status
            return size
        with open(descriptor, "rb", closefd=False) as file:
            if not same:
                self._forget()
                end, _ = next(_backward(file, size))
                names = (_id_of(line) for log_file in self._files(file, backward=True) for _, line in _backward(log_file, _size(log_file)))
                for name in islice((name for name in names if name is not None), _REMEMBERED):
                    self._ids.add(name)
                sync_folder(self._folder)  # the process that created the file may have been killed before it did
            else:
                end = self._end
                for offset, line in _forward(file, self._end, size):
                    if (written := _id_of(line)) is not None:
                        self._ids.add(written)
                    end = offset + len(line) if line.endswith(b"\n") else offset
        if self._durable:
            os.fsync(descriptor)  # the writer may have been killed before it did, and ids that count as stored are acknowledged here
        self._seen(descriptor, end)
        self._file = status
        return size

    def _seen(self, descriptor: int, end: int) -> None:
        self._end = end
        self._tail = os.pread(descriptor, min(_TAIL, end), max(end - _TAIL, 0))

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """Raise InvalidValueError: a log is append-only."""
        raise InvalidValueError("log: an entry in a file of JSON lines cannot be changed")

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """Raise InvalidValueError if there are ``keys``: a log is append-only."""
        _only_log(domain)
        if keys:
            raise InvalidValueError("log: an entry in a file of JSON lines cannot be removed")

    # --- reading ---

    def _rotated(self) -> list[tuple[int, str]]:
        """Return the numbers and paths of the full files, oldest first."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        numbered = [(int(match[1]), os.path.join(self._folder, name)) for name in names if (match := _ROTATED.fullmatch(name))]
        return sorted(numbered)

    def _files(self, newest: BinaryIO | None, *, backward: bool) -> Iterator[BinaryIO]:
        """Yield all files in order, one open at a time besides ``newest``."""
        # ``newest`` was opened before this lists the others, so a file that is renamed in between is seen twice rather than never.
        paths = [path for _, path in self._rotated()]
        if backward and newest is not None:
            yield newest
        for path in reversed(paths) if backward else paths:
            with _opened(path) as file:
                if file is not None and (newest is None or not os.path.sameopenfile(file.fileno(), newest.fileno())):
                    yield file
        if not backward and newest is not None:
            yield newest

    def _records(self, *, backward: bool, bodies: bool = True) -> Iterator[Record]:
        """Yield the entries, each id once: of entries with the same id, the first one read."""
        seen = set()
        with storage_errors("log: the entries cannot be read"), _opened(self._path) as newest:
            for file in self._files(newest, backward=backward):
                for offset, line in _backward(file, _size(file)) if backward else _forward(file, 0, _size(file)):
                    body = _body_of(line) if bodies else None
                    name = _id_of(line) if not bodies else None if body is None else body["id"]
                    if name is None:
                        self._warn(file, offset, line)
                    elif name not in seen:
                        seen.add(name)
                        yield Record((name,), body)

    def _warn(self, file: BinaryIO, offset: int, line: bytes) -> None:
        """Report a damaged line and log it once. Ignore blank lines, and a line without a line feed: its write goes on or was cut off."""
        if not line.endswith(b"\n") or line.isspace():
            return
        report_skipped(f"{file.name}, byte {offset}: not a log entry")
        status = os.fstat(file.fileno())
        warned = self._warned.setdefault((status.st_dev, status.st_ino), set())
        if offset in warned or len(warned) >= _WARNINGS:
            return
        warned.add(offset)
        number, position = 1, 0
        while position < offset and (chunk := os.pread(file.fileno(), min(_CHUNK, offset - position), position)):
            number += chunk.count(b"\n")
            position += len(chunk)
        last = "; further warnings about this file are suppressed" if len(warned) == _WARNINGS else ""
        log("warning", f"{file.name}, line {number}: not a log entry, skipped{last}")

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store. The files are read from the end until all ``keys`` are found."""
        _only_log(domain)
        records: dict[Key, Record | None] = dict.fromkeys(keys)
        missing = len(records)
        if missing:
            for record in self._records(backward=True):
                if record.key in records:
                    records[record.key] = record
                    missing -= 1
                    if not missing:
                        break
        return [records[key] for key in keys]

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """See Store. The files are read from the end, only as far as you iterate."""
        _only_log(domain)
        matching = (record for record in self._records(backward=True, bodies=bodies) if record.key[: len(prefix)] == prefix)
        yield from islice(matching, limit)

    def records(self, domain: Domain) -> Iterator[Record]:
        """See Store."""
        _only_log(domain)
        yield from self._records(backward=False)

    def keys_with(self, domain: Domain, fields: Mapping[str, Collection[Any]]) -> list[Key]:
        """See Store."""
        return [record.key for record in self.records(domain) if has_fields(domain, record.key, fields)]

    # --- what a log does not have ---

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """Raise InvalidValueError."""
        _refuse("candle")

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """Raise InvalidValueError."""
        _refuse("candle")

    def candle_series(self) -> list[Key]:
        """Raise InvalidValueError."""
        _refuse("candle")

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """Raise InvalidValueError."""
        _refuse("candle")

    def replace_candles(self, series: Key, candles: CandleArray) -> int:
        """Raise InvalidValueError."""
        _refuse("candle")

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """Raise InvalidValueError."""
        _refuse("candle")

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """Raise InvalidValueError: an entry has no versions."""
        _refuse(f"the history of {domain.name}")

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """Raise InvalidValueError: an entry has no versions."""
        _refuse(f"the history of {domain.name}")

    def drop_cache(self) -> int:
        """See Store. The next write reads the ids again."""
        with self._lock:
            self._forget()
        return 0

    def close(self) -> None:
        """See Store. No file stays open between calls."""


def _refuse(what: str) -> NoReturn:
    raise InvalidValueError(f"only the log can be stored as JSON lines, not {what}; choose another store for it")


def _only_log(domain: Domain) -> None:
    if domain.name != "log":
        _refuse(domain.name)


def _line_of(domain: Domain, record: Record) -> bytes:
    """Return the line of an entry. Raises InvalidTypeError or InvalidValueError if the entry cannot be stored."""
    # Encode to BSON first, so that every store accepts and rejects the same values.
    raw = encode(domain, record.key, {"payload": record.body})
    body = bson.decode(raw)["payload"]
    name = record.key[0]
    if not isinstance(body, dict) or body.get("id") != name:
        raise InvalidValueError(f"log {name!r}: the entry must be a dict with this 'id'")
    value, mark = json_value(domain, body, raw)
    return b"%b%b\n" % (mark, text_of(value))


def _body_of(line: bytes) -> dict[str, Any] | None:
    """Return the entry in a line, or None if the line is not an entry."""
    try:
        _, body = opened(_LOG, line)
    except ValueError:
        return None
    return body if isinstance(body, dict) and isinstance(body.get("id"), str) else None


def _id_of(line: bytes) -> str | None:
    """Return the id of the entry in a line, or None if the line is not an entry."""
    try:
        return _id_decoder.decode(line.decode()).id  # line.decode(): msgspec does not check the UTF-8 of fields that it skips
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = _body_of(line)
        return None if body is None else body["id"]


def _put(descriptor: int, text: bytes, size: int, *, durable: bool) -> None:
    """Append ``text`` to a locked file of ``size`` bytes, and sync it if ``durable``; on an error, restore the file's size."""
    written = 0
    try:
        while written < len(text):  # one write is enough unless the disk is almost full
            written += os.write(descriptor, memoryview(text)[written:])
        if durable:
            os.fsync(descriptor)
    except OSError:
        with suppress(OSError):  # if the truncation fails, readers treat what stays as an incomplete line
            if os.fstat(descriptor).st_size == size + written:  # no other process appended without taking the lock
                os.ftruncate(descriptor, size)
        raise


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO | None]:
    """Open a file for reading; None if it does not exist (any more)."""
    with ExitStack() as stack:
        file = None
        with suppress(FileNotFoundError):
            file = stack.enter_context(open(path, "rb"))
        yield file


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _forward(file: BinaryIO, offset: int, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their offsets, from ``offset`` up to ``size``."""
    file.seek(offset)
    while offset < size and (line := file.readline(size - offset)):
        yield offset, line
        offset += len(line)


def _backward(file: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their offsets, last one first. The first yielded is what follows the last line feed, even if empty."""
    position, pieces = size, [b""]
    while position:
        length = min(_CHUNK, position)
        position -= length
        chunk = os.pread(file.fileno(), length, position)
        start = len(chunk)
        while (feed := chunk.rfind(b"\n", 0, start)) >= 0:
            pieces.append(chunk[feed + 1 : start])
            yield position + feed + 1, b"".join(reversed(pieces))
            pieces, start = [b"\n"], feed
        pieces.append(chunk[:start])
    yield 0, b"".join(reversed(pieces))
