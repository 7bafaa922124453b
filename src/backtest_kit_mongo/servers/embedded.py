"""MongoDB and Redis over one data folder that outlives the process: the first process on it owns them, others borrow them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Self

from ..errors import NotConfiguredError, ServerStartError
from .processes import POLL, MongoServer, RedisServer, accepts, mongo_answers, mongo_uri, open_lock, owned, redis_answers, try_lock

__all__ = ["EmbeddedServers", "default_data_dir"]


class EmbeddedServers:
    """MongoDB and Redis over one data folder that outlives the process.

    The first process on a folder owns the servers, and they end with it. Other processes on the same folder borrow them: their
    ``start`` and ``stop`` do not affect the servers.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir: Path = Path(data_dir).expanduser().absolute()
        self._mongo, self._redis = MongoServer(self.data_dir / "mongo"), RedisServer(self.data_dir / "redis")
        self._found: tuple[str, str] | None = None
        self._guard = threading.RLock()

    @property
    def owned(self) -> bool:
        """True if the servers belong to this object and end with it."""
        return self in owned

    @property
    def mongo_uri(self) -> str:
        """Connection string of the database ``backtest-kit``."""
        return mongo_uri(self._started()[0], "backtest-kit")

    @property
    def redis_socket(self) -> str:
        """Path of the Unix socket that Redis listens on."""
        return self._started()[1]

    def start(self, timeout: float = 30) -> Self:
        """Start both servers in parallel, or borrow those of the owner of the folder. The owner's call restarts servers that died.

        Raises ServerStartError if they do not answer within ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._guard:
            if not self.owned and not self._take_folder(deadline):
                return self
            try:
                servers = [server for server in (self._mongo, self._redis) if not server.alive]
                for server in servers:
                    server.launch(deadline)
                for server in servers:
                    server.await_ready(deadline)
                self._found = (self._mongo.socket, self._redis.socket)
                os.pwrite(owned[self], json.dumps({"pid": os.getpid(), "mongo": self._found[0], "redis": self._found[1]}).encode(), 0)
            except BaseException:
                self.stop()
                raise
        return self

    def stop(self) -> None:
        """Stop the servers if this object owns them; otherwise just stop using them."""
        with self._guard:
            self._found = None
            if (lock := owned.get(self)) is None:
                return
            with contextlib.suppress(OSError):
                os.ftruncate(lock, 0)
            for server in (self._mongo, self._redis):
                server.terminate()
            for server in (self._mongo, self._redis):
                server.stop()
            del owned[self]
            os.close(lock)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedServers {self.data_dir} {'owned' if self.owned else 'not started' if self._found is None else 'borrowed'}>"

    def _started(self) -> tuple[str, str]:
        if self._found is None:
            raise NotConfiguredError("the embedded servers are not started: call start() first")
        return self._found

    def _take_folder(self, deadline: float) -> bool:
        """Become the owner of the folder and return True, or find the servers of its owner and return False."""
        path = self.data_dir / "servers.json"
        with contextlib.ExitStack() as descriptors:
            lock = open_lock(path)
            descriptors.callback(os.close, lock)
            while not try_lock(lock):
                if (addresses := _borrow(lock)) is not None:
                    self._found = addresses
                    return False
                if time.monotonic() > deadline:
                    raise ServerStartError(f"{self.data_dir} belongs to another process, but its servers do not answer; see {path}")
                time.sleep(POLL)
            os.ftruncate(lock, 0)  # the content is from an owner that died
            owned[self] = lock
            descriptors.pop_all()
            return True

    def forget(self) -> None:
        """See Owner."""
        self._guard = threading.RLock()  # a thread of the parent may hold it; servers of the parent count as borrowed here


def default_data_dir() -> Path:
    """Return the default folder of the embedded servers: ``backtest-kit-mongo`` in the user's data home."""
    home = os.environ.get("XDG_DATA_HOME", "")  # the XDG specification says to ignore a relative path
    return (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share") / "backtest-kit-mongo"


def _borrow(lock: int) -> tuple[str, str] | None:
    text = os.pread(lock, 65536, 0)
    try:
        mongo, cache = (json.loads(text)[name] for name in ("mongo", "redis"))
    except (ValueError, TypeError, KeyError):
        return None  # the owner is not ready yet
    if not (accepts(mongo) and accepts(cache) and redis_answers(cache, 1.0) and mongo_answers(mongo, 1.0)):
        return None
    # If the content has changed, a new owner took the folder meanwhile, and it was the old owner's servers that answered.
    return (mongo, cache) if os.pread(lock, 65536, 0) == text else None
