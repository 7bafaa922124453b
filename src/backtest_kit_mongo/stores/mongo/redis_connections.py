"""Connections to Redis, one to a thread, over redis-py or over its socket alone; and the times in which Redis cannot be used."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ..._core.resp import RedisSocket
from ..._core.wire_socket import BrokenSocketError, SocketTimeoutError, UnexpectedReplyError
from ...logs import log

__all__ = ["CircuitBreaker", "DriverConnection", "PostedError", "WireConnection", "reason"]


_REPLICA = "READONLY"


class CircuitBreaker:
    """Something of Redis that cannot be used for now: noticed once, tried again by one call at a time, and noticed when it is back."""

    def __init__(self, gone: str, back: str) -> None:
        self._gone, self._back = gone, back
        self._lock = threading.RLock()
        self.on = False
        self._next_try = self._began = self._ended = 0.0

    def renew(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def blocks(self) -> bool:
        """Whether a call should not even try."""
        if not self.on:
            return False
        with self._lock:
            now = time.monotonic()
            if now < self._next_try:
                return True
            self._next_try = now + 1.0  # until the outcome of this call is known
            return False

    def begin(self, error: Exception, started: float) -> None:
        """A call that began at ``started`` (time.monotonic) failed."""
        now = time.monotonic()
        with self._lock:
            if started < self._ended:
                return  # sent before the outage ended: old news
            first, self.on = not self.on, True
            self._began = now
            # A refusal costs nothing and is tried again soon; a time-out is given five times what it took.
            self._next_try = now + min(5.0, max(0.1, 5 * (now - started)))
        if first:
            log("warning", self._gone.format(reason(error)))

    def end(self, started: float) -> None:
        """A call that began at ``started`` succeeded."""
        with self._lock:
            if started < self._began:
                return  # sent before the outage began: old news
            was, self.on = self.on, False
            self._ended = time.monotonic()
        if was:
            log("info", self._back)


class DriverConnection:
    """A connection of redis-py, used through its methods."""

    broke = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._connected = False

    def call(self, command: bytes) -> Any:
        """Send one command and read its reply."""
        try:
            if not self._connected:
                self._connection.connect()  # sending would do so too, but without asking Sentinels where the primary is
                self._connected = True
            self._connection.send_packed_command((command,), check_health=False)
            return self._connection.read_response()
        except ResponseError as error:  # a whole reply: the connection stays in step
            if isinstance(error, ReadOnlyError):
                self._drop()
            raise
        except (UnicodeError, AttributeError) as error:  # the host is no host name; another thread closed the connection meanwhile
            self._drop()
            raise RedisConnectionError(str(error)) from None
        except BaseException:
            self._drop()  # the reply of this command must never be read by the next one
            raise

    def _drop(self) -> None:
        self._connected = False
        self._connection.disconnect()

    def post(self, command: bytes) -> None:
        """Send one command; there is no sending without waiting here."""
        self.call(command)

    def close(self) -> None:
        """From whatever thread."""
        self._connection.disconnect()


class WireConnection:
    """A connection of redis-py whose socket the compiled core writes and reads, once redis-py has logged in."""

    def __init__(self, connection: Any, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.link: RedisSocket | None = None
        self.broke = False  # in an exchange that will be tried again

    def _run(self, work: Callable[[RedisSocket, bytes], Any], command: bytes) -> Any:
        link = self.link
        try:
            if link is None:
                self._connection.connect()
                sock = self._connection._sock
                link = self.link = RedisSocket(self._connection, sock.fileno(), self._seconds)
                if isinstance(sock, ssl.SSLSocket):
                    link.through(sock)
            answer = work(link, command)
            late = link.take_late_error()
        except UnexpectedReplyError as error:
            # A whole reply: the connection stays in step. But the server was a primary and is a replica now: another one is to be found.
            if str(error).startswith(_REPLICA):
                self.drop()
            raise ResponseError(str(error)) from None
        except BaseException as error:
            self.drop()
            if isinstance(error, SocketTimeoutError):
                raise RedisTimeoutError(str(error)) from None
            if isinstance(error, (BrokenSocketError, UnicodeError)):
                raise RedisConnectionError(str(error)) from None
            raise
        if late is not None:
            if str(late).startswith(_REPLICA):
                self.drop()
            raise PostedError(str(late), answer)
        return answer

    def drop(self) -> None:
        """After a broken exchange: the next one is on a new connection. By the line's own thread."""
        self.link = None
        self._connection.disconnect()

    def call(self, command: bytes) -> Any:
        """Send one command and read its reply."""
        return self._run(RedisSocket.call, command)

    def post(self, command: bytes) -> None:
        """Send one command; its reply is read by the next call."""
        self._run(RedisSocket.post, command)

    def close(self) -> None:
        """From whatever thread. The socket is only ended: its number must not be given to another file while a thread may use it.

        It is closed with the last reference to the connection, which is the one of its thread.
        """
        sock = self._connection._sock
        if sock is not None:
            with contextlib.suppress(OSError):  # the server was quicker
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # that of ssl.SSLSocket would let its thread read on without decryption


class PostedError(ResponseError):
    """An earlier, posted command was refused; ``answer`` is the reply of this one."""

    def __init__(self, text: str, answer: Any) -> None:
        super().__init__(text)
        self.answer = answer


def reason(error: Exception) -> str:
    """An error in one line."""
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
