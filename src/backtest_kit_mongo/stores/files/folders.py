"""Map keys to the folders of a file store and back. Folders are created on demand."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple

import msgspec

from ...domains import Domain
from ..base import Key
from .atomic_files import NotARegularFileError, make_folder, pass_over, put_new, read_bytes, set_aside, sweep, sync_folder, write_new
from .json_text import value_of
from .layout import Fields, Layout, PathPart, agrees, layout_of
from .names import encode_name, hash_of, is_hashed, natural, plain_name

__all__ = ["SUFFIX", "Folders", "fitting_keys", "holds_files", "record_files"]

SUFFIX: Final = ".json"

# Small notes beside the records, which the TypeScript package ignores. ``.key`` holds the fields of a folder with a joined name (several
# fields in one name), ``.name-HASH`` a name that is too long for the file system.
_KEY: Final = ".key"
_NAME: Final = ".name-"

_MOST_FOLDERS: Final = 100_000  # in each cache; a full cache is cleared
_MOST_LOOKED_AT: Final = 100  # records of a folder without a note that are read to tell which key it belongs to

_encoded = lru_cache(4096)(encode_name)


class _Listing(NamedTuple):
    """A cached folder. For a joined one also the identity of its note: the folder may be deleted and then belong to another key."""

    path: str
    note: tuple[int, int] | None


class Folders:
    """The paths of records below one folder. Its caches can be cleared at any time."""

    def __init__(self, root: str, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        self.forget()

    def forget(self) -> None:
        """Clear the caches: another process may have changed the folders."""
        self._ready: dict[Key, _Listing] = {}
        self._existing: dict[Key, _Listing] = {}

    # --- for one key ---

    def find(self, domain: Domain, key: Key) -> tuple[str, bool]:
        """Return the folder of a record, whether it exists or not, and whether it belongs to the key; if not, no key has claimed it."""
        layout = layout_of(domain)
        fields = layout.fields(key)
        scope = _scope(layout, fields)
        cached = _recall(self._ready, scope) or _recall(self._existing, scope)
        if cached is not None:
            return cached, True
        path = self._plain(layout, fields)
        if layout.joined is None:
            return path, True
        joined_fields = layout.joined.values(fields)
        other = _other(path, joined_fields)
        # Take the identities before reading the notes: if a note is replaced in between, the cached folder counts as stale.
        notes = {folder: _identity(folder) for folder in (path, other)}
        owner = _owner(path, layout.joined)
        if owner is None and not os.path.isdir(other):
            return path, False
        path = path if owner == joined_fields else other
        if notes[path] is not None:  # without a note, a cached folder could not show that another key has claimed it since
            _remember(self._existing, scope, _Listing(path, notes[path]))
        return path, True

    def prepare(self, domain: Domain, key: Key) -> str:
        """Return the folder for writing a record. It exists then, and belongs to the key."""
        layout = layout_of(domain)
        fields = layout.fields(key)
        scope = _scope(layout, fields)
        cached = _recall(self._ready, scope)
        if cached is not None:
            return cached
        path = self._plain(layout, fields, notes=True)
        note = None
        if layout.joined is not None:
            path = _claimed(layout, layout.joined.values(fields), path)
            note = _identity(path)
        make_folder(path, durable=self._durable)
        sweep(path)
        if layout.joined is None or (note is not None and _owner(path, layout.joined) == layout.joined.values(fields)):
            _remember(self._ready, scope, _Listing(path, note))
        return path

    def file(self, domain: Domain, key: Key, folder: str, *, note: bool = False) -> str:
        """Return the name of a record's file in its folder; with ``note``, write the full name beside it if it had to be hashed."""
        layout = layout_of(domain)
        text = layout.file.text(layout.fields(key)) or ""
        name = _place(folder, text, SUFFIX)
        if note:
            _note_name(folder, name.removesuffix(SUFFIX), text)
        return name

    def _plain(self, layout: Layout, fields: Fields, *, notes: bool = False) -> str:
        path = self._root
        for part in layout.folders:
            text = part.text(fields)
            if text is not None:
                component = _place(path, text)
                if notes and not part.joined:
                    _note_name(path, component, text)
                path = f"{path}/{component}"
        return path

    # --- for all keys ---

    def folders(self, domain: Domain, required: Fields) -> Iterator[tuple[str, Fields | None]]:
        """Yield the folders of a domain in natural order, each with its fields, or with None if its joined name has no note.

        ``required`` holds the values that some of the fields must have.
        """
        return self._below(layout_of(domain), 0, self._root, {}, required)

    def _below(self, layout: Layout, depth: int, path: str, fields: Fields, required: Fields) -> Iterator[tuple[str, Fields | None]]:
        if depth == len(layout.folders):
            yield path, fields
            return
        part = layout.folders[depth]
        if part.joined:
            for component in _subfolders(path):
                owner = _owner(f"{path}/{component}", part)
                if owner is None or _matches(owner, required):
                    yield f"{path}/{component}", owner
            return
        if all(name in required for name in part.fields):
            texts = [part.text(required)]
        else:
            texts = [text for component in _subfolders(path) if (text := _text(path, component, "")) is not None]
            if part.fields == ("frameName",):
                texts.insert(0, None)
        for text in texts:
            below = path if text is None else f"{path}/{_place(path, text)}"
            for part_fields in part.splits(text) if text is not None else [{"frameName": ""}]:
                yield from self._below(layout, depth + 1, below, {**fields, **part_fields}, required)

    def files(self, folder: str) -> list[tuple[str, str]]:
        """Return the file names of the records in a folder, each with the text that it encodes, in natural order."""
        names = [(name, text) for name in record_files(folder) if (text := _text(folder, name, SUFFIX)) is not None]
        names.sort(key=lambda name_and_text: natural(name_and_text[1]))
        return names


def _scope(layout: Layout, fields: Fields) -> Key:
    return (layout.domain.name, *(fields[name] for part in layout.folders for name in part.fields))


def _remember(memory: dict[Key, _Listing], scope: Key, listing: _Listing) -> None:
    if len(memory) >= _MOST_FOLDERS:
        memory.clear()
    memory[scope] = listing


def _recall(memory: dict[Key, _Listing], scope: Key) -> str | None:
    cached = memory.get(scope)
    if cached is None or (cached.note is not None and _identity(cached.path) != cached.note):
        memory.pop(scope, None)
        return None
    return cached.path


def _identity(folder: str) -> tuple[int, int] | None:
    """Return what distinguishes the note of a joined folder from earlier and later notes there (inode, mtime), or None without a note."""
    try:
        status = os.stat(f"{folder}/{_KEY}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns


def _matches(fields: Fields, required: Fields) -> bool:
    return all(required.get(name, value) == value for name, value in fields.items())


# --- names ---


def _place(parent: str, text: str, suffix: str = "") -> str:
    """Return the path component for ``text`` in ``parent``: its encoding, or the plain name if the TypeScript package created that."""
    component = _encoded(text, folder=not suffix)
    if component != text and _may_stand(text, suffix):
        exists = os.path.isfile if suffix else os.path.isdir
        if exists(f"{parent}/{text}{suffix}"):
            return text + suffix
    return component + suffix


def _may_stand(text: str, suffix: str) -> bool:
    """Return whether a name that we encode could be a plain name of the TypeScript package, and is not the encoding of another name."""
    return (
        text[:1] not in ("", ".")
        and "/" not in text
        and "%-" not in text
        and plain_name(text, folder=not suffix) == text
        and len((text + suffix).encode()) <= 255
        and (sys.platform != "darwin" or unicodedata.is_normalized("NFC", text))
    )


def _text(parent: str, component: str, suffix: str) -> str | None:
    """Return the text that a path component encodes; None if its full name is lost, or if that text has another component here."""
    name = component.removesuffix(suffix)
    if "%" not in name:
        return name
    text = plain_name(name, folder=not suffix)
    if is_hashed(name):
        try:
            text = read_bytes(f"{parent}/{_NAME}{name[2:]}").decode()
        except (FileNotFoundError, NotARegularFileError, UnicodeDecodeError):
            pass_over(f"{parent}/{component}", f"{_NAME}{name[2:]}, which holds its full name, is missing or unreadable")
            return None
    return text if _place(parent, text, suffix) == component else None


def _note_name(parent: str, component: str, text: str) -> None:
    if is_hashed(component) and not os.path.exists(path := f"{parent}/{_NAME}{hash_of(text)}"):
        make_folder(parent)
        put_new(write_new(parent, "name", text.encode()), path)


def _is_text(folder: str, name: str) -> bool:
    """Return whether a name is UTF-8, as ours and the TypeScript package's all are. Any other name is skipped, so that a list goes on."""
    try:
        name.encode()
    except UnicodeEncodeError:
        pass_over(f"{folder}/{os.fsencode(name)!r}", "its name is not UTF-8")
        return False
    return True


def record_files(folder: str) -> list[str]:
    """Return the names of the record files in a folder, unordered; none if the folder does not exist."""
    try:
        return [name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith(".") and _is_text(folder, name)]
    except FileNotFoundError:
        return []


def holds_files(folder: str) -> bool:
    """Return whether a folder holds a record file; stops at the first one."""
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(SUFFIX) and not entry.name.startswith(".") for entry in entries)


def _subfolders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            folders = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted((name for name in folders if _is_text(path, name)), key=natural)


# --- the key that a joined folder belongs to ---


def _owner(folder: str, part: PathPart) -> Fields | None:
    """Return the fields in the note of a joined folder, or None without a valid note. An invalid note is set aside."""
    path = f"{folder}/{_KEY}"
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    with suppress(ValueError):
        fields = value_of(content)
        if isinstance(fields, dict) and tuple(map(type, map(fields.get, part.fields))) == part.kinds and _is_named(folder, fields, part):
            return fields
    set_aside(path, content, "it is not the key of this folder")
    return None


def _is_named(folder: str, fields: Fields, part: PathPart) -> bool:
    """Return whether the name of a folder is one for these fields; a folder that was renamed or copied has another."""
    text = part.text(fields) or ""
    return any(os.path.basename(folder) in (name, _other(name, fields)) for name in (text, _encoded(text, folder=True)))


def _other(plain: str, fields: Fields) -> str:
    """Return the folder for a key if another key has claimed the folder with the joined name (``plain``)."""
    return f"{plain}%-{hash_of(msgspec.json.encode(fields).decode())[:16]}"


def _claimed(layout: Layout, fields: Fields, plain: str) -> str:
    """Claim and return the joined folder, or if another key has it, a folder for this key alone. Either way a note names the key."""
    assert layout.joined is not None
    other = _other(plain, fields)
    owner = _owner(plain, layout.joined)
    if owner is None and not os.path.isdir(other) and _is_free(layout, fields, plain):
        _claim(plain, fields)
        owner = _owner(plain, layout.joined)  # another process may have been faster
    if owner == fields:
        return plain
    _claim(other, fields)
    return other


def _claim(folder: str, fields: Fields) -> None:
    make_folder(folder)
    put_new(write_new(folder, "key", msgspec.json.encode(fields)), f"{folder}/{_KEY}")
    sync_folder(folder)


def _is_free(layout: Layout, fields: Fields, folder: str) -> bool:
    """Return whether no record in a folder without a note (of the TypeScript package) says that it belongs to another key."""
    assert layout.joined is not None
    for name in islice(record_files(folder), _MOST_LOOKED_AT):
        body = None
        with suppress(FileNotFoundError, NotARegularFileError, ValueError):
            body = value_of(read_bytes(f"{folder}/{name}"))
        keys = fitting_keys(layout, folder, name, body)
        if keys and fields not in (layout.joined.values(layout.fields(key)) for key in keys):
            return False
    return True


def fitting_keys(layout: Layout, folder: str, file: str, body: Any) -> list[Key]:
    """Return the keys that match the joined name of a folder and the name of ``file``, and that ``body`` does not contradict."""
    name = plain_name(os.path.basename(folder), folder=True)
    text = plain_name(file.removesuffix(SUFFIX))
    return [key for key in layout.keys(None, name, text) if agrees(layout.domain, key, body)]
