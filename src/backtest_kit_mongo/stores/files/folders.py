"""Map keys to the folders of a file store and back. Folders are created on demand."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from ...domains import Domain
from ..base import Key
from .atomic_files import NotARegularFileError, make_folder, pass_over, put_new, read_bytes, set_aside, sweep, sync_folder, write_new
from .json_text import value_of
from .layout import Fields, Layout, PathPart, layout_of
from .names import encode_name, hash_of, is_hashed, natural, plain_name
from .ownership import belongs, hash_of_fields, mark_of, sharers

__all__ = ["SUFFIX", "Folders", "Found", "Spot", "holds_files", "record_files"]

SUFFIX: Final = ".json"

# Small notes beside the records, which the TypeScript package ignores. ``.key`` holds the fields of a folder with a joined name (several
# fields in one name) that splits in more than one way, ``.name-HASH`` a name that is too long for the file system.
_KEY: Final = ".key"
_NAME: Final = ".name-"

# The end of the name of a spare folder: a hash of its fields. No encoded name contains "%-" except at its start.
_SPARE: Final = re.compile(r"(?s)(.+)%-([0-9a-f]{16})")

_MOST_FOLDERS: Final = 100_000  # in each cache; a full cache is cleared
_MOST_LOOKED_AT: Final = 100  # records of a folder without a note that are read to tell which key it belongs to

_encoded = lru_cache(4096)(encode_name)


class Spot(NamedTuple):
    """The folder of a record, and what else may be at its path."""

    folder: str
    """The folder that the TypeScript package has the record in; it need not exist."""
    spare: str | None
    """The folder for records of this key while another key has the file. None if the path can only belong to this key."""
    by_note: bool = False
    """Whether the name splits in too many ways to try them all, so that the folder belongs to one key, which a note names."""


class Found(NamedTuple):
    """A folder of records."""

    path: str
    fields: Fields | None
    """The fields of all its records; None if its joined ``name`` must be split for each record."""
    name: str = ""


class Folders:
    """The paths of records below one folder. Its caches can be cleared at any time."""

    def __init__(self, root: str, *, durable: bool) -> None:
        self._root = root
        self._durable = durable
        self.forget()

    def forget(self) -> None:
        """Clear the caches: another process may have changed the folders."""
        self._spots: dict[Key, Spot] = {}
        self._ready: set[tuple[Key, str]] = set()

    # --- for one key ---

    def spot(self, domain: Domain, key: Key) -> Spot:
        """Return the folder of a record, whether it exists or not."""
        layout = layout_of(domain)
        fields = layout.fields(key)
        scope = _scope(layout, fields)
        spot = self._spots.get(scope)
        if spot is None:
            folder = self._plain(layout, fields)
            keys = [key] if layout.joined is None else sharers(layout, key)
            spot = Spot(folder, None)
            if keys != [key]:
                spot = Spot(folder, f"{folder}%-{hash_of_fields(layout.folder_fields(key))}", key not in keys)
            texts = [part.text(fields) for part in layout.folders]
            if all(text is None or _encoded(text, folder=True) == text for text in texts):  # no folder with another name can appear
                self._remember(scope, spot)
        return spot

    def _remember(self, scope: Key, spot: Spot) -> None:
        if len(self._spots) >= _MOST_FOLDERS:
            self.forget()
        self._spots[scope] = spot

    def prepare(self, domain: Domain, key: Key) -> str:
        """Create the folder of a record if it does not exist, and return it."""
        layout = layout_of(domain)
        fields = layout.fields(key)
        spot = self.spot(domain, key)
        ready = (_scope(layout, fields), spot.folder)
        if ready not in self._ready:
            self._plain(layout, fields, notes=True)
            self._make(spot.folder)
            self._ready.add(ready)
            self._remember(ready[0], spot)
        return spot.folder

    def claim(self, domain: Domain, key: Key, folder: str) -> None:
        """Write which key a folder belongs to before a record is written there, unless the folder has such a note.

        ``folder`` is the prepared folder of an ambiguous name, or the spare one, which is created.
        """
        layout = layout_of(domain)
        assert layout.joined is not None
        fields = layout.fields(key)
        ready = (_scope(layout, fields), f"{folder}/{_KEY}")
        if ready not in self._ready:
            names = layout.folder_fields(key)
            is_spare = folder != self.spot(domain, key).folder
            if is_spare:
                self._make(folder)
            if _owner(folder, layout.joined) is None and (is_spare or self._is_free(layout, names, folder)):
                put_new(write_new(folder, "key", msgspec.json.encode(names)), f"{folder}/{_KEY}")
                sync_folder(folder)
            self._ready.add(ready)

    def _make(self, folder: str) -> None:
        make_folder(folder, durable=self._durable)
        sweep(folder)

    @staticmethod
    def _is_free(layout: Layout, fields: Fields, folder: str) -> bool:
        """Return whether no record in a folder without a note belongs to another key."""
        for name in islice(record_files(folder), _MOST_LOOKED_AT):
            text = _text(folder, name, SUFFIX)
            for key in layout.keys(fields, "", text) if text is not None else ():
                with suppress(FileNotFoundError, NotARegularFileError, ValueError):
                    content = read_bytes(f"{folder}/{name}")
                    if belongs(layout, key, value_of(content), mark_of(content)) is False:
                        return False
        return True

    def owner(self, domain: Domain, folder: str) -> Fields | None:
        """Return the fields in the note of a folder with a joined name, None without a valid note."""
        part = layout_of(domain).joined
        return None if part is None else _owner(folder, part)

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
                if notes:
                    _note_name(path, component, text)
                path = f"{path}/{component}"
        return path

    # --- for all keys ---

    def folders(self, domain: Domain, required: Fields) -> Iterator[Found]:
        """Yield the folders of a domain in natural order. ``required`` holds the values that some of the fields must have."""
        return self._below(layout_of(domain), 0, self._root, {}, required)

    def _below(self, layout: Layout, depth: int, path: str, fields: Fields, required: Fields) -> Iterator[Found]:
        if depth == len(layout.folders):
            yield Found(path, fields)
            return
        part = layout.folders[depth]
        if part.joined:
            for component in _subfolders(path):
                folder = _joined(part, path, component)
                if folder is not None and (folder.fields is None or _matches(folder.fields, required)):
                    yield folder
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


# --- folders with a joined name ---


def _joined(part: PathPart, parent: str, component: str) -> Found | None:
    """Return a folder with a joined name, None if that name is lost."""
    path = f"{parent}/{component}"
    spare = _SPARE.fullmatch(component)
    if spare is not None:
        owner = _owner(path, part)
        if owner is None:  # the note is lost
            text = _text(parent, spare[1], "")
            owner = next((fields for fields in part.splits(text or "") if hash_of_fields(part.values(fields)) == spare[2]), None)
        if owner is None:
            pass_over(path, f"{_KEY}, which holds the key that it belongs to, is missing or damaged")
        return None if owner is None else Found(path, owner)
    text = _text(parent, component, "")
    if text is None:
        return None
    return Found(path, None, text) if part.splits(text) else Found(path, _owner(path, part), text)


def _owner(folder: str, part: PathPart) -> Fields | None:
    """Return the fields in the note of a joined folder, or None without a valid note. An invalid note is set aside."""
    path = f"{folder}/{_KEY}"
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    with suppress(ValueError):
        fields = value_of(content)
        if isinstance(fields, dict) and tuple(map(type, map(fields.get, part.fields))) == part.kinds:
            fields = part.values(fields)
            if _is_named(folder, fields, part):
                return fields
    set_aside(path, content, "it is not the key of this folder")
    return None


def _is_named(folder: str, fields: Fields, part: PathPart) -> bool:
    """Return whether the name of a folder is one for these fields; a folder that was renamed or copied has another."""
    text = part.text(fields) or ""
    name = os.path.basename(folder).removesuffix(f"%-{hash_of_fields(fields)}")
    return name in (text, _encoded(text, folder=True))
