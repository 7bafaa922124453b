"""Connections to Redis, one per thread, through redis-py or through its socket alone, and the circuit breaker for outages."""

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
    """Keeps calls away from something in Redis that does not work for now.

    It logs the beginning and the end of an outage once. During an outage one call at a time tries again; the others go without Redis.
    """

    def __init__(self, gone: str, back: str) -> None:
        self._gone, self._back = gone, back
        self._lock = threading.RLock()
        self.on: bool = False
        self._next_try = self._began = self._ended = 0.0

    def renew(self) -> None:
        """Start with an unlocked lock in a forked child: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def blocks(self) -> bool:
        """Return whether a call should not even try. If not, during an outage, this call is the one that tries."""
        if not self.on:
            return False
        with self._lock:
            now = time.monotonic()
            if now < self._next_try:
                return True
            self._next_try = now + 1.0  # keeps other calls away until the outcome of this one is known
            return False

    def begin(self, error: Exception, started: float) -> None:
        """Note that a call failed that began at ``started`` (time.monotonic)."""
        now = time.monotonic()
        with self._lock:
            if started < self._ended:
                return  # the call was sent before the last outage ended, so it says nothing new
            first, self.on = not self.on, True
            self._began = now
            # A call that failed quickly costs little and is tried again soon; after a timeout, wait five times as long as it took.
            self._next_try = now + min(5.0, max(0.1, 5 * (now - started)))
        if first:
            log("warning", self._gone.format(reason(error)))

    def end(self, started: float) -> None:
        """Note that a call succeeded that began at ``started`` (time.monotonic)."""
        with self._lock:
            if started < self._began:
                return  # the call was sent before the outage began, so it says nothing new
            was_on, self.on = self.on, False
            self._ended = time.monotonic()
        if was_on:
            log("info", self._back)


class DriverConnection:
    """A connection of redis-py, used through redis-py's methods."""

    broke = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._connected = False

    def call(self, command: bytes) -> Any:
        """Send one command and read its reply."""
        try:
            if not self._connected:
                self._connection.connect()  # sending would connect too, but without asking the Sentinels for the primary
                self._connected = True
            self._connection.send_packed_command((command,), check_health=False)
            return self._connection.read_response()
        except ResponseError as error:  # a complete reply, so the connection stays usable
            if isinstance(error, ReadOnlyError):
                self._drop()
            raise
        except (UnicodeError, AttributeError) as error:  # the host name is invalid, or another thread has closed the connection
            self._drop()
            raise RedisConnectionError(str(error)) from None
        except BaseException:
            self._drop()  # the next command must never read the reply to this one
            raise

    def _drop(self) -> None:
        self._connected = False
        self._connection.disconnect()

    def post(self, command: bytes) -> None:
        """Send one command and read its reply; redis-py cannot send without waiting."""
        self.call(command)

    def close(self) -> None:
        """Close the connection. Any thread may call this."""
        self._connection.disconnect()


class WireConnection:
    """A connection of redis-py with a socket that the compiled core writes and reads, once redis-py has logged in."""

    def __init__(self, connection: Any, seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds
        self.socket: RedisSocket | None = None
        self.broke = False  # an exchange broke; it will be retried once

    def _run(self, work: Callable[[RedisSocket, bytes], Any], command: bytes) -> Any:
        redis_socket = self.socket
        try:
            if redis_socket is None:
                self._connection.connect()
                sock = self._connection._sock
                redis_socket = self.socket = RedisSocket(self._connection, sock.fileno(), self._seconds)
                if isinstance(sock, ssl.SSLSocket):
                    redis_socket.through(sock)
            answer = work(redis_socket, command)
            posted_error = redis_socket.take_posted_error()
        except UnexpectedReplyError as error:
            # A complete reply, so the connection stays usable; but if the server has become a replica, the next call must find the primary.
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
        if posted_error is not None:
            if str(posted_error).startswith(_REPLICA):
                self.drop()
            raise PostedError(str(posted_error), answer)
        return answer

    def drop(self) -> None:
        """Disconnect after a broken exchange; the next one opens a new connection. Only the thread that owns it may call this."""
        self.socket = None
        self._connection.disconnect()

    def call(self, command: bytes) -> Any:
        """Send one command and read its reply."""
        return self._run(RedisSocket.call, command)

    def post(self, command: bytes) -> None:
        """Send one command; the next call reads its reply."""
        self._run(RedisSocket.post, command)

    def close(self) -> None:
        """Shut down the connection. Any thread may call this.

        The socket is shut down but not closed: its descriptor must not be reused for another file while a thread may still use it.
        It is closed with the last reference to the connection, which its own thread holds.
        """
        sock = self._connection._sock
        if sock is not None:
            with contextlib.suppress(OSError):  # the server has closed it already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # SSLSocket.shutdown would let its thread read on, undecrypted


class PostedError(ResponseError):
    """Redis rejected an earlier, posted command. ``answer`` is the reply to the current one."""

    def __init__(self, text: str, answer: Any) -> None:
        super().__init__(text)
        self.answer = answer


def reason(error: Exception) -> str:
    """Return an error as one line of text."""
    text = str(error).splitlines()[0] if str(error) else ""
    text = text.partition(" : <redis.")[0]  # the clients of the Sentinels, with all their options
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
