"""Redis's RESP2 (redis.io/docs/latest/develop/reference/protocol-spec): send prebuilt commands, read whole replies."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t
from libc.string cimport memchr

from backtest_kit_mongo._core.wire_socket cimport WireSocket, iovec

from backtest_kit_mongo._core.wire_socket import BrokenSocketError, UnexpectedReplyError


@cython.final
cdef class RedisSocket(WireSocket):
    """Sends commands and reads their replies. A call first reads the replies of commands that were posted before it."""

    def post(self, bytes command not None):
        """Send a command. The next ``call`` or ``read_posted`` reads its reply."""
        cdef iovec piece
        if self.pending >= 64:
            self.read_posted()
        piece.iov_base, piece.iov_len = PyBytes_AS_STRING(command), PyBytes_GET_SIZE(command)
        self.send(&piece, 1)
        self.pending += 1

    def read_posted(self):
        """Read the replies of posted commands; keep the last error among them in ``posted_error``."""
        while self.pending:
            self.pending -= 1
            try:
                self.reply(0)
            except UnexpectedReplyError as error:
                self.posted_error = error

    def take_posted_error(self):
        """Return the error of a posted command and forget it; None if there is none."""
        error, self.posted_error = self.posted_error, None
        return error

    cpdef object call(self, bytes command):
        """Send a command and return its reply: bytes, int, list or None. Raises UnexpectedReplyError for an error reply."""
        cdef iovec piece
        if command is None:
            raise TypeError("a command must be bytes, got NoneType")
        piece.iov_base, piece.iov_len = PyBytes_AS_STRING(command), PyBytes_GET_SIZE(command)
        self.send(&piece, 1)
        self.read_posted()
        answer = self.reply(0)
        if self.at != self.filled:
            raise BrokenSocketError("unexpected bytes after a reply")
        self.at = self.filled = 0
        return answer

    cdef Py_ssize_t line(self) except -1:
        """Receive the whole line at ``at`` of the buffer; return its length without CR LF."""
        cdef Py_ssize_t seen = 0
        cdef const unsigned char* end
        while True:
            if self.filled > self.at + seen:
                end = <const unsigned char*> memchr(self.buffer + self.at + seen, 10, self.filled - self.at - seen)
                if end != NULL:
                    seen = end - (self.buffer + self.at)
                    if seen < 1 or self.buffer[self.at + seen - 1] != 13:
                        raise BrokenSocketError("a line of a reply does not end with CR LF")
                    return seen - 1
                seen = self.filled - self.at
            if seen > 65536:
                raise BrokenSocketError("a line of a reply is longer than 65536 bytes")
            self.more(1)

    cdef int more(self, Py_ssize_t size) except -1:
        """Receive at least ``size`` more bytes."""
        if self.at and self.at == self.filled:
            self.at = self.filled = 0
        if self.filled + size > self.capacity:
            self.reserve(2 * (self.filled + size))
        self.receive(self.filled + size)
        return 0

    cdef int64_t number(self, Py_ssize_t length) except? -1:
        """Return the integer of the line at ``at``, behind the byte of its kind."""
        cdef int64_t value = 0
        cdef Py_ssize_t i = 1
        cdef bint negative = length > 1 and self.buffer[self.at + 1] == 45
        if negative:
            i = 2
        if length - i < 1 or length - i > 18:
            raise BrokenSocketError("a length or integer of a reply is not a valid number")
        while i < length:
            if not 48 <= self.buffer[self.at + i] <= 57:
                raise BrokenSocketError("a length or integer of a reply is not a valid number")
            value = value * 10 + (self.buffer[self.at + i] - 48)
            i += 1
        return -value if negative else value

    cdef object reply(self, int depth):
        cdef Py_ssize_t length = self.line()
        cdef unsigned char kind
        cdef int64_t size, _i
        cdef object value
        if length < 1:
            raise BrokenSocketError("a line of a reply is empty")
        kind = self.buffer[self.at]
        if kind == 43 or kind == 45:  # simple string, error
            value = PyBytes_FromStringAndSize(<const char*> self.buffer + self.at + 1, length - 1)
            self.at += length + 2
            if kind == 45:
                raise UnexpectedReplyError(value.decode("utf-8", "replace"))
            return value
        size = self.number(length)
        self.at += length + 2
        if kind == 58:  # integer
            return size
        if kind == 36:  # bulk string
            if size == -1:
                return None
            if not 0 <= size <= 512 * 1024 * 1024:
                raise BrokenSocketError(f"a string of a reply has an invalid length of {size} bytes")
            while self.filled < self.at + size + 2:  # allocate for bytes that arrive, not for what a length says
                self.more(min(self.at + size + 2 - self.filled, 65536))
            value = PyBytes_FromStringAndSize(<const char*> self.buffer + self.at, size)
            if self.buffer[self.at + size] != 13 or self.buffer[self.at + size + 1] != 10:
                raise BrokenSocketError("a string of a reply does not end with CR LF")
            self.at += size + 2
            return value
        if kind == 42:  # array
            if size == -1:
                return None
            if not 0 <= size <= 1024 * 1024 or depth:
                raise BrokenSocketError(f"an array of a reply is nested or has an invalid size: {size}")
            value = []
            for _i in range(size):
                try:
                    (<list> value).append(self.reply(depth + 1))
                except UnexpectedReplyError as error:
                    raise BrokenSocketError(f"a reply has an error inside an array: {error}") from None
            return value
        raise BrokenSocketError(f"a reply begins with the unknown type byte {kind}")
