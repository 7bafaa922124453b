"""Files that are there whole or not at all: temporaries, links and renames, and what is done with a file that makes no sense."""

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
"""What the names of temporaries begin with, here and in the original."""

_STALE_SECONDS: Final = 120  # a younger temporary may be another process's that is being written

LOCK_SECONDS: Final = 15
"""How long a write waits for another process's: the original's limit."""

_BATCH: Final = 1000  # temporaries that lie there at once; when the process is killed they do until somebody sweeps

_HINTS: Final = {
    errno.ENOSPC: "free some space; what was acknowledged is still there",
    errno.EDQUOT: "free some space, or raise the quota; what was acknowledged is still there",
    errno.EFBIG: "the file system or a limit of this process (ulimit -f) takes no file of that size",
    errno.EROFS: "the file system is mounted read-only; choose another folder",
    errno.EACCES: "give this user the right to read and write there, or choose another folder",
    errno.EPERM: "give this user the right to read and write there, or choose another folder",
    errno.ENOENT: "mend the symbolic link in its path if there is one; else somebody deletes folders below it at this very time",
    errno.ENOTDIR: "a part of the path is a file; move it away, or choose another folder",
    errno.EEXIST: "a part of the path is a file; move it away, or choose another folder",
    errno.EISDIR: "a folder stands where a file belongs; move it away",
    errno.ENAMETOOLONG: "choose a folder with a shorter path",
    errno.ELOOP: "mend the symbolic link, or move it away",
    errno.EINVAL: "move it away",
    errno.EMFILE: "too many open files in this process; raise ulimit -n",
}

# What a file system says on which a folder cannot be locked (NFS).
_NO_LOCKS: Final = frozenset({errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

# What a file system says that has no hard links.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class NotARegularFileError(OSError):
    """What has the name of a file is a folder, a pipe or the like, or a link that leads nowhere but to itself."""


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


def read_bytes(path: str) -> bytes:
    """A whole file; FileNotFoundError if it is not there, NotARegularFileError if it is none."""
    try:
        # Or else opening a pipe would wait until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotARegularFileError(error.errno, error.strerror, path) from None
        if error.errno == errno.ENOENT and os.path.islink(path):
            raise NotARegularFileError(errno.ELOOP, "a symbolic link that leads nowhere", path) from None
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise NotARegularFileError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(status.st_mode):
            raise NotARegularFileError(errno.EINVAL, "it is no regular file", path)
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
    """Make a folder, and those above it; if ``durable`` they survive a loss of power too."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process was faster; were it a file, the next step says so
            os.mkdir(folder)
        if durable:
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


@contextmanager
def locked(descriptor: int, path: str, deadline: float) -> Iterator[None]:
    """Hold the lock of an open file or folder; StorageError if another process holds it until ``deadline`` (time.monotonic)."""
    while not try_lock(descriptor):
        if time.monotonic() > deadline:
            raise StorageError(
                f"{path}: nothing was written: another process holds it for more than {LOCK_SECONDS} s",
                hint="look for a stopped process that has it open",
            )
        time.sleep(0.001)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a child that was forked meanwhile has it open too


@contextmanager
def folder_lock(path: str) -> Iterator[None]:
    """Keep other processes from putting a record into a folder, and from comparing and putting one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        with ExitStack() as held:
            try:
                held.enter_context(locked(descriptor, path, time.monotonic() + LOCK_SECONDS))
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                _warn_of_no_locks(error.strerror)
            yield
    finally:
        os.close(descriptor)


@cache
def _warn_of_no_locks(said: str) -> None:
    log("warning", f"folders cannot be locked on this file system ({said}): processes that change one record may undo each other's changes")


def write_new(folder: str, name: str, content: bytes, *, durable: bool = True) -> str:
    """The path of a new temporary that holds ``content``, on the disk if ``durable``, in an existing folder."""
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
    while True:
        try:
            os.link(path, kept)
            return
        except FileExistsError:
            os.unlink(kept)
        except FileNotFoundError:
            if os.path.isdir(os.path.dirname(kept)):
                raise  # it is the file that is gone
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
        """Where it will be."""
        return f"{self.folder}/{self.name}"

    def is_there(self) -> bool:
        """Whether this very content is there already."""
        try:
            return read_bytes(self.path) == self.content
        except (FileNotFoundError, NotARegularFileError):
            return False


def publish(files: Sequence[PendingFile], put: Callable[[str, PendingFile], bool], *, durable: bool) -> int:
    """Write files into existing folders, each whole or not at all; how many were put.

    ``put`` moves a temporary to its place and says whether it did. If ``durable``, each content is on the disk before its name is, and
    each folder is told once to keep its names; else the system writes them when it likes, whatever becomes of this process.
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
                with suppress(OSError):  # most are gone already; what is wrong is in the error that is on its way
                    os.unlink(temporary)
            raise
    for folder in {file.folder for file in files} if durable else ():
        sync_folder(folder)
    return done


def publish_new(files: Sequence[PendingFile], makes_sense: Callable[[str], bool], *, durable: bool) -> int:
    """Write those files that are not there yet, and leave the others as they are; how many were new.

    ``makes_sense`` is asked of a file that is there, and sets it aside if it does not: what is acknowledged can be read again.
    """
    missing = [file for file in files if not (os.path.lexists(file.path) and makes_sense(file.path))]
    return publish(missing, lambda temporary, file: put_new(temporary, file.path), durable=durable)


def sweep(folder: str) -> None:
    """Delete temporaries that a process left behind when it was killed."""
    now = time.time()
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                with suppress(FileNotFoundError, PermissionError):  # swept by somebody else, or for somebody else to sweep
                    if now - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS:
                        os.unlink(entry.path)


def set_aside(path: str, content: bytes, reason: str) -> bool:
    """Rename a file that makes no sense, and say so; False if by now there is something else in it than the ``content`` that was read.

    What is in it stays for whoever can repair it, and so do those that were set aside before.
    """
    if report_skipped(f"{path}: {reason}"):
        log("warning", f"{path} is corrupt and counts as missing ({reason})")
        return True
    try:
        target = _linked_aside(path)
        # While it has this second name, no other file can get its inode.
        if read_bytes(target) != content or not _is_same(path, target):
            os.unlink(target)
            return False
        moved = f"{target}-moved"  # no temporary, which might be swept: it may turn out to be good
        os.rename(path, moved)
        if not _is_same(moved, target):  # somebody has written it anew in this very moment
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
    """A new name for a corrupt file, which keeps its old one."""
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
    """Whether two names are of one file; where there are no links, of files of one content."""
    try:
        if os.path.samestat(os.stat(path), other_status := os.stat(other)):
            return True
        return other_status.st_nlink == 1 and read_bytes(path) == read_bytes(other)
    except FileNotFoundError:
        return False


def pass_over(path: str, reason: str) -> None:
    """Say that a list leaves something out."""
    report_skipped(f"{path}: {reason}")
    log("warning", f"{path} is passed over in lists: {reason}")
