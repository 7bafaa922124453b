"""Write files atomically with temporary files, hard links and renames, and set corrupt files aside."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Final, NamedTuple

from ...errors import StorageError
from ...logs import log
from ...servers.processes import try_lock
from ..skipped_records import report_skipped

__all__ = [
    "LOCK_SECONDS",
    "NotARegularFileError",
    "PendingFile",
    "folder_lock",
    "keep_link",
    "locked",
    "make_folder",
    "pass_over",
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
"""Prefix of the names of temporary files, the same as in the TypeScript package."""

_STALE_SECONDS: Final = 120  # another process may still be writing a younger temporary file

LOCK_SECONDS: Final = 15
"""How long a write waits for a lock that another process holds, in seconds; the limit of the TypeScript package."""

_BATCH: Final = 1000  # temporary files that exist at once; if the process is killed, they stay until ``sweep`` deletes them

_HINTS: Final = {
    errno.ENOSPC: "free some space; acknowledged writes are kept",
    errno.EDQUOT: "free some space, or raise the quota; acknowledged writes are kept",
    errno.EFBIG: "the file system or a limit of this process (ulimit -f) does not allow files of that size",
    errno.EROFS: "the file system is mounted read-only; choose another folder",
    errno.EACCES: "give this user permission to read and write there, or choose another folder",
    errno.EPERM: "give this user permission to read and write there, or choose another folder",
    errno.ENOENT: "repair the symbolic link in the path if there is one; otherwise another program is deleting its folders",
    errno.ENOTDIR: "a part of the path is a file; move it away, or choose another folder",
    errno.EEXIST: "a part of the path is a file; move it away, or choose another folder",
    errno.EISDIR: "there is a folder where a file belongs; move it away",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
    errno.ELOOP: "repair the symbolic link, or move it away",
    errno.EINVAL: "move it away",
    errno.EMFILE: "too many open files in this process; raise ulimit -n",
}

# Errors of file systems that cannot lock a folder (NFS).
_NO_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

# Errors of file systems without hard links, and of links that cannot be made (too many, or across file systems).
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class NotARegularFileError(OSError):
    """The path of a file leads to a folder, a pipe or the like, or is a broken or circular symbolic link."""


@contextmanager
def storage_errors(what: str) -> Iterator[None]:
    """Turn each OSError of the block into a StorageError with the same errno and filename; its message begins with ``what``."""
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


def read_bytes(path: str) -> bytes:
    """Return the content of a file. Raises FileNotFoundError, or NotARegularFileError if the path is something else."""
    try:
        # Without O_NONBLOCK, opening a pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotARegularFileError(error.errno, error.strerror, path) from None
        if error.errno == errno.ENOENT and os.path.islink(path):
            raise NotARegularFileError(errno.ELOOP, "broken symbolic link", path) from None
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise NotARegularFileError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise NotARegularFileError(errno.EINVAL, "not a regular file", path)
        content = os.read(descriptor, status.st_size)
        while len(content) < status.st_size and (more := os.read(descriptor, status.st_size)):
            content += more
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)
    return content


def make_folder(path: str, *, durable: bool = True) -> None:
    """Create a folder and its missing parents; with ``durable`` they survive a power failure."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process was faster; if it is a file, the next step fails
            os.mkdir(folder)
        if durable:
            sync_folder(os.path.dirname(folder))


def sync_folder(path: str) -> None:
    """Make the names in a folder survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot sync a folder
            error.filename = path
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(descriptor: int, path: str, deadline: float) -> Iterator[None]:
    """Hold the lock of an open file or folder. Raises StorageError if another process holds it past ``deadline`` (time.monotonic)."""
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            raise StorageError(
                f"{path}: nothing was written: another process has held its lock for more than {LOCK_SECONDS} s",
                hint="look for a stopped process that has it open",
            )
        time.sleep(0.001)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a child forked in the meantime has the descriptor open too


@contextmanager
def folder_lock(path: str) -> Iterator[None]:
    """Keep other processes from writing to a folder, compare-and-set included; without locks on the file system, only warn."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(descriptor, path, time.monotonic() + LOCK_SECONDS))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                _warn_of_no_locks(error.strerror)
            yield
    finally:
        os.close(descriptor)


@cache
def _warn_of_no_locks(said: str) -> None:
    log("warning", f"this file system cannot lock folders ({said}): processes that write to the same record may undo each other's changes")


def write_new(folder: str, name: str, content: bytes, *, durable: bool = True) -> str:
    """Write ``content`` to a new temporary file in an existing folder, synced to disk if ``durable``, and return its path."""
    path = f"{folder}/{TEMPORARY}{os.urandom(6).hex()}-{name}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            if durable:
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
    """Move a temporary file to ``path`` unless something exists there; return whether it moved. The temporary is gone either way."""
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            # Another process may create the file between the check and the rename; without hard links this cannot be avoided.
            if os.path.lexists(path):
                return False
            os.rename(temporary, path)
        return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def keep_link(path: str, kept: str) -> None:
    """Keep the file at ``path`` under the name ``kept`` too, replacing what was there: a hard link, or a copy without hard links."""
    while True:
        try:
            os.link(path, kept)
            return
        except FileExistsError:
            os.unlink(kept)
        except FileNotFoundError:
            if os.path.isdir(os.path.dirname(kept)):
                raise  # the file itself is missing, not the folder of ``kept``
            os.mkdir(os.path.dirname(kept))
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            content = read_bytes(path)
            make_folder(os.path.dirname(kept))
            os.rename(write_new(os.path.dirname(kept), os.path.basename(kept), content), kept)
            return


class PendingFile(NamedTuple):
    """A file to write."""

    folder: str
    name: str
    content: bytes

    @property
    def path(self) -> str:
        """The path that it will have."""
        return f"{self.folder}/{self.name}"

    def is_there(self) -> bool:
        """Return whether the file already exists with exactly this content."""
        try:
            return read_bytes(self.path) == self.content
        except (FileNotFoundError, NotARegularFileError):
            return False


def publish(files: Sequence[PendingFile], put: Callable[[str, PendingFile], bool], *, durable: bool) -> int:
    """Write files into existing folders, each one atomically; return how many were moved to their final path.

    ``put`` moves a temporary file to its final path and returns whether it did. With ``durable``, the content of each file is on disk
    before its name is, and each folder is synced once at the end; without, the operating system writes the files when it likes, even if
    this process dies.
    """
    done = 0
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        temporaries: list[str] = []
        try:
            for file in batch:
                temporaries.append(write_new(*file, durable=durable))
            done += sum(put(temporary, file) for temporary, file in zip(temporaries, batch, strict=True))
        except BaseException:
            for temporary in temporaries:
                with suppress(OSError):  # most are gone already, and the error being raised says what is wrong
                    os.unlink(temporary)
            raise
    for folder in {file.folder for file in files} if durable else ():
        sync_folder(folder)
    return done


def publish_new(files: Sequence[PendingFile], makes_sense: Callable[[str], bool], *, durable: bool) -> int:
    """Write the files that do not exist yet and leave the others as they are; return how many were new.

    ``makes_sense`` checks the path of an existing file. If the file is corrupt, it sets the file aside and returns False, so that what
    is acknowledged can be read again.
    """
    missing = [file for file in files if not (os.path.lexists(file.path) and makes_sense(file.path))]
    return publish(missing, lambda temporary, file: put_new(temporary, file.path), durable=durable)


def sweep(folder: str) -> None:
    """Delete temporary files that killed processes left in a folder."""
    now = time.time()
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                with suppress(FileNotFoundError, PermissionError):  # another process deleted it, or it is another user's to delete
                    if now - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)


def set_aside(path: str, content: bytes, reason: str) -> bool:
    """Rename a corrupt file and log it; return False if the file no longer holds the ``content`` that was read.

    The renamed file keeps its content, so that you can repair it; files that were set aside before are kept too. Inside
    ``collecting_skipped`` the file is only reported.
    """
    if report_skipped(f"{path}: {reason}"):
        log("warning", f"{path} is corrupt and counts as missing ({reason})")
        return True
    try:
        target = _linked_aside(path)
        # While the file has this second name, no other file can get its inode.
        if read_bytes(target) != content or not _is_same(path, target):
            os.unlink(target)
            return False
        moved = f"{target}-moved"  # not the name of a temporary: the file may turn out to be good and must not be swept
        os.rename(path, moved)
        if not _is_same(moved, target):  # another process has just replaced it
            put_new(moved, path)
            os.unlink(target)
            return False
        os.unlink(moved)
    except FileNotFoundError:
        return False
    except OSError as error:
        log("warning", f"{path} is corrupt and counts as missing ({reason}); it could not be moved aside: {error}")
        return True
    log("warning", f"{path} is corrupt and counts as missing ({reason}); it is kept as {target}")
    return True


def _linked_aside(path: str) -> str:
    """Give a corrupt file a second name (without hard links, a copy) and return its path."""
    for number in itertools.count(1):
        target = f"{path}.corrupt-{number}"
        try:
            os.link(path, target)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            put_new(write_new(os.path.dirname(target), os.path.basename(target), read_bytes(path)), target)
        return target
    raise AssertionError


def _is_same(path: str, other: str) -> bool:
    """Return whether two paths are the same file or, without hard links, files with the same content."""
    try:
        if os.path.samestat(os.stat(path), other_status := os.stat(other)):
            return True
        return other_status.st_nlink == 1 and read_bytes(path) == read_bytes(other)
    except FileNotFoundError:
        return False


def pass_over(path: str, reason: str) -> None:
    """Report and log that lists skip a file or folder."""
    report_skipped(f"{path}: {reason}")
    log("warning", f"{path} is skipped in lists: {reason}")
