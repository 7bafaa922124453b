"""The wire lane: prebuilt messages on connections that pymongo made, without pymongo's work around each call.

pymongo keeps topology, authentication, pooling and failover. The lane borrows a ready connection from its pool, keeps it while it
is busy, and gives it back when it was idle for a second, on an error, on ``close``, and when the generation of pymongo's pool
changes; a forked child forgets it. Whatever is unusual goes through pymongo's public calls instead: TLS, compression, command
listeners, a declared API version, load balancers, automatic encryption, ``pymongo.timeout``, and replies that are no plain success.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import pymongo
from pymongo import MongoClient
from pymongo._csot import get_timeout
from pymongo.errors import NetworkTimeout, PyMongoError, ServerSelectionTimeoutError
from pymongo.server_selectors import writable_server_selector

from .._core.wire import BrokenLink, LinkTimeout, MongoLink, Unusual
from ..logs import log
from .forks import renew_after_fork
from .messages import message

__all__ = ["NOT_TAKEN", "Lane"]

R = TypeVar("R")

NOT_TAKEN: Final[Any] = object()
"""What ``Lane.call`` gives where the call must go through pymongo."""

IDLE_SECONDS: Final = 1.0

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


class Lane:
    """The borrowed connections of one client."""

    def __init__(self, client: MongoClient[Any], *, on: bool) -> None:
        self._client = client
        self._closed = False
        options = client.options.pool_options
        # Half of the pool at most, so that calls that go through pymongo find a connection.
        self._most: float = options.max_pool_size // 2 if options.max_pool_size else math.inf
        try:
            self._usable = on and _suits(client)
        except AttributeError as error:
            self._give_up(error)
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start without links; see ``forks``."""
        _inherited.append(getattr(self, "_idle", None))
        self._idle: list[MongoLink] = []
        self._out = 0
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None

    # --- calls ---

    def call(self, method: Callable[..., R], *args: Any) -> R:
        """``method(link, *args)``: one message and its reply. NOT_TAKEN where the call must go through pymongo."""
        link = self._borrow()
        if link is None:
            return NOT_TAKEN  # type: ignore[no-any-return]
        try:
            answer = method(link, *args)
        except Unusual:
            self._return(link)
        except LinkTimeout as error:
            self._throw_away(link)
            raise NetworkTimeout(str(error)) from None
        except BrokenLink:
            self._throw_away(link)
        except BaseException:  # Ctrl-C in the middle of a reply, a document that cannot be read
            self._throw_away(link)
            raise
        else:
            self._give_back(link)
            return answer
        return NOT_TAKEN  # type: ignore[no-any-return]

    def pipeline(
        self,
        messages: Iterable[Sequence[bytes]],
        take: Callable[[MongoLink], R],
        more: Callable[[R], bytes | None] | None = None,
        *,
        ahead: int = 2,
    ) -> Iterator[R]:
        """``take(link)`` for the reply to each message (a sequence of pieces), in order.

        Up to ``ahead`` messages are on their way at a time: the server needs one to go on with, and more would only wait in its
        socket. ``more`` gives the message that asks for the rest of an answer, if there is any. Ends early, without an error, where
        what is left must go through pymongo.
        """
        link = self._borrow()
        if link is None:
            return
        coming = iter(messages)
        early: deque[R] = deque()  # answers that were taken out of the way of a ``more``
        waiting = 0
        ended = whole = False
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
                    answer = take(link)
                    waiting -= 1
                else:
                    break
                yield answer
                while more is not None and (rest := more(answer)) is not None:
                    while waiting:
                        early.append(take(link))
                        waiting -= 1
                    link.post(rest)
                    answer = take(link)
                    yield answer
            whole = True
        except GeneratorExit:  # nobody wants the rest
            try:
                while waiting:
                    take(link)
                    waiting -= 1
                whole = True
            except (BrokenLink, Unusual):
                whole = False
            raise
        except LinkTimeout as error:
            raise NetworkTimeout(str(error)) from None
        except (BrokenLink, Unusual):
            return
        finally:
            if whole:
                self._give_back(link)
            else:
                self._throw_away(link)

    # --- links ---

    def _borrow(self) -> MongoLink | None:
        """A link for one thread's exchange, or None where the lane cannot be used."""
        if not self._usable or get_timeout() is not None:
            return None
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return self._open()
            _, connection, pool = link.owner
            if not pool.stale_generation(connection.generation, connection.service_id):
                return link
            self._throw_away(link)

    def _give_back(self, link: MongoLink) -> None:
        """After whole exchanges: the next caller may have it."""
        link.used = time.monotonic()
        self._idle.append(link)
        if self._closed:
            self._return_idle_since(math.inf)

    def _return(self, link: MongoLink) -> None:
        """Give the connection back to pymongo's pool."""
        with self._lock:
            self._out -= 1
        link.owner[0].__exit__(None, None, None)

    def _throw_away(self, link: MongoLink) -> None:
        """After a broken exchange: the socket is closed, and pymongo's pool makes room for a new one."""
        link.owner[1].close_conn(None)
        self._return(link)

    def _open(self) -> MongoLink | None:
        if self._closed or self._out >= self._most:
            return None
        try:
            server = self._client._topology.select_server(writable_server_selector, "find")
            checkout = server.pool.checkout()
            connection = checkout.__enter__()
        except (ServerSelectionTimeoutError, NetworkTimeout):
            raise  # the configured time has passed
        except PyMongoError:
            return None  # it will come up again in pymongo's own call, which knows what to do
        except (AttributeError, TypeError) as error:
            self._give_up(error)
            return None
        with self._lock:
            self._out += 1
        link = None
        try:
            sock = getattr(connection.conn, "sock", connection.conn)
            # TLS of any kind is a class of its own.
            if connection.compression_context is None and type(sock) is socket.socket:
                limits = [limit for limit in (sock.gettimeout(), self._client.options.timeout) if limit]
                link = MongoLink((checkout, connection, server.pool), sock.fileno(), min(limits, default=0.0))
                link.command(_PING)
            else:
                self._usable = False
        except LinkTimeout as error:
            connection.close_conn(None)
            self._leave(checkout)
            raise NetworkTimeout(str(error)) from None
        except BrokenLink:  # a connection that died in the pool is pymongo's to replace
            connection.close_conn(None)
            link = None
        except (AttributeError, TypeError, Unusual) as error:
            self._give_up(error)
            link = None
        except BaseException:
            connection.close_conn(None)
            self._leave(checkout)
            raise
        if link is None:
            self._leave(checkout)
            return None
        with self._lock:
            if self._keeper is None:
                self._keeper = threading.Thread(target=_keep, args=(weakref.ref(self),), name="backtest-kit-mongo-lane", daemon=True)
                self._keeper.start()
        return link

    def _leave(self, checkout: Any) -> None:
        with self._lock:
            self._out -= 1
        checkout.__exit__(None, None, None)

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        log("info", f"the wire lane cannot be used with pymongo {pymongo.version} ({error}); all calls go through pymongo itself")

    # --- idle links go back ---

    def close(self) -> None:
        """Give all idle links back; a busy one follows when its exchange is over."""
        self._closed = True
        self._return_idle_since(math.inf)

    def _return_idle_since(self, moment: float) -> None:
        """Give links back that were last used before ``moment``; the longest unused stand in front."""
        while True:
            try:
                link = self._idle.pop(0)
            except IndexError:
                return
            if link.used > moment:
                self._idle.insert(0, link)
                return
            self._return(link)


def _keep(lane: weakref.ref[Lane]) -> None:
    """Look after idle links for as long as the lane is in use."""
    while True:
        time.sleep(IDLE_SECONDS / 2)
        here = lane()
        if here is None or here._closed:
            return
        here._return_idle_since(time.monotonic() - IDLE_SECONDS)
        del here
