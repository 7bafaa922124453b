"""Files that are there whole or not at all: temporaries, links and renames, and what is done with a file that makes no sense."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from ..errors import StorageError
from ..logs import log

__all__ = [
    "Pending",
    "keep_link",
    "make_folder",
    "publish",
    "put_new",
    "read_bytes",
    "set_aside",
    "storage_errors",
    "sweep",
    "sync_folder",
    "write_new",
]

TEMPORARY: Final = ".tmp-"
"""What the names of temporaries begin with, here and in the original."""

_STALE_SECONDS: Final = 120  # a younger temporary may be another process's that is being written

_BATCH: Final = 1000  # temporaries that lie there at once; when the process is killed they do until somebody sweeps

_HINTS: Final = {
    errno.ENOSPC: "free some space; what was acknowledged is still there",
    errno.EDQUOT: "free some space, or raise the quota; what was acknowledged is still there",
    errno.EFBIG: "the file system or a limit of this process (ulimit -f) takes no file of that size",
    errno.EROFS: "the file system is mounted read-only; choose another folder",
    errno.EACCES: "give this user the right to read and write there, or choose another folder",
    errno.EPERM: "give this user the right to read and write there, or choose another folder",
    errno.ENOENT: "somebody deletes folders below it at this very time",
    errno.ENOTDIR: "a part of the path is a file; move it away, or choose another folder",
    errno.EEXIST: "a part of the path is a file; move it away, or choose another folder",
    errno.EISDIR: "a folder stands where a file belongs; move it away",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
    errno.ELOOP: "a symbolic link in the path leads to itself",
    errno.EMFILE: "too many open files in this process; raise ulimit -n",
}

# What a file system says that has no hard links.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Raise OSErrors of the block as StorageError that says ``what`` could not be done, with errno and filename as they were."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        message = f"{what}: {error.strerror or error}"
        if error.filename is not None:
            message += f" ({error.filename})"
        ours = StorageError(message, hint=_HINTS.get(error.errno or 0))
        ours.errno, ours.filename, ours.strerror = error.errno, error.filename, error.strerror
        raise ours from error


def read_bytes(path: str, folder: int | None = None) -> tuple[bytes, os.stat_result]:
    """A whole file and what it is; FileNotFoundError if it is not there (``folder``: a descriptor that ``path`` is relative to)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        content = os.read(descriptor, status.st_size)
        while len(content) < status.st_size and (more := os.read(descriptor, status.st_size)):
            content += more
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)
    return content, status


def make_folder(path: str) -> None:
    """Make a folder, and those above it, so that they survive a loss of power too."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process was faster; were it a file, the next step says so
            os.mkdir(folder)
        sync_folder(os.path.dirname(folder))


def sync_folder(path: str) -> None:
    """Let the names in a folder survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know no such thing
            error.filename = path
            raise
    finally:
        os.close(descriptor)


def write_new(folder: str, name: str, content: bytes) -> str:
    """The path of a new temporary that holds ``content``, on the disk, in an existing folder."""
    path = f"{folder}/{TEMPORARY}{os.urandom(6).hex()}-{name}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = f"{folder}/{name}"
        raise
    return path


def put_new(temporary: str, path: str) -> bool:
    """Move a temporary to ``path`` unless there is something; whether it did. The temporary is gone either way."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Between the question and the answer another process may put its own there; without links that cannot be helped.
            if os.path.lexists(path):
                return False
            os.rename(temporary, path)
        return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def keep_link(path: str, kept: str) -> None:
    """Keep the file at ``path`` under another name too, whatever was there; it is the same file, or a copy where links do not exist."""
    with suppress(FileNotFoundError):
        os.unlink(kept)
    try:
        os.link(path, kept)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        content, _ = read_bytes(path)
        os.rename(write_new(os.path.dirname(kept), os.path.basename(kept), content), kept)


class Pending(NamedTuple):
    """A file to write."""

    folder: str
    name: str
    content: bytes

    @property
    def path(self) -> str:
        """Where it will be."""
        return f"{self.folder}/{self.name}"


def publish(files: Sequence[Pending], put: Callable[[str, Pending], bool]) -> int:
    """Write files into existing folders, each whole or not at all; how many were put.

    ``put`` moves a temporary to its place and says whether it did. Each content is on the disk before its name is, and each folder is
    told once to keep its names.
    """
    done = 0
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        temporaries: list[str] = []
        try:
            for file in batch:
                temporaries.append(write_new(*file))
            done += sum(put(temporary, file) for temporary, file in zip(temporaries, batch, strict=True))
        except BaseException:
            for temporary in temporaries:
                with suppress(OSError):  # most are gone already; what is wrong is in the error that is on its way
                    os.unlink(temporary)
            raise
    for folder in {file.folder for file in files}:
        sync_folder(folder)
    return done


def sweep(folder: str) -> None:
    """Delete temporaries that a process left behind when it was killed."""
    now = time.time()
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                with suppress(FileNotFoundError, PermissionError):
                    if now - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)


def set_aside(path: str, inode: int, reason: str) -> bool:
    """Rename a file that makes no sense (the one that was read, ``inode``), and say so; False if there is another one by now.

    What is in it stays for whoever can repair it, and so do those that were set aside before.
    """
    try:
        for number in itertools.count(1):
            target = f"{path}.corrupt-{number}"
            with suppress(FileExistsError):
                os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
                break
        try:
            os.rename(path, target)
        except OSError:
            os.unlink(target)
            raise
        if os.stat(target).st_ino != inode:
            put_new(target, path)
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        log("warning", f"{path} is corrupt and counts as missing ({reason}); it could not be moved aside: {error}")
        return True
    log("warning", f"{path} is corrupt and counts as missing ({reason}); it is kept as {target}")
    return True
