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

from ...candles import GRIDS, CandleArray, grid_of
from ...domains import DOMAINS, Domain
from ..base import NO_HISTORY, History, Key, Record, has_fields
from ..fork_safety import renew_after_fork
from ..skipped_records import collecting_skipped
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
from .candles import as_window, check_not_minutes, read_rows, read_window, replace_window, write_window
from .content import open_content, pack_record
from .folders import SUFFIX, Folders, Found, holds_files, record_files
from .layout import layout_of
from .ownership import belongs, mark_of, marked, marked_key, narrowed, sharers
from .splitter import Splitter
from .tree_names import GivenNames, TreeNames
from .versions import ALWAYS, FileVersions

__all__ = ["FileStore"]

R = TypeVar("R")

_CANDLE: Final = DOMAINS["candle"]

# Domains with a symbol, strategy and exchange in their bodies, besides those with a joined name.
_TELLING: Final = ("storage", "notification")

Files = Sequence[tuple[str, str]]
"""Names of files, each with the text that it encodes."""

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

    def __init__(
        self,
        folder: Path,
        history: History = NO_HISTORY,
        *,
        durable: bool = True,
        given: GivenNames = GivenNames(),  # noqa: B008
    ) -> None:
        """Use ``folder``, which need not exist yet; a relative one is resolved against the current working directory now.

        Without ``durable``, writes survive the death of this process, but not a crash of the machine. ``given`` are names that tell in
        lists where a folder's name is ambiguous.
        """
        self.folder: Path = Path(os.path.abspath(folder))
        self._history = history
        self._durable = durable
        self._given = given
        self._places = Folders(str(self.folder), durable=durable)
        self._versions = FileVersions(history)
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with an unlocked lock; see ``fork_safety``."""
        self._lock = threading.RLock()
        self._locked: list[str] = []  # the folders that the thread with the lock has locked against other processes
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
        return self._find(domain, key)[1]

    def _find(self, domain: Domain, key: Key, *, to_write: bool = False) -> tuple[str, Record | None]:
        """Return the path of a record, whether it exists or not, and the record.

        If another key has the file in the folder of the TypeScript package, the path is in the spare folder. If nothing tells whose the
        file is, a read takes it, but a write replaces it only if no other key has claimed the folder.
        """
        spot = self._places.spot(domain, key)
        path = self._in(domain, key, spot.folder)
        record, mark = self._open(domain, key, path)
        if spot.spare is None:
            return path, record
        belongs_to_key = None if record is None else belongs(layout_of(domain), key, record.body, mark)
        if belongs_to_key:
            return path, record
        spare = self._in(domain, key, spot.spare)
        if belongs_to_key is None and not os.path.lexists(spare):
            claimed = spot.by_note or (to_write and record is not None)
            if not claimed or self._places.owner(domain, spot.folder) in (None, layout_of(domain).folder_fields(key)):
                return path, record
        return spare, self._load(domain, key, spare)

    def _in(self, domain: Domain, key: Key, folder: str) -> str:
        return f"{folder}/{self._places.file(domain, key, folder)}"

    def _load(self, domain: Domain, key: Key, path: str) -> Record | None:
        """Return the record in a file, or None without a file. A corrupt file is set aside and counts as missing."""
        return self._open(domain, key, path)[0]

    def _open(self, domain: Domain, key: Key, path: str) -> tuple[Record | None, str | None]:
        """Return what ``_load`` does, and the mark in the file."""
        while True:
            try:
                content = read_bytes(path)
            except FileNotFoundError:
                return None, None
            try:
                return open_content(domain, key, content), mark_of(content)
            except ValueError as error:
                if set_aside(path, content, str(error)):
                    return None, None

    def write(self, domain: Domain, records: Sequence[Record]) -> None:
        """See Store."""
        contents = [pack_record(domain, record) for record in records]
        with storage_errors(f"{domain.name}: {_named([record.key for record in records])} cannot be written"):
            self._in_folders(lambda: self._put(domain, records, contents))

    def _put(self, domain: Domain, records: Sequence[Record], contents: Sequence[bytes]) -> None:
        alone: list[tuple[Record, PendingFile]] = []
        for record, content in zip(records, contents, strict=True):
            folder = self._places.prepare(domain, record.key)
            file = PendingFile(folder, self._places.file(domain, record.key, folder, note=True), content)
            if self._places.spot(domain, record.key).spare is None:
                alone.append((record, file))
                continue
            with self._only_writer(folder):  # no other key takes the file between the look and the write
                self._publish(domain, [(record, self._place_for(domain, record, file))])
        self._publish(domain, alone)

    def _place_for(self, domain: Domain, record: Record, file: PendingFile) -> PendingFile:
        """Return the file of a record whose path other keys may have too, in a claimed folder, marked with its key where needed."""
        folder = os.path.dirname(self._find(domain, record.key, to_write=True)[0])
        self._places.claim(domain, record.key, folder)
        if folder != file.folder:
            return PendingFile(folder, self._places.file(domain, record.key, folder, note=True), file.content)
        layout = layout_of(domain)
        body = open_content(domain, record.key, file.content).body  # as a dict, whatever the caller passed
        if narrowed(domain, sharers(layout, record.key), body) == [record.key]:
            return file
        return file._replace(content=marked(file.content, layout.folder_fields(record.key)))

    def _publish(self, domain: Domain, writes: Sequence[tuple[Record, PendingFile]]) -> None:
        records, files = [record for record, _ in writes], [file for _, file in writes]
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
            if folder in self._locked:
                yield
                return
            with folder_lock(folder):
                self._locked.append(folder)
                try:
                    yield
                finally:
                    self._locked.remove(folder)

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
        names = cache(self._tree_names)
        with storage_errors(f"{domain.name}: the records cannot be listed"):
            for folder in list(self._places.folders(domain, layout_of(domain).fields(prefix)))[::step]:
                files = self._places.files(folder.path)[::step]
                listed = self._in_folder(domain, folder, files) if folder.fields is not None else self._split(domain, folder, files, names)
                for record in listed:
                    if record.key[: len(prefix)] == prefix:
                        yield record

    def _in_folder(self, domain: Domain, folder: Found, files: Files) -> Iterator[Record]:
        for name, text in files:
            for key in layout_of(domain).keys(folder.fields, "", text):
                if (record := self._listed(domain, key, f"{folder.path}/{name}")[0]) is not None:
                    yield record

    def _split(self, domain: Domain, folder: Found, files: Files, names: Callable[[], TreeNames]) -> Iterator[Record]:
        """Yield the records of a folder whose joined name says only together with each record which key it has."""
        splitter = Splitter(domain, folder, lambda: self._places.owner(domain, folder.path), names)
        for name, text in files:
            record, mark = self._listed(domain, (), f"{folder.path}/{name}")
            if record is not None and (key := splitter.key_of(name, text, record.body, mark)) is not None:
                yield record._replace(key=key)
        splitter.report(str(self.folder))

    def _listed(self, domain: Domain, key: Key, path: str) -> tuple[Record | None, str | None]:
        """Return the record in a file for a list, and its mark. Skip what is not a regular file, so that the list goes on."""
        try:
            return self._open(domain, key, path)
        except NotARegularFileError as error:
            pass_over(path, str(error.strerror))
            return None, None

    def _tree_names(self) -> TreeNames:
        """Return the names of strategies and exchanges that occur in this tree."""
        names = TreeNames(self._given)
        for _ in collecting_skipped(self._add_names(names), []):  # the lists of these domains report what they skip
            pass
        return names

    def _add_names(self, names: TreeNames) -> Iterator[None]:
        for domain in DOMAINS.values():
            layout = layout_of(domain)
            if not names.uses(domain):
                continue
            for path, fields, name in self._places.folders(domain, {}):
                shown = os.path.relpath(path, self.folder)
                names.add_fields(fields or {}, shown)
                if layout.joined is None and domain.name not in _TELLING:
                    continue
                for file, text in self._places.files(path):
                    record, mark = self._listed(domain, (), f"{path}/{file}")
                    body = None if record is None else record.body
                    keys = list(layout.keys(fields, name, text))
                    own = marked_key(layout, keys, mark)
                    names.add_keys(domain, narrowed(domain, keys, body) if own is None else [own], f"{shown}/{file}")
                    names.add_rows(body, f"{shown}/{file}")
                yield

    # --- candles ---

    def read_candles(self, symbol: str, interval: str, exchange_name: str, since: int, limit: int) -> CandleArray | None:
        """See Store."""
        with storage_errors(f"candles of {exchange_name} {symbol} {interval} cannot be read"):
            folder = self._candle_folder((exchange_name, symbol, interval))
            return read_window(folder, grid_of(interval).window(since, limit))

    def write_candles(self, symbol: str, interval: str, exchange_name: str, candles: CandleArray) -> int:
        """See Store."""
        series = (exchange_name, symbol, interval)
        with storage_errors(f"candles of {exchange_name} {symbol} {interval} cannot be written"):
            return self._in_folders(lambda: write_window(self._candle_folder(series, new=True), candles, durable=self._durable))

    def candle_series(self) -> list[Key]:
        """See Store."""
        with storage_errors("the series of candles cannot be listed"):
            series = [
                (fields["exchangeName"], fields["symbol"], fields["interval"])
                for folder, fields, _ in self._places.folders(_CANDLE, {})
                if fields is not None and fields["interval"] in GRIDS and holds_files(folder)
            ]
        return sorted(series)

    def stored_candles(self, series: Key, since: int | None = None, until: int | None = None) -> Iterator[CandleArray]:
        """See Store."""
        with storage_errors(f"candles of {' '.join(series)} cannot be read"):
            folder = self._candle_folder(series)
            times = [time for time in self._times(folder) if (since is None or since <= time) and (until is None or time < until)]
            for start in range(0, len(times), _ROWS):
                rows = read_rows(folder, times[start : start + _ROWS], whole=False)
                if rows:
                    yield as_window(rows)

    def replace_candles(self, series: Key, candles: CandleArray) -> int:
        """See Store."""
        with storage_errors(f"candles of {' '.join(series)} cannot be replaced"):
            return replace_window(self._places.spot(_CANDLE, series).folder, candles, durable=self._durable)

    def remove_candles(self, series: Key, since: int | None = None, until: int | None = None) -> int:
        """See Store."""
        removed = 0
        with storage_errors(f"candles of {' '.join(series)} cannot be removed"):
            folder = self._candle_folder(series)
            for time in self._times(folder):
                if (since is None or since <= time) and (until is None or time < until):
                    with suppress(FileNotFoundError):  # another process has just deleted it
                        os.unlink(f"{folder}/{time}{SUFFIX}")
                        removed += 1
        return removed

    def _candle_folder(self, series: Key, *, new: bool = False) -> str:
        """Return the folder of a series, which is created if ``new``."""
        folder = self._places.prepare(_CANDLE, series) if new else self._places.spot(_CANDLE, series).folder
        if series[2] == "1M":
            check_not_minutes(folder)
        return folder

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
        spot = self._places.spot(domain, key)
        path = self._in(domain, key, spot.folder) if spot.spare is None else self._find(domain, key)[0]
        for _ in range(_ATTEMPTS):
            with self._lock:
                version = self._versions.before(path, moment, self._clock(domain))
            if version is None:
                return None
            record, mark = self._open(domain, key, version)
            if record is not None and _time(record) <= moment:
                shared = spot.spare is not None and os.path.dirname(path) == spot.folder
                return None if shared and belongs(layout_of(domain), key, record.body, mark) is False else record
            self._versions.forget()  # the cache is stale: another process has written since
        return None

    def discard_versions(self, domain: Domain, keys: Sequence[Key], since: int) -> None:
        """See Store."""
        with storage_errors(f"{domain.name}: versions of {_named(keys)} cannot be discarded"), self._lock:
            for key in keys:
                self._versions.discard(self._find(domain, key, to_write=True)[0], since, self._clock(domain))

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


def _named(keys: Sequence[Key]) -> str:
    """Return how an error names the records of a call."""
    return f"{len(keys)} records" if len(keys) > 1 else ", ".join(repr(field) for key in keys for field in key)
