"""Output files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import BacktestKitError, InvalidValueError, StorageError

__all__ = ["check_target", "replacing"]


def check_target(path: str | os.PathLike[str]) -> Path:
    """``path`` if a file can be written there, one that is there already included; InvalidValueError or StorageError says why not.

    For use before the work whose outcome the file is to hold.
    """
    target = Path(path)
    try:
        if problem := _problem(target):
            raise InvalidValueError(f"{target} cannot be written: {problem}")
    except OSError as error:  # such as a name that is too long
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _problem(target: Path) -> str:
    if not target.parent.is_dir():
        return f"there is no folder {target.parent}"
    if target.is_dir():
        return "it is a folder"
    if target.exists() and not target.is_file():  # a device, which a rename would put a file in place of
        return "it is no regular file"
    folder = target.resolve().parent
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"no right to write in {folder}"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes ``path`` at the end of the block, in place of what is there, and vanishes if the block fails.

    StorageError if it cannot be written.
    """
    final = path.resolve()  # through a link, not in place of it
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.replace(temporary, final)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except BacktestKitError:
        raise  # of what the block reads; some of them are OSErrors
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
