"""Write output files completely or not at all."""

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
    """Return ``path`` if a file can be written there, whether or not one exists already. Call it before the work that the file will hold.

    Raises InvalidValueError or StorageError with the reason if it cannot be written.
    """
    target = Path(path)
    try:
        if problem := _problem(target):
            raise InvalidValueError(f"{target} cannot be written: {problem}")
    except OSError as error:  # for example a name that is too long
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def _problem(target: Path) -> str:
    if not target.parent.is_dir():
        return f"there is no folder {target.parent}"
    if target.is_dir():
        return "it is a folder"
    if target.exists() and not target.is_file():  # a device: the rename would replace it by a file
        return "it is not a regular file"
    folder = target.resolve().parent
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"no permission to write in {folder}"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces ``path`` at the end of the block, or is deleted if the block fails.

    Raises StorageError if it cannot be written.
    """
    final = path.resolve()  # write through a symbolic link instead of replacing it
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
        raise  # from the code of the block; some of these errors are OSErrors
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
