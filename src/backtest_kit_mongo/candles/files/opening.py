"""Opening candle files: what they are is told by their first bytes; compressed files and archives are opened on the fly."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from ...errors import InvalidValueError
from ..rows import Part, Wanted
from .arrow import read_feather, read_parquet
from .json_text import read_json
from .names import choose_files
from .text import read_text

__all__ = ["read_parts"]

_ZIP: Final = b"PK\x03\x04"
_EMPTY_ZIP: Final = b"PK\x05\x06"
_COMPRESSED: Final[tuple[tuple[bytes, Callable[..., Any]], ...]] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)
_REFUSED: Final = (
    (b"\x89HDF", "an HDF5 file", "read it with pandas.read_hdf, and pass the DataFrame to import_candles"),
    (b"SQLite format 3", "an SQLite database", "read it with pandas.read_sql, and pass the DataFrame to import_candles"),
    (b"\xd0\xcf\x11\xe0", "a spreadsheet", "save it as CSV"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "decompress it first: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"\x80\x04", "a pickle", "open it only if you trust it, and pass the DataFrame to import_candles"),
    (b"\x80\x05", "a pickle", "open it only if you trust it, and pass the DataFrame to import_candles"),
)
_DEEPEST: Final = 3
_LARGEST: Final = 1 << 31
_SHOWN: Final = 100
_BUFFER: Final = 1 << 18


def read_parts(path: Path, wanted: Wanted, moved: Callable[[int], None] = lambda position: None) -> list[Part]:
    """Read a file, or each file of an archive, and return their candles. ``moved`` is called with the bytes read so far.

    Raises InvalidValueError for a file that cannot be read, naming it, and for rows that are not candles.
    """
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe: nothing may ever come, and it cannot be read again
        raise InvalidValueError(f"{path} is not a regular file", hint="save its content to a file first")
    with _errors(str(path)), open(path, "rb", buffering=0) as raw:
        return list(_parts(str(path), cast("IO[bytes]", _Counted(raw, moved)), wanted, 0))


@contextmanager
def _errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError) as error:  # BadGzipFile is an OSError
        raise InvalidValueError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{name} is not UTF-8 text (byte {error.start} of a block: {error.reason})") from error


def _parts(name: str, raw: IO[bytes], wanted: Wanted, depth: int) -> Iterator[Part]:
    stream = io.BufferedReader(cast("io.RawIOBase", raw), _BUFFER)
    magic = stream.peek(512)[:512]
    if magic[257:262] == b"ustar":
        raise InvalidValueError(f"{name} is a tar archive", hint="unpack it first")
    for begin, what, hint in _REFUSED:
        if magic.startswith(begin):
            raise InvalidValueError(f"{name} is {what}", hint=hint)
    opener = next((opener for begin, opener in _COMPRESSED if magic.startswith(begin)), None)
    if depth > _DEEPEST:
        raise InvalidValueError(f"{name} is packed in too many archives", hint="unpack it first")
    if opener is not None:
        with opener(stream) as inner:
            yield from _parts(name, inner, wanted, depth + 1)
    elif magic.startswith((_ZIP, _EMPTY_ZIP)):
        yield from _members(name, stream, wanted, depth)
    elif magic.startswith(b"PAR1"):
        yield read_parquet(name, _seekable(name, stream, depth), wanted)
    elif magic.startswith((b"ARROW1", b"FEA1")):
        yield read_feather(name, _seekable(name, stream, depth), wanted)
    elif magic.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"[", b"{"):
        yield read_json(name, _whole(name, stream).removeprefix(b"\xef\xbb\xbf"), wanted)
    else:
        yield read_text(name, stream, wanted)


def _seekable(name: str, stream: IO[bytes], depth: int) -> IO[bytes]:
    """Return a stream of an archive as one that jumps without unpacking again."""
    return io.BytesIO(_whole(name, stream)) if depth else stream


def _members(name: str, stream: IO[bytes], wanted: Wanted, depth: int) -> Iterator[Part]:
    archive = zipfile.ZipFile(stream if depth == 0 else io.BytesIO(_whole(name, stream)))
    with archive:
        if "[Content_Types].xml" in archive.namelist():
            raise InvalidValueError(f"{name} is a spreadsheet", hint="save it as CSV")
        names = [member.filename for member in archive.infolist() if not member.is_dir() and "__MACOSX" not in member.filename]
        for member in choose_files(f"the archive {name}", names, wanted.symbol, wanted.interval).names:
            inner_name = f"{name}:{_printable(member)}"
            if archive.getinfo(member).flag_bits & 1:
                raise InvalidValueError(f"{inner_name} is encrypted", hint="unpack it first")
            with _errors(inner_name), archive.open(member) as inner:
                yield from _parts(inner_name, inner, wanted, depth + 1)


def _printable(name: str) -> str:
    """Return the name of a member of an archive for messages: short, and without control characters."""
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    return text if len(text) <= _SHOWN else f"…{text[-_SHOWN + 1 :]}"


def _whole(name: str, stream: IO[bytes]) -> bytes:
    """Return all bytes of a stream. Raises InvalidValueError for more than a file of candles has, before they fill the memory."""
    content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise InvalidValueError(f"{name} has more than {_LARGEST >> 30} GB", hint="split it, or write it as CSV or Parquet")
    return content


class _Counted(io.RawIOBase):
    """A file that tells how far it was read, from time to time."""

    def __init__(self, raw: io.RawIOBase | io.FileIO, moved: Callable[[int], None]) -> None:
        self._raw, self._moved, self._told = raw, moved, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(buffer)
        if (position := self._raw.tell()) >= self._told + _BUFFER:
            self._told = position
            self._moved(position)
        return count
