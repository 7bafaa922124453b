"""The folders of a file store: which is whose, made when they are needed, and found again from what lies there."""

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

# Small files beside the records, which the original passes over: the key of a folder whose name joins several fields, and names that
# are too long to stand.
_KEY: Final = ".key"
_NAME: Final = ".name-"

_MOST_FOLDERS: Final = 100_000  # that are remembered; then it starts anew
_MOST_LOOKED_AT: Final = 100  # records of a folder of the original's, to see whose it is

_encoded = lru_cache(4096)(encode_name)


class _Known(NamedTuple):
    """A folder, and of a joined one what tells its note from another's: the folder may be deleted, and then be somebody else's."""

    path: str
    note: tuple[int, int] | None


class Folders:
    """Paths below one folder. What it remembers can be forgotten at any time."""

    def __init__(self, root: str, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        self.forget()

    def forget(self) -> None:
        """Look at the file system again, which somebody may have changed."""
        self._ready: dict[Key, _Known] = {}
        self._found: dict[Key, _Known] = {}

    # --- for one key ---

    def find(self, domain: Domain, key: Key) -> tuple[str, bool]:
        """The folder of a record, there or not, and whether it is the key's own; if not, it is nobody's yet."""
        layout = layout_of(domain)
        fields = layout.fields(key)
        scope = _scope(layout, fields)
        known = _recall(self._ready, scope) or _recall(self._found, scope)
        if known is not None:
            return known, True
        path = self._plain(layout, fields)
        if layout.joined is None:
            return path, True
        mine = layout.joined.values(fields)
        other = _other(path, mine)
        # Before they are read: should they be replaced meanwhile, what is remembered does not hold.
        notes = {folder: _identity(folder) for folder in (path, other)}
        owner = _owner(path, layout.joined)
        if owner is None and not os.path.isdir(other):
            return path, False
        path = path if owner == mine else other
        if notes[path] is not None:  # else nothing would tell that another process gave the folder to somebody
            _remember(self._found, scope, _Known(path, notes[path]))
        return path, True

    def prepare(self, domain: Domain, key: Key) -> str:
        """The folder of a record that is going to be written; it is there, and the key's own."""
        layout = layout_of(domain)
        fields = layout.fields(key)
        scope = _scope(layout, fields)
        known = _recall(self._ready, scope)
        if known is not None:
            return known
        path = self._plain(layout, fields, notes=True)
        note = None
        if layout.joined is not None:
            path = _claimed(layout, layout.joined.values(fields), path)
            note = _identity(path)
        make_folder(path, durable=self._durable)
        sweep(path)
        if layout.joined is None or (note is not None and _owner(path, layout.joined) == layout.joined.values(fields)):
            _remember(self._ready, scope, _Known(path, note))
        return path

    def file(self, domain: Domain, key: Key, folder: str, *, note: bool = False) -> str:
        """The name of a record's file in its folder; with a ``note`` of the full name beside it, where that is too long to stand."""
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

    def folders(self, domain: Domain, known: Fields) -> Iterator[tuple[str, Fields | None]]:
        """The folders of a domain in natural order, with their fields; None: the name is ambiguous, and no note says whose it is.

        ``known`` has values that some of the fields must have.
        """
        return self._below(layout_of(domain), 0, self._root, {}, known)

    def _below(self, layout: Layout, depth: int, path: str, fields: Fields, known: Fields) -> Iterator[tuple[str, Fields | None]]:
        if depth == len(layout.folders):
            yield path, fields
            return
        part = layout.folders[depth]
        if part.joined:
            for component in _subfolders(path):
                owner = _owner(f"{path}/{component}", part)
                if owner is None or _matches(owner, known):
                    yield f"{path}/{component}", owner
            return
        if all(name in known for name in part.fields):
            found = [part.text(known)]
        else:
            found = [text for component in _subfolders(path) if (text := _text(path, component, "")) is not None]
            if part.fields == ("frameName",):
                found.insert(0, None)
        for text in found:
            below = path if text is None else f"{path}/{_place(path, text)}"
            for own in part.splits(text) if text is not None else [{"frameName": ""}]:
                yield from self._below(layout, depth + 1, below, {**fields, **own}, known)

    def files(self, folder: str) -> list[tuple[str, str]]:
        """The files of records in a folder, and the text that each name stands for, in natural order."""
        names = [(name, text) for name in record_files(folder) if (text := _text(folder, name, SUFFIX)) is not None]
        names.sort(key=lambda one: natural(one[1]))
        return names


def _scope(layout: Layout, fields: Fields) -> Key:
    return (layout.domain.name, *(fields[name] for part in layout.folders for name in part.fields))


def _remember(memory: dict[Key, _Known], scope: Key, known: _Known) -> None:
    if len(memory) >= _MOST_FOLDERS:
        memory.clear()
    memory[scope] = known


def _recall(memory: dict[Key, _Known], scope: Key) -> str | None:
    known = memory.get(scope)
    if known is None or (known.note is not None and _identity(known.path) != known.note):
        memory.pop(scope, None)
        return None
    return known.path


def _identity(folder: str) -> tuple[int, int] | None:
    """What tells the note of a joined folder from any other that stood or will stand there; None if there is none."""
    try:
        status = os.stat(f"{folder}/{_KEY}")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns


def _matches(fields: Fields, known: Fields) -> bool:
    return all(known.get(name, value) == value for name, value in fields.items())


# --- names ---


def _place(parent: str, text: str, suffix: str = "") -> str:
    """The component that stands for ``text`` in ``parent``: its encoding, but the name itself where the original put it there."""
    component = _encoded(text, folder=not suffix)
    if component != text and _may_stand(text, suffix):
        exists = os.path.isfile if suffix else os.path.isdir
        if exists(f"{parent}/{text}{suffix}"):
            return text + suffix
    return component + suffix


def _may_stand(text: str, suffix: str) -> bool:
    """Whether a name that we encode can be the original's as it is, and cannot be the encoding of another."""
    return (
        text[:1] not in ("", ".")
        and "/" not in text
        and "%-" not in text
        and plain_name(text, folder=not suffix) == text
        and len((text + suffix).encode()) <= 255
        and (sys.platform != "darwin" or unicodedata.is_normalized("NFC", text))
    )


def _text(parent: str, component: str, suffix: str) -> str | None:
    """The text that a component stands for; None if that cannot be said, or if it is not the place of that text."""
    name = component.removesuffix(suffix)
    if "%" not in name:
        return name
    text = plain_name(name, folder=not suffix)
    if is_hashed(name):
        try:
            text = read_bytes(f"{parent}/{_NAME}{name[2:]}").decode()
        except (FileNotFoundError, NotARegularFileError, UnicodeDecodeError):
            pass_over(f"{parent}/{component}", f"{_NAME}{name[2:]}, which has its full name, is not there")
            return None
    return text if _place(parent, text, suffix) == component else None


def _note_name(parent: str, component: str, text: str) -> None:
    if is_hashed(component) and not os.path.exists(path := f"{parent}/{_NAME}{hash_of(text)}"):
        make_folder(parent)
        put_new(write_new(parent, "name", text.encode()), path)


def _is_text(folder: str, name: str) -> bool:
    """Whether a name is one of ours or the original's, whose names are all UTF-8; the others must not keep these out of a list."""
    try:
        name.encode()
    except UnicodeEncodeError:
        pass_over(f"{folder}/{os.fsencode(name)!r}", "its name is no UTF-8")
        return False
    return True


def record_files(folder: str) -> list[str]:
    """The names of the files of records in a folder, in no order; none if it is not there."""
    try:
        return [name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith(".") and _is_text(folder, name)]
    except FileNotFoundError:
        return []


def holds_files(folder: str) -> bool:
    """Whether there is a record in a folder; no more of it is looked at than need be."""
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(SUFFIX) and not entry.name.startswith(".") for entry in entries)


def _subfolders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            folders = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    except FileNotFoundError:
        return []
    return sorted((name for name in folders if _is_text(path, name)), key=natural)


# --- whose a joined folder is ---


def _owner(folder: str, part: PathPart) -> Fields | None:
    """The fields in the note of a joined folder, if there is one."""
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
    """Whether a folder has a name that is made for these fields; it may have been renamed, or copied."""
    text = part.text(fields) or ""
    return any(os.path.basename(folder) in (name, _other(name, fields)) for name in (text, _encoded(text, folder=True)))


def _other(plain: str, mine: Fields) -> str:
    """The folder of a key whose joined name is another key's."""
    return f"{plain}%-{hash_of(msgspec.json.encode(mine).decode())[:16]}"


def _claimed(layout: Layout, mine: Fields, plain: str) -> str:
    """The joined folder itself if no other key has it, else one of the key's own; with a note that says so."""
    assert layout.joined is not None
    other = _other(plain, mine)
    owner = _owner(plain, layout.joined)
    if owner is None and not os.path.isdir(other) and _is_free(layout, mine, plain):
        _claim(plain, mine)
        owner = _owner(plain, layout.joined)  # another process may have been faster
    if owner == mine:
        return plain
    _claim(other, mine)
    return other


def _claim(folder: str, fields: Fields) -> None:
    make_folder(folder)
    put_new(write_new(folder, "key", msgspec.json.encode(fields)), f"{folder}/{_KEY}")
    sync_folder(folder)


def _is_free(layout: Layout, mine: Fields, folder: str) -> bool:
    """Whether nothing in a folder without a note, of the original's then, says that it is another key's."""
    assert layout.joined is not None
    for name in islice(record_files(folder), _MOST_LOOKED_AT):
        body = None
        with suppress(FileNotFoundError, NotARegularFileError, ValueError):
            body = value_of(read_bytes(f"{folder}/{name}"))
        keys = fitting_keys(layout, folder, name, body)
        if keys and mine not in (layout.joined.values(layout.fields(key)) for key in keys):
            return False
    return True


def fitting_keys(layout: Layout, folder: str, file: str, body: Any) -> list[Key]:
    """The keys whose joined name a folder has, and of which nothing in the record of ``file`` says otherwise."""
    name = plain_name(os.path.basename(folder), folder=True)
    text = plain_name(file.removesuffix(SUFFIX))
    return [key for key in layout.keys(None, name, text) if agrees(layout.domain, key, body)]
