"""The wire protocol to MongoDB: send prebuilt messages over connections that pymongo opened, without pymongo's work around each call.

pymongo remains in charge of topology, authentication, pooling and failover. The WirePool borrows an open connection from pymongo's
pool and keeps it while it is in use. It returns the connection after a second without use, on an error, on ``close``, and when pymongo
learns that the connections of its pool are dead or that another server is the primary; a forked child forgets it. A borrowed connection
that breaks is reported to pymongo like one of its own. Anything unusual goes through pymongo's public calls: PyOpenSSL, compression,
command listeners, a declared API version, load balancers, automatic encryption, ``pymongo.timeout``, and any reply but plain success.
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, TypeVar

import pymongo
from pymongo import MongoClient
from pymongo.errors import AutoReconnect, NetworkTimeout, PyMongoError
from pymongo.server_selectors import writable_server_selector

from ..._core.bson import decode
from ..._core.op_msg import KNOWS_DEADLINES, MongoSocket, MongoSocketPool
from ..._core.wire_socket import BrokenSocketError, SocketTimeoutError, UnexpectedReplyError
from ...logs import log
from ..fork_safety import renew_after_fork
from .errors import unconfirmed
from .messages import message

__all__ = ["WirePool"]

R = TypeVar("R")

IDLE_NS: Final = 1_000_000_000

# Sockets inherited through fork. They belong to the parent, so nothing may ever touch them, not even a destructor.
_inherited: list[Any] = []


_PING = message({"ping": 1, "$db": "admin"})


def _suits(client: MongoClient[Any]) -> bool:
    """Return whether the client has no setting that needs pymongo between a call and its socket."""
    options = client.options
    listeners = client._event_listeners
    return not (
        (listeners is not None and listeners.enabled_for_commands)
        or options.load_balanced
        or options.auto_encryption_opts
        or options.pool_options.server_api
        or logging.getLogger("pymongo.command").isEnabledFor(logging.DEBUG)
    )


class _Borrowed(NamedTuple):
    """Where a borrowed socket comes from: the pool's checkout, the connection and the address of its server."""

    checkout: Any
    connection: Any
    address: tuple[str, int | None]


class WirePool(MongoSocketPool):
    """The borrowed connections of one client. ``read``, ``write`` and ``match`` of the compiled core use one for a single exchange."""

    def __init__(self, client: MongoClient[Any], *, on: bool) -> None:
        self._client = client
        options = client.options.pool_options
        # At most half of the pool, so that calls through pymongo can still get a connection.
        self._most: float = options.max_pool_size // 2 if options.max_pool_size else math.inf
        try:
            if on and not KNOWS_DEADLINES:
                raise AttributeError("it has no _csot.TIMEOUT")
            self.usable: bool = on and _suits(client)
        except AttributeError as error:
            self._give_up(error)
        self.idle: list[MongoSocket] = []
        self._out = 0
        self._lock = threading.RLock()
        self._keeper: threading.Thread | None = None
        renew_after_fork(self)

    def renew(self) -> None:
        """Forget the sockets of the parent in a forked child, which does not use the parent's client; see ``fork_safety``."""
        _inherited.append(self.idle)
        self.idle = []
        self.usable = False
        self._lock = threading.RLock()

    def pipeline(
        self,
        messages: Iterable[Sequence[bytes]],
        take: Callable[[MongoSocket], R],
        more: Callable[[R], bytes | None] | None = None,
        *,
        ahead: int = 2,
        reads: bool = True,
    ) -> Iterator[R]:
        """Send messages, each a sequence of pieces, and yield ``take(socket)`` for the reply to each one, in order.

        Up to ``ahead`` messages are in flight at a time: enough that the server always has the next one; more would only wait in its
        socket. ``more`` returns the message that requests the rest of an answer, or None if the answer is complete.

        The iterator ends early, without an error, if the remaining messages must go through pymongo. After an unusual reply, it first
        takes the replies to the messages in flight, so that the server has executed them before it gets the next call. With ``reads``, it
        also ends early as soon as the server is no longer the primary.
        """
        mongo_socket = self.borrow()
        if mongo_socket is None:
            return
        remaining = iter(messages)
        early: deque[R] = deque()  # answers taken early, to make room for the reply to a ``more``
        waiting = 0
        ended = whole = False

        def taken() -> R:
            answer = take(mongo_socket)
            if reads and not mongo_socket.serves():
                raise UnexpectedReplyError("the server is no longer the primary")
            return answer

        try:
            while True:
                while not ended and waiting + len(early) < ahead:
                    parts = next(remaining, None)
                    if parts is None:
                        ended = True
                    else:
                        mongo_socket.post(*parts)
                        waiting += 1
                if early:
                    answer = early.popleft()
                elif waiting:
                    waiting -= 1
                    mongo_socket.restart()
                    answer = taken()
                else:
                    break
                yield answer
                while more is not None and (rest := more(answer)) is not None:
                    while waiting:
                        waiting -= 1
                        early.append(taken())
                    mongo_socket.post(rest)
                    answer = taken()
                    yield answer
            whole = True
        except GeneratorExit:  # the caller does not want the rest
            with suppress(BrokenSocketError):
                whole = self._take_rest(mongo_socket, take, waiting)
            raise
        except UnexpectedReplyError as unusual:
            try:
                whole = self._take_rest(mongo_socket, take, waiting)
            except SocketTimeoutError as error:
                raise NetworkTimeout(str(error)) from None
            except BrokenSocketError as error:
                self.report(mongo_socket, error)
                return
            if unusual.unconfirmed is not None:
                self.unconfirmed(unusual.unconfirmed)
        except SocketTimeoutError as error:
            raise NetworkTimeout(str(error)) from None
        except BrokenSocketError as error:
            self.report(mongo_socket, error)
            return
        finally:
            if whole:
                self.give_back(mongo_socket)
            else:
                self.leave(mongo_socket, True)

    @staticmethod
    def _take_rest(mongo_socket: MongoSocket, take: Callable[[MongoSocket], R], waiting: int) -> bool:
        """Take replies that nobody needs, so that the socket is in step again; return True."""
        for _ in range(waiting):
            with suppress(UnexpectedReplyError):
                take(mongo_socket)
        return True

    # --- borrowed sockets ---

    def leave(self, mongo_socket: MongoSocket, broken: bool) -> None:
        """Return the connection to pymongo's pool, which makes room for a new one if this one is ``broken``."""
        loan = mongo_socket.owner
        if broken:
            loan.connection.close_conn(None)
        with self._lock:
            self._out -= 1
        loan.checkout.__exit__(None, None, None)

    def report(self, mongo_socket: MongoSocket, error: Exception) -> None:
        """Tell pymongo's topology that a connection broke, as pymongo's own calls do.

        pymongo then marks the server as unknown until it has checked it again, so the next call waits for a server; and it closes the
        other connections of the same generation. It ignores errors of an older generation.
        """
        if not isinstance(error, SocketTimeoutError):  # pymongo does not blame a timeout on the server
            self._tell(mongo_socket.owner.address, mongo_socket.generation, mongo_socket.owner.connection.max_wire_version, error)

    def renew_connections(self, error: Exception) -> None:
        """Make pymongo replace its connections to the primary."""
        try:
            server = self._client._topology.select_server(writable_server_selector, "find")
            address, generation = server.description.address, server.pool.gen.get_overall()
        except (AttributeError, TypeError) as missing:
            self._give_up(missing)
        else:
            self._tell(address, generation, server.description.max_wire_version, error)

    def _tell(self, address: tuple[str, int | None], generation: int, wire_version: int, error: Exception) -> None:
        context: Any = SimpleNamespace(
            error=AutoReconnect(str(error)),
            max_wire_version=wire_version,
            sock_generation=generation,
            completed_handshake=True,
            service_id=None,
        )
        try:
            self._client._topology.handle_error(address, context)
        except (AttributeError, TypeError) as missing:
            self._give_up(missing)

    def unconfirmed(self, reply: bytes) -> None:
        """Raise the error for a write that was executed but not confirmed, unless pymongo must send it again."""
        error = unconfirmed(decode(reply)["writeConcernError"])
        if not isinstance(error, AutoReconnect):
            raise error

    def open(self) -> MongoSocket | None:
        """Borrow a connection of pymongo's pool and check that it works; return None if the call must go through pymongo."""
        with self._lock:
            if self.closed or self._out >= self._most:
                return None
            self._out += 1
        mongo_socket = None
        try:
            mongo_socket = self._open_one()
        finally:
            if mongo_socket is None:
                with self._lock:
                    self._out -= 1
        return mongo_socket

    def _open_one(self) -> MongoSocket | None:
        limit = self._client.options.timeout
        try:
            with pymongo.timeout(limit) if limit else nullcontext():  # as inside pymongo's own calls
                # Not _topology: with mongodb+srv:// that is None until pymongo has looked up the hosts.
                server = self._client._get_topology().select_server(writable_server_selector, "find")
                checkout = server.pool.checkout()
                connection = checkout.__enter__()
        except PyMongoError as error:
            if error.timeout:
                raise  # the configured time has passed
            return None  # pymongo's own call will run into it again and handle it
        except (AttributeError, TypeError) as error:
            self._give_up(error)
            return None
        mongo_socket = None
        healthy = False
        try:
            sock = getattr(connection.conn, "sock", connection.conn)
            # Other kinds of TLS (PyOpenSSL) have their own socket class.
            if connection.compression_context is None and type(sock) in (socket.socket, ssl.SSLSocket):
                limits = [seconds for seconds in (self._client.options.pool_options.socket_timeout, limit) if seconds]
                generation = server.pool.gen
                generation._generation  # noqa: B018 - if it is missing, the AttributeError is handled here
                server.description.is_writable, server._description, connection.max_wire_version  # noqa: B018 - as above
                owner = _Borrowed(checkout, connection, server.description.address)
                seconds = min(limits, default=0.0)
                mongo_socket = MongoSocket(owner, sock.fileno(), seconds, generation, connection.generation, bool(limit), server)
                if type(sock) is ssl.SSLSocket:
                    connection.set_conn_timeout(seconds or None)
                    mongo_socket.through(sock)
                mongo_socket.command(_PING)
            elif not connection.closed:
                self.usable = False
            healthy = True
        except SocketTimeoutError as error:
            raise NetworkTimeout(str(error)) from None
        except BrokenSocketError:  # pymongo replaces a connection that broke while in the pool
            return None
        except (AttributeError, TypeError, UnexpectedReplyError) as error:
            self._give_up(error)
            return None
        finally:
            if not healthy:
                connection.close_conn(None)
            if mongo_socket is None or not healthy:
                checkout.__exit__(None, None, None)
        if mongo_socket is None:
            return None
        try:
            self._start_keeper()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            checkout.__exit__(None, None, None)
            log("debug", f"the wire protocol is not used: its housekeeping thread cannot start: {error}")
            return None
        return mongo_socket

    def _start_keeper(self) -> None:
        with self._lock:
            if self._keeper is None:
                keeper = threading.Thread(target=_keep, args=(weakref.ref(self),), name="backtest-kit-mongo-wire", daemon=True)
                keeper.start()
                self._keeper = keeper

    def _give_up(self, error: Exception) -> None:
        self.usable = False
        log("info", f"the wire protocol cannot be used with pymongo {pymongo.version} ({error}); all calls go through pymongo itself")

    # --- returning idle sockets ---

    def close(self) -> None:
        """Return all idle sockets to pymongo; a busy one follows when its exchange is over."""
        self.closed = True
        self._return_idle_since(math.inf)

    def _return_idle_since(self, moment: float) -> None:
        """Return the sockets last used before ``moment`` (ns) to pymongo; the list begins with the least recently used."""
        while True:
            try:
                mongo_socket = self.idle.pop(0)
            except IndexError:
                return
            if mongo_socket.used > moment:
                self.idle.insert(0, mongo_socket)
                return
            self.leave(mongo_socket, False)


def _keep(wire: weakref.ref[WirePool]) -> None:
    """Return idle sockets to pymongo, again and again, as long as the pool is in use."""
    while True:
        time.sleep(IDLE_NS / 2e9)
        pool = wire()
        if pool is None or pool.closed:
            return
        pool._return_idle_since(time.monotonic_ns() - IDLE_NS)
        del pool
