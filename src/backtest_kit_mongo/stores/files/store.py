"""Store records in files, in the layout of the TypeScript package: each side opens a folder that the other wrote, unchanged."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

from ...candles import INTERVAL_MS, CandleArray, interval_ms
from ...domains import DOMAINS, Domain
from ...logs import log
from ..base import NO_HISTORY, History, Key, Record, has_fields
from ..fork_safety import renew_after_fork
from ..skipped_records import report_skipped
from .atomic_files import (
    NotARegularFileError,
    PendingFile,
    folder_lock,
    make_folder,
    pass_over,
    publish,
    publish_new,
    read_bytes,
    set_aside,
    storage_errors,
    write_new,
)
from .candles import as_window, read_rows, read_window, write_window
from .content import open_content, pack_record
from .folders import SUFFIX, Folders, fitting_keys, holds_files, record_files
from .layout import Fields, layout_of
from .versions import ALWAYS, FileVersions

__all__ = ["FileStore"]

R = TypeVar("R")

_CANDLE: Final = DOMAINS["candle"]

# Domains with a symbol, strategy and exchange in their bodies, and the names of those fields.
_TELLING: Final = ("signal", "schedule", "recent", "storage")
_CONTEXT: Final = ("symbol", "strategyName", "exchangeName")

_ATTEMPTS: Final = 3  # of a write if another process deletes its folders, and of a read of a version if another process writes

_KNOWN_FILES: Final = 10_000  # files that were checked to hold a record; a full cache is cleared

_ROWS: Final = 10_000  # candles in a batch of ``stored_candles``


class FileStore:
    """Records below one folder, one file each. Several processes may share the folder and read what the others wrote.

    Writes replace a file atomically; with ``durable`` it is on disk when the write returns. Lists come in natural order of their ids.
    A folder is listed only for a list, and once before the first write to it, to delete what killed processes left there.
    """

    blocks = None
    hits = upserts = None

    def __init__(self, folder: Path, history: History = NO_HISTORY, *, durable: bool = True) -> None:
        """Use ``folder``, which need not exist yet; a relative one is resolved against the current working directory now.

        Without ``durable``, writes survive the death of this process, but not a crash of the machine.
        """
        self.folder: Path = Path(os.path.abspath(folder))
        self._history = history
        self._durable = durable
        self._places = Folders(str(self.folder), durable=durable)
        self._versions = FileVersions(history)
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with an unlocked lock; see ``fork_safety``."""
        self._lock = threading.RLock()
        self._locked: str | None = None  # the folder that the thread with the lock has locked against other processes
        self._sound: set[str] = set()

    def wait_for_init(self, timeout: float) -> None:
        """See Store. Creates the folder; raises StorageError if that fails, or if the folder cannot be written to."""
        with storage_errors(f"the folder {self.folder} cannot be used"):
            make_folder(str(self.folder))
            os.unlink(write_new(str(self.folder), "init", b""))

    # --- records by key ---

    def read(self, domain: Domain, keys: Sequence[Key]) -> list[Record | None]:
        """See Store."""
        with storage_errors(f"{domain.name}: {_named(keys)} cannot be read"):
            return [self._read(domain, key) for key in keys]

    def _read(self, domain: Domain, key: Key) -> Record | None:
        path, own = self._path(domain, key)
        record = self._load(domain, key, path)
        return record if record is None or own or _fits(record, domain, path) else None

    def _path(self, domain: Domain, key: Key) -> tuple[str, bool]:
        """Return the path of a record, whether it exists or not, and whether a file there can only be this record."""
        folder, own = self._places.find(domain, key)
        return f"{folder}/{self._places.file(domain, key, folder)}", own

    def _load(self, domain: Domain, key: Key, path: str) -> Record | None:
        """Return the record in a file, or None without a file. A corrupt file is set aside and counts as missing."""
        while True:
            try:
                content = read_bytes(path)
            except FileNotFoundError:
                return None
            try:
                record = open_content(domain, key, content)
            except ValueError as error:
                if set_aside(path, content, str(error)):
                    return None
                continue
            return record

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store."""
        contents = [pack_record(domain, record) for record in records]
        with storage_errors(f"{domain.name}: {_named([record.key for record in records])} cannot be written"):
            self._in_folders(lambda: self._put(domain, records, contents))

    def _put(self, domain: Domain, records: Sequence[Record], contents: Sequence[bytes]) -> None:
        files = []
        for record, content in zip(records, contents, strict=True):
            folder = self._places.prepare(domain, record.key)
            files.append(PendingFile(folder, self._places.file(domain, record.key, folder, note=True), content))
        if domain.write == "insert_once":
            keys = {file.path: record.key for file, record in zip(files, records, strict=True)}
            publish_new(files, lambda path: self._makes_sense(domain, keys[path], path), durable=self._durable)
        elif domain.name in self._history.domains:
            times = iter([_time(record) for record in records])
            publish(files, lambda temporary, file: self._replace(domain, temporary, file, next(times)), durable=self._durable)
        else:
            # Each new row writes the whole list again, and the same backtest runs many times, so unchanged files are only read. A durable
            # write of a single record is never skipped: the file that is there may not have reached the disk.
            skip_unchanged = not (domain.keyed and self._durable)
            last = {file.path: file for file in files}.values()
            put = self._rename_alone if domain.keyed else self._rename
            publish([file for file in last if not (skip_unchanged and file.is_there())], put, durable=self._durable)

    def _makes_sense(self, domain: Domain, key: Key, path: str) -> bool:
        """Return whether a file holds a record. Each file is read once, because each new row writes the whole list again."""
        if path not in self._sound:
            if self._load(domain, key, path) is None:
                return False
            if len(self._sound) >= _KNOWN_FILES:
                self._sound.clear()
            self._sound.add(path)
        return True

    def _rename(self, temporary: str, file: PendingFile) -> bool:
        with self._lock:
            os.rename(temporary, file.path)
        return True

    def _rename_alone(self, temporary: str, file: PendingFile) -> bool:
        with self._only_writer(file.folder):
            return self._rename(temporary, file)

    def _replace(self, domain: Domain, temporary: str, file: PendingFile, when: int) -> bool:
        with self._only_writer(file.folder):
            self._versions.replace(temporary, file.path, when, self._clock(domain))
        return True

    @contextmanager
    def _only_writer(self, folder: str) -> Iterator[None]:
        """Keep other threads and processes from writing records of a keyed domain to a folder."""
        with self._lock:
            if folder == self._locked:
                yield
                return
            with folder_lock(folder):
                self._locked = folder
                try:
                    yield
                finally:
                    self._locked = None

    def swap(self, domain: Domain, record: Record, before: Record | None) -> bool:
        """See Store."""
        contents = [pack_record(domain, record)]
        expected = None if before is None else pack_record(domain, before)

        def step() -> bool:
            with self._only_writer(self._places.prepare(domain, record.key)):
                current = self._read(domain, record.key)
                if (None if current is None else pack_record(domain, current)) != expected:
                    return False
                self._put(domain, [record], contents)
                return True

        with storage_errors(f"{domain.name}: {_named([record.key])} cannot be written"):
            return self._in_folders(step)

    def _clock(self, domain: Domain) -> Callable[[str], int | None]:
        """Return a function from a file's path to the simulation time (ms) of its record, None if the file holds no record."""

        def time_of(path: str) -> int | None:
            record = self._load(domain, (), path)
            return None if record is None else _time(record)

        return time_of

    def _in_folders(self, step: Callable[[], R]) -> R:
        """Run ``step``, and repeat it with cleared caches if another process has deleted one of its folders."""
        for _ in range(_ATTEMPTS - 1):
            with suppress(FileNotFoundError):
                return step()
            self.drop_cache()
        return step()

    def remove(self, domain: Domain, keys: Sequence[Key]) -> None:
        """See Store."""
        with self._lock:
            gone = [record._replace(removed=True) for record in self.read(domain, keys) if record is not None and not record.removed]
            if gone:
                self.write(domain, gone)

    # --- lists ---

    def scan(
        self, domain: Domain, prefix: Key, *, limit: int | None = None, bodies: bool = True, removed: bool = False
    ) -> Iterator[Record]:
        """See Store, but records come in natural order of their ids, and ``limit`` selects the last ones.

        Domains listed oldest first come in reversed order, because the caller reverses them.
        """
        reverse = domain.listing is not None and domain.listing.oldest_first
        backwards = reverse or limit is not None
        visible = (record for record in self._all(domain, prefix, backwards=backwards) if removed or not record.removed)
        selected = islice(visible, limit)
        for record in selected if reverse == backwards else reversed(list(selected)):
            yield record if bodies else record._replace(body=None)

    def records(self, domain: Domain) -> Iterator[Record]:
        """See Store, but records come in natural order of folders and ids: files do not tell when a record was first written."""
        return self._all(domain, ())

    def keys_with(self, domain: Domain, fields: Mapping[str, Collection[Any]]) -> list[Key]:
        """See Store."""
        return [record.key for record in self.records(domain) if has_fields(domain, record.key, fields)]

    def _all(self, domain: Domain, prefix: Key, *, backwards: bool = False) -> Iterator[Record]:
        step = -1 if backwards else 1
        contexts = cache(self._contexts)
        with storage_errors(f"{domain.name}: the records cannot be listed"):
            for folder, fields in list(self._places.folders(domain, layout_of(domain).fields(prefix)))[::step]:
                files = self._places.files(folder)[::step]
                for record in self._in_folder(domain, folder, fields, files, contexts):
                    if record.key[: len(prefix)] == prefix:
                        yield record

    def _in_folder(
        self, domain: Domain, folder: str, fields: Fields | None, files: Sequence[tuple[str, str]], contexts: Callable[[], set[Key]]
    ) -> Iterator[Record]:
        layout = layout_of(domain)
        left_out = 0
        for name, text in files:
            path = f"{folder}/{name}"
            for key in () if fields is None else layout.keys(fields, "", text):
                if (record := self._listed(domain, key, path)) is not None:
                    yield record
            if fields is None and (record := self._listed(domain, (), path)) is not None:
                keys = fitting_keys(layout, folder, name, record.body)
                if len(keys) > 1:
                    keys = [key for key in keys if _is_said(layout.fields(key), contexts())]
                if len(keys) == 1:
                    yield record._replace(key=keys[0])
                else:
                    report_skipped(f"{path}: the folder name is ambiguous: cannot tell which key it belongs to")
                    left_out += 1
        if left_out:
            names = ", ".join(layout.folders[-1].fields)
            log(
                "warning",
                f"{left_out} records of {folder} are skipped in a list: the folder name is ambiguous: cannot tell where one of {names} "
                "ends and the next begins; you can read each record by its key, and a write stores which key the folder belongs to",
            )

    def _listed(self, domain: Domain, key: Key, path: str) -> Record | None:
        """Return the record in a file for a list. Skip what is not a regular file, so that the list goes on."""
        try:
            return self._load(domain, key, path)
        except NotARegularFileError as error:
            pass_over(path, str(error.strerror))
            return None

    def _contexts(self) -> set[Key]:
        """Return the combinations of symbol, strategy and exchange that occur in the bodies of records."""
        contexts = set()
        for name in _TELLING:
            for folder, _ in self._places.folders(DOMAINS[name], {}):
                for file, _ in self._places.files(folder):
                    record = self._listed(DOMAINS[name], (), f"{folder}/{file}")
                    if record is not None and record.body is not None:
                        contexts.add(tuple(str(record.body.get(field)) for field in _CONTEXT))
        return contexts

    # --- candles ---

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store."""
        step = interval_ms(interval)
        with storage_errors(f"candles of {exchange_name} {symbol} {interval} cannot be read"):
            folder, _ = self._places.find(_CANDLE, (exchange_name, symbol, interval))
            return read_window(folder, range(since, since + limit * step, step))

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """See Store."""
        series = (exchange_name, symbol, interval)
        with storage_errors(f"candles of {exchange_name} {symbol} {interval} cannot be written"):
            return self._in_folders(lambda: write_window(self._places.prepare(_CANDLE, series), candles, durable=self._durable))

    def candle_series(self) -> list[Key]:
        """See Store."""
        with storage_errors("the series of candles cannot be listed"):
            series = [
                (fields["exchangeName"], fields["symbol"], fields["interval"])
                for folder, fields in self._places.folders(_CANDLE, {})
                if fields is not None and fields["interval"] in INTERVAL_MS and holds_files(folder)
            ]
        return sorted(series)

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """See Store."""
        with storage_errors(f"candles of {' '.join(series)} cannot be read"):
            folder, _ = self._places.find(_CANDLE, series)
            times = [time for time in self._times(folder) if (since is None or since <= time) and (until is None or time < until)]
            for start in range(0, len(times), _ROWS):
                rows = read_rows(folder, times[start : start + _ROWS], whole=False)
                if rows:
                    yield as_window(rows)

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """See Store."""
        removed = 0
        with storage_errors(f"candles of {' '.join(series)} cannot be removed"):
            folder, _ = self._places.find(_CANDLE, series)
            for time in self._times(folder):
                if (since is None or since <= time) and (until is None or time < until):
                    with suppress(FileNotFoundError):  # another process has just deleted it
                        os.unlink(f"{folder}/{time}{SUFFIX}")
                        removed += 1
        return removed

    def _times(self, folder: str) -> list[int]:
        """Return the open times (ms) of the candles in a folder, ascending."""
        file = layout_of(_CANDLE).file
        return sorted(fields["timestamp"] for name in record_files(folder) for fields in file.splits(name.removesuffix(SUFFIX)))

    # --- versions ---

    def read_at(self, domain: Domain, keys: Sequence[Key], moment: int) -> list[Record | None]:
        """See Store."""
        with storage_errors(f"{domain.name}: {_named(keys)} cannot be read"):
            return [self._read_at(domain, key, moment) for key in keys]

    def _read_at(self, domain: Domain, key: Key, moment: int) -> Record | None:
        path, own = self._path(domain, key)
        for _ in range(_ATTEMPTS):
            with self._lock:
                version = self._versions.before(path, moment, self._clock(domain))
            if version is None:
                return None
            record = self._load(domain, key, version)
            if record is not None and _time(record) <= moment:
                return record if own or _fits(record, domain, path) else None
            self._versions.forget()  # the cache is stale: another process has written since
        return None

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """See Store."""
        with storage_errors(f"{domain.name}: versions of {_named(keys)} cannot be discarded"), self._lock:
            for key in keys:
                path, own = self._path(domain, key)
                if own or self._read(domain, key) is not None:
                    self._versions.discard(path, since, self._clock(domain))

    # --- the rest ---

    def drop_cache(self) -> int:
        """See Store. There is no shared cache, so it returns 0."""
        self._places.forget()
        self._versions.forget()
        self._sound.clear()
        return 0

    def close(self) -> None:
        """See Store. No file stays open between calls."""


def _time(record: Record) -> int:
    return ALWAYS if record.when is None else record.when


def _is_said(fields: Fields, contexts: set[Key]) -> bool:
    """Return whether some context agrees with ``fields`` in symbol, strategy and exchange, as far as ``fields`` has them."""
    return any(all(fields.get(name, value) == value for name, value in zip(_CONTEXT, context, strict=True)) for context in contexts)


def _fits(record: Record, domain: Domain, path: str) -> bool:
    """Return whether a record does not contradict its key; for a folder without a note, which may belong to several keys by its name."""
    folder, _, name = path.rpartition("/")
    fitting = fitting_keys(layout_of(domain), folder, name, record.body)
    return not fitting or record.key in fitting


def _named(keys: Sequence[Key]) -> str:
    """Return how an error names the records of a call."""
    return f"{len(keys)} records" if len(keys) > 1 else ", ".join(repr(field) for key in keys for field in key)
