"""The wire lane: prebuilt messages on connections that pymongo made, without pymongo's work around each call.

pymongo keeps topology, authentication, pooling and failover. The lane borrows a ready connection from its pool, keeps it while it
is busy, and gives it back when it was idle for a second, on an error, on ``close``, and when pymongo learns that its pool's
connections are dead or that the primary is another server; a forked child forgets it. pymongo is told of a link that broke, as of a
connection of its own. Whatever is unusual goes through pymongo's public calls instead: TLS, compression, command
listeners, a declared API version, load balancers, automatic encryption, ``pymongo.timeout``, and replies that are no plain success.
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

# Links that a child has inherited: their sockets are the parent's, so nothing may ever be done with them, not even by a destructor.
_inherited: list[Any] = []


_PING = message({"ping": 1, "$db": "admin"})


def _suits(client: MongoClient[Any]) -> bool:
    """Whether nothing of the client's settings needs pymongo between a call and its socket."""
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
    """What a link was borrowed with."""

    checkout: Any
    connection: Any
    address: tuple[str, int | None]


class WirePool(MongoSocketPool):
    """The borrowed connections of one client. ``read``, ``write`` and ``match`` of the compiled part use them one exchange at a time."""

    def __init__(self, client: MongoClient[Any], *, on: bool) -> None:
        self._client = client
        options = client.options.pool_options
        # Half of the pool at most, so that calls that go through pymongo find a connection.
        self._most: float = options.max_pool_size // 2 if options.max_pool_size else math.inf
        try:
            if on and not KNOWS_DEADLINES:
                raise AttributeError("it has no _csot.TIMEOUT")
            self.usable = on and _suits(client)
        except AttributeError as error:
            self._give_up(error)
        self.idle = []
        self._out = 0
        self._lock = threading.RLock()
        self._keeper: threading.Thread | None = None
        renew_after_fork(self)

    def renew(self) -> None:
        """In a forked child: forget the links of the parent, whose client the child does not use; see ``forks``."""
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
        """``take(link)`` for the reply to each message (a sequence of pieces), in order.

        Up to ``ahead`` messages are on their way at a time: the server needs one to go on with, and more would only wait in its
        socket. ``more`` gives the message that asks for the rest of an answer, if there is any. Ends early, without an error, where
        what is left must go through pymongo; after an unusual reply not before those that were on their way behind it have come, so
        that the server does not work on them later than on what is sent next. Where it ``reads``, also as soon as the server is no
        longer the primary.
        """
        link = self.borrow()
        if link is None:
            return
        coming = iter(messages)
        early: deque[R] = deque()  # answers that were taken out of the way of a ``more``
        waiting = 0
        ended = whole = False

        def taken() -> R:
            answer = take(link)
            if reads and not link.serves():
                raise UnexpectedReplyError("the server is no longer the primary")
            return answer

        try:
            while True:
                while not ended and waiting + len(early) < ahead:
                    parts = next(coming, None)
                    if parts is None:
                        ended = True
                    else:
                        link.post(*parts)
                        waiting += 1
                if early:
                    answer = early.popleft()
                elif waiting:
                    waiting -= 1
                    link.restart()
                    answer = taken()
                else:
                    break
                yield answer
                while more is not None and (rest := more(answer)) is not None:
                    while waiting:
                        waiting -= 1
                        early.append(taken())
                    link.post(rest)
                    answer = taken()
                    yield answer
            whole = True
        except GeneratorExit:  # nobody wants the rest
            with suppress(BrokenSocketError):
                whole = self._take_rest(link, take, waiting)
            raise
        except UnexpectedReplyError as unusual:
            try:
                whole = self._take_rest(link, take, waiting)
            except SocketTimeoutError as error:
                raise NetworkTimeout(str(error)) from None
            except BrokenSocketError as error:
                self.report(link, error)
                return
            if unusual.unconfirmed is not None:
                self.unconfirmed(unusual.unconfirmed)
        except SocketTimeoutError as error:
            raise NetworkTimeout(str(error)) from None
        except BrokenSocketError as error:
            self.report(link, error)
            return
        finally:
            if whole:
                self.give_back(link)
            else:
                self.leave(link, True)

    @staticmethod
    def _take_rest(link: MongoSocket, take: Callable[[MongoSocket], R], waiting: int) -> bool:
        """Take replies that nobody wants, so that the link is in step again. True."""
        for _ in range(waiting):
            with suppress(UnexpectedReplyError):
                take(link)
        return True

    # --- links ---

    def leave(self, link: MongoSocket, broken: bool) -> None:
        """Give the connection back to pymongo's pool, which makes room for a new one if this one is ``broken``."""
        loan = link.owner
        if broken:
            loan.connection.close_conn(None)
        with self._lock:
            self._out -= 1
        loan.checkout.__exit__(None, None, None)

    def report(self, link: MongoSocket, error: Exception) -> None:
        """Tell pymongo's topology that a link broke, as its own calls do.

        It takes the server for unknown until it has asked it again, so that the next call waits for a server, and closes the other
        connections of that age. An error of an older connection than those it has now it passes over.
        """
        if not isinstance(error, SocketTimeoutError):  # which to pymongo is none of the server's
            self._tell(link.owner.address, link.generation, link.owner.connection.max_wire_version, error)

    def renew_connections(self, error: Exception) -> None:
        """Let pymongo replace its connections to the primary."""
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
        """A write was done and not confirmed: raise what it is to the caller, unless it is to be sent again."""
        error = unconfirmed(decode(reply)["writeConcernError"])
        if not isinstance(error, AutoReconnect):
            raise error

    def open(self) -> MongoSocket | None:
        """A connection of pymongo's pool that has proved to work, or None where there can be none."""
        with self._lock:
            if self.closed or self._out >= self._most:
                return None
            self._out += 1
        link = None
        try:
            link = self._open_one()
        finally:
            if link is None:
                with self._lock:
                    self._out -= 1
        return link

    def _open_one(self) -> MongoSocket | None:
        limit = self._client.options.timeout
        try:
            with pymongo.timeout(limit) if limit else nullcontext():  # as inside of pymongo's own calls
                server = self._client._topology.select_server(writable_server_selector, "find")
                checkout = server.pool.checkout()
                connection = checkout.__enter__()
        except PyMongoError as error:
            if error.timeout:
                raise  # the configured time has passed
            return None  # it will come up again in pymongo's own call, which knows what to do
        except (AttributeError, TypeError) as error:
            self._give_up(error)
            return None
        link = None
        healthy = False
        try:
            sock = getattr(connection.conn, "sock", connection.conn)
            # TLS of other kinds (PyOpenSSL's) is a class of its own.
            if connection.compression_context is None and type(sock) in (socket.socket, ssl.SSLSocket):
                limits = [seconds for seconds in (self._client.options.pool_options.socket_timeout, limit) if seconds]
                generation = server.pool.gen
                generation._generation  # noqa: B018 - the AttributeError, if there is none, is handled here
                server.description.is_writable, server._description, connection.max_wire_version  # noqa: B018 - as above
                owner = _Borrowed(checkout, connection, server.description.address)
                seconds = min(limits, default=0.0)
                link = MongoSocket(owner, sock.fileno(), seconds, generation, connection.generation, bool(limit), server)
                if type(sock) is ssl.SSLSocket:
                    connection.set_conn_timeout(seconds or None)
                    link.through(sock)
                link.command(_PING)
            elif not connection.closed:
                self.usable = False
            healthy = True
        except SocketTimeoutError as error:
            raise NetworkTimeout(str(error)) from None
        except BrokenSocketError:  # a connection that died in the pool is pymongo's to replace
            return None
        except (AttributeError, TypeError, UnexpectedReplyError) as error:
            self._give_up(error)
            return None
        finally:
            if not healthy:
                connection.close_conn(None)
            if link is None or not healthy:
                checkout.__exit__(None, None, None)
        if link is None:
            return None
        try:
            self._start_keeper()
        except RuntimeError as error:  # no more threads, or the interpreter is about to end
            checkout.__exit__(None, None, None)
            log("debug", f"no wire lane without a thread that looks after it: {error}")
            return None
        return link

    def _start_keeper(self) -> None:
        with self._lock:
            if self._keeper is None:
                keeper = threading.Thread(target=_keep, args=(weakref.ref(self),), name="backtest-kit-mongo-lane", daemon=True)
                keeper.start()
                self._keeper = keeper

    def _give_up(self, error: Exception) -> None:
        self.usable = False
        log("info", f"the wire lane cannot be used with pymongo {pymongo.version} ({error}); all calls go through pymongo itself")

    # --- idle links go back ---

    def close(self) -> None:
        """Give all idle links back; a busy one follows when its exchange is over."""
        self.closed = True
        self._return_idle_since(math.inf)

    def _return_idle_since(self, moment: float) -> None:
        """Give links back that were last used before ``moment``; the longest unused stand in front."""
        while True:
            try:
                link = self.idle.pop(0)
            except IndexError:
                return
            if link.used > moment:
                self.idle.insert(0, link)
                return
            self.leave(link, False)


def _keep(lane: weakref.ref[WirePool]) -> None:
    """Look after idle links for as long as the lane is in use."""
    while True:
        time.sleep(IDLE_NS / 2e9)
        here = lane()
        if here is None or here.closed:
            return
        here._return_idle_since(time.monotonic_ns() - IDLE_NS)
        del here
