"""Send and receive bytes over sockets that a driver opened, with the GIL released. The base of the MongoDB and Redis sockets.

A ``WireSocket`` knows no host, login or certificate. Those belong to the driver: a ``WireSocket`` only borrows the socket of a
connection that the driver made ready. If that is an ``ssl.SSLSocket``, bytes go through it (``through``).

Two errors must not be confused. ``BrokenSocketError``: the bytes are not as expected. Throw the socket away, because a later call
might take an overdue reply for its own. ``UnexpectedReplyError``: a whole reply that is not a plain success. The socket is in step, and
the driver may send the call again and report the error better.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t
from libc.string cimport memset

import os

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char* memory, Py_ssize_t size, int flags)
    int PyBUF_WRITE

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int CLOCK_REALTIME
    int clock_gettime(int clock, timespec* moment)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd* fds, unsigned long count, int timeout)
    short POLLIN
    short POLLOUT

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int fd, const msghdr* message, int flags)
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    int MSG_NOSIGNAL
    int MSG_DONTWAIT


cdef enum:
    TURN_MS = 100


cdef int64_t now_ns() noexcept:
    """Return the time on the clock of time.monotonic_ns()."""
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t> moment.tv_sec * 1_000_000_000 + moment.tv_nsec


cdef int64_t today_ms() noexcept:
    """Return the current time in ms since 1970."""
    cdef timespec moment
    clock_gettime(CLOCK_REALTIME, &moment)
    return <int64_t> moment.tv_sec * 1000 + moment.tv_nsec // 1_000_000


class BrokenSocketError(Exception):
    """The byte stream can no longer be trusted: throw the connection away."""


class SocketTimeoutError(BrokenSocketError):
    """No whole reply came within the timeout. It may still come, so the connection must be thrown away as well."""


class UnexpectedReplyError(Exception):
    """A whole reply that is not a plain success; the connection is in step."""

    unconfirmed = None
    """The reply of a write that was done but not confirmed as its write concern demands."""


cdef int _send_all(int fd, iovec* pieces, int count, int timeout_ms) noexcept nogil:
    """Return 0, -1 with errno, -2 for a timeout, or -3 if there are bytes to read and no room to write; ``pieces`` keep what is left.

    A peer that is sending a long reply may accept no more bytes until its reply is read.
    """
    cdef msghdr message
    cdef ssize_t sent
    cdef pollfd waiting
    cdef int first = 0
    memset(&message, 0, sizeof(message))  # msghdr(msg_iov=...) would leave the address and the control data to chance
    while first < count:
        if pieces[first].iov_len == 0:
            first += 1
            continue
        message.msg_iov, message.msg_iovlen = &pieces[first], count - first
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent < 0:
            if errno != EAGAIN:
                return -1
            waiting.fd = fd
            waiting.events = POLLIN | POLLOUT
            sent = poll(&waiting, 1, timeout_ms)
            if sent < 0:
                return -1
            if sent == 0:
                return -2
            if waiting.revents & POLLIN and not waiting.revents & POLLOUT:
                return -3
            continue
        while sent > 0:
            if <size_t> sent >= pieces[first].iov_len:
                sent -= pieces[first].iov_len
                pieces[first].iov_len = 0
                first += 1
            else:
                pieces[first].iov_base = <char*> pieces[first].iov_base + sent
                pieces[first].iov_len -= sent
                sent = 0
    return 0


cdef int _await(int fd, int timeout_ms) noexcept nogil:
    """Return 1 when there is something to read, -1 with errno, or -2 for a timeout."""
    cdef pollfd waiting
    cdef int ready
    waiting.fd = fd
    waiting.events = POLLIN
    ready = poll(&waiting, 1, timeout_ms)
    return -2 if ready == 0 else ready


cdef ssize_t _receive(int fd, unsigned char* buffer, size_t size, int timeout_ms) noexcept nogil:
    """Return how many bytes came (0: the peer closed the connection), -1 with errno, or -2 for a timeout."""
    cdef int ready = _await(fd, timeout_ms)
    return recv(fd, buffer, size, 0) if ready > 0 else ready


cdef class WireSocket:
    """A borrowed socket and a buffer for its replies. Only one thread at a time may use it."""

    def __cinit__(self, object owner not None, int fd, double timeout_seconds, *_):
        self.owner = owner
        self.fd = fd
        self.timeout_ms = -1 if timeout_seconds <= 0 else <int> (timeout_seconds * 1000) + 1
        self.capacity = 8192
        self.buffer = <unsigned char*> PyMem_RawMalloc(self.capacity)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_RawFree(self.buffer)

    def through(self, tls not None):
        """Send and receive through an ``ssl.SSLSocket`` on the same descriptor. Within a TLS record, its own timeout applies."""
        self.tls = tls

    cdef int reserve(self, Py_ssize_t size) except -1:
        cdef unsigned char* grown
        if size > self.capacity:
            grown = <unsigned char*> PyMem_RawRealloc(self.buffer, size)
            if grown == NULL:
                raise MemoryError
            self.buffer = grown
            self.capacity = size
        return 0

    cdef int begin(self) except -1:
        """Start the timeout."""
        if self.timeout_ms >= 0:
            self.until = now_ns() + self.timeout_ms * <int64_t> 1_000_000
        return 0

    def restart(self):
        """Start the timeout again. For callers that did something else between sending and reading the reply."""
        self.begin()

    cdef int left(self) noexcept:
        """Return what is left of the timeout in ms, or -1 without a timeout. A signal that is handled meanwhile does not extend it."""
        if self.timeout_ms < 0:
            return -1
        return <int> max(0, (self.until - now_ns() + 999_999) // 1_000_000)

    cdef int send(self, iovec* pieces, int count) except -1:
        cdef int outcome, left
        cdef ssize_t got
        self.begin()
        if self.tls is not None:
            return self.send_encrypted(pieces, count)
        while True:
            left = self.left()
            with nogil:
                outcome = _send_all(self.fd, pieces, count, left)
            if outcome == 0:
                return 0
            if outcome == -3:
                self.reserve(self.filled + 65536)
                with nogil:
                    got = _receive(self.fd, self.buffer + self.filled, self.capacity - self.filled, 0)
                self.take(got)
            elif outcome == -2:
                raise SocketTimeoutError("the server accepted no more bytes within the timeout")
            elif errno == EINTR:
                PyErr_CheckSignals()
            else:
                raise BrokenSocketError(f"sending failed: {os.strerror(errno)}")

    cdef int send_encrypted(self, iovec* pieces, int count) except -1:
        cdef int i
        cdef list parts = [PyBytes_FromStringAndSize(<char*> pieces[i].iov_base, pieces[i].iov_len) for i in range(count)]
        try:
            self.tls.sendall(parts[0] if count == 1 else b"".join(parts))  # one record, if it is small
        except TimeoutError:
            raise SocketTimeoutError("the server accepted no more bytes within the timeout") from None
        except OSError as error:
            raise BrokenSocketError(f"sending failed: {error}") from None
        return 0

    cdef ssize_t receive_encrypted(self, int turn) except -3:
        """Like ``_receive``, through TLS. An ssl.SSLSocket may hold bytes that have already left its descriptor."""
        cdef int ready = 1
        cdef Py_ssize_t room = self.capacity - self.filled
        if not self.tls.pending():
            with nogil:
                ready = _await(self.fd, turn)
        if ready < 0:
            return ready
        try:
            return self.tls.recv_into(PyMemoryView_FromMemory(<char*> self.buffer + self.filled, room, PyBUF_WRITE), room)
        except TimeoutError:
            return -2
        except OSError as error:
            raise BrokenSocketError(f"receiving failed: {error}") from None

    cdef int take(self, ssize_t got) except -1:
        """Process the result of a read; call this before anything else sets errno."""
        if got > 0:
            self.filled += got
            if not self.whole:
                self.begin()
        elif got == 0:
            raise BrokenSocketError("the server closed the connection")
        elif got == -2:
            raise SocketTimeoutError("no reply came within the timeout")
        elif errno == EINTR:
            PyErr_CheckSignals()
        elif errno != EAGAIN:
            raise BrokenSocketError(f"receiving failed: {os.strerror(errno)}")
        return 0

    cdef Py_ssize_t receive(self, Py_ssize_t needed) except -1:
        """Read until ``needed`` bytes are in the buffer, perhaps more; return how many there are."""
        cdef ssize_t got
        cdef int left, turn
        self.reserve(needed)
        if not self.whole:
            self.begin()
        while self.filled < needed:
            left = self.left()
            turn = left if 0 <= left < TURN_MS else TURN_MS
            if self.tls is not None:
                got = self.receive_encrypted(turn)
            else:
                with nogil:
                    got = _receive(self.fd, self.buffer + self.filled, self.capacity - self.filled, turn)
            if got == -2 and turn != left:
                self.look_up()
            else:
                self.take(got)
        return self.filled

    cdef int look_up(self) except -1:
        """Called every ``TURN_MS`` while waiting: raise BrokenSocketError if there is nothing left to wait for."""
        return 0
