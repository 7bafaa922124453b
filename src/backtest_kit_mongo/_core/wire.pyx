"""Whole replies on sockets that a driver has opened: MongoDB's OP_MSG (mongodb.com/docs/manual/reference/mongodb-wire-protocol)
and Redis's RESP2 (redis.io/docs/latest/develop/reference/protocol-spec), sent and read with the GIL released.

A ``Link`` knows no host, login or encryption: those are the driver's, and a link only borrows a socket of which the driver has
made a ready connection. Two things can go wrong, and they must not be mixed up. ``BrokenLink``: the bytes are not what they
should be, the socket must be thrown away, since a later reply might be taken for this one's. ``Unusual``: a whole reply which is
no plain success; the socket is in step, and the driver may ask again and say it better.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, PyObject
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcpy, memmove, memset, strlen

import os

from pymongo._csot import TIMEOUT as _TIMEOUT
from pymongo.errors import NetworkTimeout

from backtest_kit_mongo._core.counters cimport Counters
from backtest_kit_mongo._core.bson cimport Element, RecordReader, document_size, find_element, next_element, number_of

cdef extern from "Python.h":
    int PyContextVar_Get(object var, PyObject* default_value, PyObject** value) except -1

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
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


class BrokenLink(Exception):
    """The stream cannot be trusted any more: throw the connection away."""


class LinkTimeout(BrokenLink):
    """No whole reply within the time-out; the reply may still come, so the connection must go as well."""


class Unusual(Exception):
    """A whole reply that is no plain success; the connection is in step."""


cdef enum:
    HEADER = 16
    OP_MSG = 2013
    # MongoDB's own limit for one message (maxMessageSizeBytes); a length beyond it is garbage.
    LARGEST = 48_000_000 + 16_384
    PIECES = 4


cdef int32_t _int32(const unsigned char* at) noexcept nogil:
    cdef int32_t value
    memcpy(&value, at, 4)
    return value


cdef int _send_all(int fd, iovec* pieces, int count, int timeout_ms) noexcept nogil:
    """0, or -1 with errno; EINTR is the caller's to handle and the pieces say what is left."""
    cdef msghdr message
    cdef ssize_t sent
    cdef pollfd waiting
    cdef int first = 0
    while first < count:
        if pieces[first].iov_len == 0:
            first += 1
            continue
        message = msghdr(msg_iov=&pieces[first], msg_iovlen=count - first)
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent < 0:
            if errno != EAGAIN:
                return -1
            waiting.fd = fd
            waiting.events = POLLOUT
            sent = poll(&waiting, 1, timeout_ms)
            if sent < 0:
                return -1
            if sent == 0:
                return -2
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


cdef ssize_t _receive(int fd, unsigned char* buffer, size_t size, int timeout_ms) noexcept nogil:
    """How many bytes came (0: the other side closed), -1 with errno, -2 for a time-out."""
    cdef pollfd waiting
    cdef int ready
    waiting.fd = fd
    waiting.events = POLLIN
    ready = poll(&waiting, 1, timeout_ms)
    if ready < 0:
        return -1
    if ready == 0:
        return -2
    return recv(fd, buffer, size, 0)


cdef class Link:
    """A borrowed socket and a buffer for its replies. For one thread at a time."""

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

    cdef int reserve(self, Py_ssize_t size) except -1:
        cdef unsigned char* grown
        if size > self.capacity:
            grown = <unsigned char*> PyMem_RawRealloc(self.buffer, size)
            if grown == NULL:
                raise MemoryError
            self.buffer = grown
            self.capacity = size
        return 0

    cdef int send(self, iovec* pieces, int count) except -1:
        cdef int outcome
        while True:
            with nogil:
                outcome = _send_all(self.fd, pieces, count, self.timeout_ms)
            if outcome == 0:
                return 0
            if outcome == -2:
                raise LinkTimeout("the server took no more bytes within the time-out")
            if errno != EINTR:
                raise BrokenLink(f"sending failed: {os.strerror(errno)}")
            PyErr_CheckSignals()

    cdef Py_ssize_t receive(self, Py_ssize_t wanted) except -1:
        """Read until ``wanted`` bytes are in the buffer; more may have come with them."""
        cdef ssize_t got
        self.reserve(wanted)
        while self.filled < wanted:
            with nogil:
                got = _receive(self.fd, self.buffer + self.filled, self.capacity - self.filled, self.timeout_ms)
            if got > 0:
                self.filled += got
            elif got == 0:
                raise BrokenLink("the server closed the connection")
            elif got == -2:
                raise LinkTimeout("no reply within the time-out")
            elif errno == EINTR:
                PyErr_CheckSignals()
            elif errno != EAGAIN:
                raise BrokenLink(f"receiving failed: {os.strerror(errno)}")
        return self.filled


@cython.final
cdef class MongoLink(Link):
    """Sends OP_MSGs and reads their replies in order. The last one's document stays in the buffer, at ``document`` of ``size`` bytes.

    Several messages may be on their way (``post``): the server answers them one after the other, so it works on the next one while
    the last answer is being looked at. All but the first must be small, or their answers must be: who sends while nobody reads what
    the server has to say could wait for it for ever.
    """

    def __cinit__(self, object owner, int fd, double timeout_seconds, object pool_generation, int64_t generation):
        self.pool_generation = pool_generation
        self.generation = generation
        self.expected = 1

    cdef const unsigned char* document(self) noexcept:
        return self.buffer + HEADER + 5

    cdef int send_message(self, iovec* body, int count) except -1:
        """Send the pieces of a message body (flags, sections); ``body`` has room for the header in front."""
        cdef int32_t header[4]
        cdef Py_ssize_t length = HEADER
        cdef int i
        for i in range(1, count):
            length += body[i].iov_len
        if length > LARGEST:
            raise ValueError(f"a message of {length} bytes is more than MongoDB takes")
        if self.request == self.expected - 1:  # nothing is on its way
            if self.filled != self.total:
                raise BrokenLink("more bytes than one reply")
            self.filled = self.total = 0
            if self.request == 0x7FFFFFFF:
                self.request, self.expected = 0, 1
        elif self.request == 0x7FFFFFFF:
            raise BrokenLink("request ids have run out")
        self.request += 1
        header[0], header[1], header[2], header[3] = <int32_t> length, self.request, 0, OP_MSG
        body[0].iov_base = header
        body[0].iov_len = HEADER
        return self.send(body, count)

    cdef int receive_message(self) except -1:
        """Read the reply to the oldest message that has none yet."""
        if self.expected > self.request:
            raise ValueError("no reply is due")
        if self.total:  # what came behind the last reply
            self.filled -= self.total
            memmove(self.buffer, self.buffer + self.total, self.filled)
            self.total = 0
        self.receive(HEADER)
        cdef Py_ssize_t total = _int32(self.buffer)
        if total < HEADER + 5 + 5 or total > LARGEST:
            raise BrokenLink(f"a reply of {total} bytes")
        if _int32(self.buffer + 12) != OP_MSG:
            raise BrokenLink(f"a reply with opcode {_int32(self.buffer + 12)}")
        if _int32(self.buffer + 8) != self.expected:
            raise BrokenLink("a reply to another request")
        self.receive(total)
        cdef int32_t flags = _int32(self.buffer + HEADER)
        self.size = total - HEADER - 5 - (4 if flags & 1 else 0)  # bit 0: a checksum stands at the end
        if flags & ~1 or self.buffer[HEADER + 4] != 0 or self.size < 5 or _int32(self.document()) != self.size:
            raise BrokenLink("a reply that is not one document")
        self.total = total
        self.expected += 1
        if self.filled != total and self.expected > self.request:
            raise BrokenLink("more bytes than one reply")
        return 0

    cdef int find(self, const char* name, Element* found) except -1:
        return find_element(self.document(), self.size, name, strlen(name), found)

    cdef int succeeded(self) except -1:
        """Raise Unusual unless the reply says ok and nothing of an error. BSON that is none breaks the link."""
        cdef Element found
        try:
            if not self.find(b"ok", &found) or number_of(&found) != 1.0:
                raise Unusual("not ok")
            if self.find(b"writeErrors", &found) or self.find(b"writeConcernError", &found):
                raise Unusual("write error")
        except ValueError as error:
            raise BrokenLink(f"a reply that is no BSON: {error}") from None
        return 0

    cdef int batch(self, Element* batch, int64_t* cursor) except -1:
        """Find the documents and the cursor's id in the reply of find or getMore."""
        cdef Element outer, inner
        self.succeeded()
        try:
            if not self.find(b"cursor", &outer) or outer.kind != 0x03:
                raise Unusual("no cursor")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenLink("a cursor that is no document")
            if not find_element(outer.value, outer.size, b"firstBatch", 10, batch):
                if not find_element(outer.value, outer.size, b"nextBatch", 9, batch):
                    raise Unusual("no batch")
            if batch.kind != 0x04 or document_size(batch.value, batch.size) != batch.size:
                raise BrokenLink("a batch that is no array")
            if not find_element(outer.value, outer.size, b"id", 2, &inner) or inner.kind != 0x12:
                raise Unusual("no cursor id")
        except ValueError as error:
            raise BrokenLink(f"a reply that is no BSON: {error}") from None
        memcpy(cursor, inner.value, 8)
        return 0

    def post(self, *parts):
        """Send a message in up to four pieces (flags and sections); its reply is read later, in its turn."""
        cdef iovec pieces[PIECES + 1]
        cdef bytes part
        cdef int count = 1
        if not 0 < len(parts) <= PIECES:
            raise ValueError(f"a message in {len(parts)} pieces")
        for part in parts:
            pieces[count].iov_base, pieces[count].iov_len = PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part)
            count += 1
        self.send_message(pieces, count)

    def reply(self) -> bytes:
        """The reply document of the oldest message that has none yet, whatever it says."""
        self.receive_message()
        return PyBytes_FromStringAndSize(<const char*> self.document(), self.size)

    def success(self) -> bytes:
        """As ``reply``; Unusual unless it is plain success."""
        self.receive_message()
        self.succeeded()
        return PyBytes_FromStringAndSize(<const char*> self.document(), self.size)

    def command(self, *parts) -> bytes:
        """Send a message and read its reply, which must be plain success."""
        self.post(*parts)
        return self.success()

    cdef int one(self, bytes head, bytes middle, bytes tail, Element* document) except -1:
        """Send a find in three pieces and read its one document; 0 if there is none."""
        cdef iovec pieces[4]
        cdef Element batch
        cdef int64_t cursor
        cdef Py_ssize_t at = 4
        pieces[1].iov_base, pieces[1].iov_len = PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head)
        pieces[2].iov_base, pieces[2].iov_len = PyBytes_AS_STRING(middle), PyBytes_GET_SIZE(middle)
        pieces[3].iov_base, pieces[3].iov_len = PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail)
        self.send_message(pieces, 4)
        self.receive_message()
        self.batch(&batch, &cursor)
        try:
            if not next_element(batch.value, batch.size, &at, document):
                return 0
        except ValueError as error:
            raise BrokenLink(f"a reply that is no BSON: {error}") from None
        if document.kind != 0x03:
            raise BrokenLink("a batch of something else")
        return 1

    def find_one(self, bytes head not None, bytes middle not None, bytes tail not None):
        """The bytes of the one document that a find (in three pieces) leads to, or None."""
        cdef Element document
        if not self.one(head, middle, tail, &document):
            return None
        return PyBytes_FromStringAndSize(<const char*> document.value, document.size)

    def find_documents(self):
        """The reply of a posted find or getMore: (its documents end to end, id of the cursor that has more or 0)."""
        cdef Element batch, document
        cdef int64_t cursor
        cdef Py_ssize_t at = 4, size = 0
        self.receive_message()
        self.batch(&batch, &cursor)
        # Moved together in place, over the names "0", "1", ... of the array: first walked through, since a hole would be lost.
        cdef char* target = <char*> batch.value
        try:
            while next_element(batch.value, batch.size, &at, &document):
                if document.kind != 0x03:
                    raise BrokenLink("a batch of something else")
        except ValueError as error:
            raise BrokenLink(f"a reply that is no BSON: {error}") from None
        at = 4
        while next_element(batch.value, batch.size, &at, &document):
            memmove(target + size, document.value, document.size)
            size += document.size
        return PyBytes_FromStringAndSize(target, size), cursor

    def upserted(self, bytes message not None):
        """Send a findAndModify that gives the new document; (its ``_id`` in 12 bytes or None if that is no ObjectId, whether it is new)."""
        cdef iovec pieces[2]
        cdef Element outer, inner
        cdef bint known
        pieces[1].iov_base, pieces[1].iov_len = PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message)
        self.send_message(pieces, 2)
        self.receive_message()
        self.succeeded()
        try:
            if not self.find(b"lastErrorObject", &outer) or outer.kind != 0x03:
                raise Unusual("no outcome")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenLink("an outcome that is no document")
            if not find_element(outer.value, outer.size, b"updatedExisting", 15, &inner) or inner.kind != 0x08:
                raise Unusual("no outcome")
            known = inner.value[0] == 1
            if not self.find(b"value", &outer) or outer.kind != 0x03:
                raise Unusual("no document")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenLink("a value that is no document")
            if not find_element(outer.value, outer.size, b"_id", 3, &inner):
                raise Unusual("a document without _id")
        except ValueError as error:
            raise BrokenLink(f"a reply that is no BSON: {error}") from None
        return PyBytes_FromStringAndSize(<const char*> inner.value, 12) if inner.kind == 0x07 else None, not known


NOT_TAKEN = object()
"""What a call gives that must go through the driver."""


cdef int64_t now_ns() noexcept:
    """The clock of time.monotonic_ns()."""
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return <int64_t> moment.tv_sec * 1_000_000_000 + moment.tv_nsec


cdef bint _has_deadline() except -1:
    """Whether this thread is inside ``pymongo.timeout``, whose deadline the driver keeps."""
    cdef PyObject* value = NULL
    PyContextVar_Get(_TIMEOUT, NULL, &value)
    if value == NULL:
        return False
    limit = <object> value
    Py_DECREF(limit)  # the reference that came with it
    return limit is not None


cdef class MongoLinks:
    """Idle links, and what becomes of one after a call. Opening them and giving them back is the work of the class above this one."""

    def open(self) -> MongoLink | None:
        """A new link, or None where there can be none."""
        raise NotImplementedError

    def leave(self, MongoLink link, bint broken) -> None:
        """Part with a link; a broken one's socket must never be used again."""
        raise NotImplementedError

    cpdef object borrow(self):
        """A link for one thread's exchange, or None where a call must go through the driver."""
        cdef MongoLink link
        if not self.usable or _has_deadline():
            return None
        while self.idle:
            link = self.idle.pop()
            # The driver raises its pool's generation when it has learned that connections are dead, or that the primary is another.
            if link.pool_generation._generation == link.generation:
                return link
            self.leave(link, True)
        return self.open()

    cpdef object give_back(self, MongoLink link):
        """After whole exchanges: the next caller may have it."""
        link.used = now_ns()
        self.idle.append(link)
        if self.closed:
            self.close()

    cdef object failed(self, MongoLink link, object error):
        """NOT_TAKEN after an error for which the driver may be asked again; any other error is raised."""
        self.leave(link, not isinstance(error, Unusual))
        if isinstance(error, LinkTimeout):
            raise NetworkTimeout(str(error)) from None
        if not isinstance(error, (BrokenLink, Unusual)):
            raise error
        return NOT_TAKEN

    def call(self, method, *args):
        """``method(link, *args)``: one message and its reply. NOT_TAKEN where the call must go through the driver."""
        cdef object link = self.borrow()
        if link is None:
            return NOT_TAKEN
        try:
            answer = method(link, *args)
        except BaseException as error:  # Ctrl-C in the middle of a reply, a document that cannot be read
            return self.failed(link, error)
        self.give_back(link)
        return answer

    cpdef object match(self, bytes head, bytes value, bytes tail, RecordReader reader, tuple key, Counters counters, int which):
        """What ``reader`` makes of the document of an id (in a find of three pieces); None if there is none of ``key``. As ``call``.

        The size of the document is added to the count ``which``.
        """
        cdef object borrowed = self.borrow()
        cdef MongoLink link
        cdef Element document
        cdef object answer = None
        if borrowed is None:
            return NOT_TAKEN
        link = borrowed
        try:
            if link.one(head, value, tail, &document):
                counters.add(which, document.size)
                answer = reader.match_at(document.value, document.size, key)
        except BaseException as error:
            return self.failed(link, error)
        self.give_back(link)
        return answer


def find_by_ids(bytes head not None, list ids not None, bytes tail not None) -> bytes:
    """The message of a find for ids (12 bytes each): the elements of ``head``, ``filter: {_id: {$in: ids}}``, those of ``tail``."""
    cdef Py_ssize_t count = len(ids), i, digits, rest, before
    cdef Py_ssize_t array = 5, power = 10, width = 1
    cdef bytes identity, message
    for i in range(count):
        if i == power:
            power *= 10
            width += 1
        array += 1 + width + 1 + 12
    # flags and kind; length; head; 03 filter\0 [length 03 _id\0 [length 04 $in\0 array 00] 00]; tail; 00
    cdef Py_ssize_t inner = 4 + 5 + array + 1, outer = 4 + 5 + inner + 1
    cdef Py_ssize_t document = 4 + PyBytes_GET_SIZE(head) + 8 + outer + PyBytes_GET_SIZE(tail) + 1
    if document > LARGEST - HEADER - 5:
        raise ValueError(f"a message for {count} ids is more than MongoDB takes")
    message = PyBytes_FromStringAndSize(NULL, 5 + document)
    cdef char* at = PyBytes_AS_STRING(message)
    memset(at, 0, 5)
    at = _put_int32(at + 5, document)
    at = _put(at, PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head))
    at = _put(at, b"\x03filter\0", 8)
    at = _put_int32(at, outer)
    at = _put(at, b"\x03_id\0", 5)
    at = _put_int32(at, inner)
    at = _put(at, b"\x04$in\0", 5)
    at = _put_int32(at, array)
    power, width = 10, 1
    for i in range(count):
        if i == power:
            power *= 10
            width += 1
        identity = ids[i]
        if identity is None or PyBytes_GET_SIZE(identity) != 12:
            raise ValueError("an id has 12 bytes")
        at[0] = 0x07
        rest = i
        for digits in range(width, 0, -1):
            at[digits] = 48 + rest % 10
            rest //= 10
        at[width + 1] = 0
        at = _put(at + width + 2, PyBytes_AS_STRING(identity), 12)
    at = _put(at, b"\0\0\0", 3)
    at = _put(at, PyBytes_AS_STRING(tail), PyBytes_GET_SIZE(tail))
    at[0] = 0
    return message


cdef char* _put(char* at, const char* source, Py_ssize_t size) noexcept:
    memcpy(at, source, size)
    return at + size


cdef char* _put_int32(char* at, Py_ssize_t value) noexcept:
    cdef int32_t number = <int32_t> value
    return _put(at, <char*> &number, 4)


def upserted_ids(const unsigned char[::1] reply not None) -> dict:
    """From the reply of an update command: position -> ``_id`` (12 bytes, or None if that is no ObjectId) of what was inserted."""
    cdef Element array, entry, index, identity
    cdef Py_ssize_t at = 4
    cdef dict found = {}
    if reply.shape[0] < 5 or document_size(&reply[0], reply.shape[0]) != reply.shape[0]:
        raise ValueError("BSON document reaches beyond its bytes")
    if not find_element(&reply[0], reply.shape[0], b"upserted", 8, &array):
        return found
    if array.kind != 0x04 or document_size(array.value, array.size) != array.size:
        raise ValueError("upserted is no array")
    while next_element(array.value, array.size, &at, &entry):
        if entry.kind != 0x03 or document_size(entry.value, entry.size) != entry.size:
            raise ValueError("upserted holds something else than documents")
        if not find_element(entry.value, entry.size, b"index", 5, &index) or not find_element(entry.value, entry.size, b"_id", 3, &identity):
            raise ValueError("upserted has an entry without index or _id")
        found[int(number_of(&index))] = (
            PyBytes_FromStringAndSize(<const char*> identity.value, 12) if identity.kind == 0x07 else None
        )
    return found


@cython.final
cdef class RedisLink(Link):
    """Sends commands and reads their replies; a posted command's reply is read before the next one's."""

    def post(self, bytes command not None):
        """Send a command whose reply is read later, by the next ``call`` or ``settle``."""
        cdef iovec piece
        if self.pending >= 64:
            self.settle()
        piece.iov_base, piece.iov_len = PyBytes_AS_STRING(command), PyBytes_GET_SIZE(command)
        self.send(&piece, 1)
        self.pending += 1

    def settle(self):
        """Read the replies of posted commands; the last error among them stays in ``late_error``."""
        while self.pending:
            self.pending -= 1
            try:
                self.reply(0)
            except Unusual as error:
                self.late_error = error

    def take_late_error(self):
        """The error of a posted command, once."""
        error, self.late_error = self.late_error, None
        return error

    cpdef object call(self, bytes command):
        """Send a command and read its reply: bytes, int, list or None; Unusual for an error reply."""
        cdef iovec piece
        if command is None:
            raise TypeError("a command is bytes")
        piece.iov_base, piece.iov_len = PyBytes_AS_STRING(command), PyBytes_GET_SIZE(command)
        self.send(&piece, 1)
        self.settle()
        answer = self.reply(0)
        if self.at != self.filled:
            raise BrokenLink("more bytes than one reply")
        self.at = self.filled = 0
        return answer

    cdef Py_ssize_t line(self) except -1:
        """The length of the line at ``at`` without its CR LF; the line is in the buffer."""
        cdef Py_ssize_t seen = 0
        cdef const unsigned char* end
        while True:
            if self.filled > self.at + seen:
                end = <const unsigned char*> memchr(self.buffer + self.at + seen, 10, self.filled - self.at - seen)
                if end != NULL:
                    seen = end - (self.buffer + self.at)
                    if seen < 1 or self.buffer[self.at + seen - 1] != 13:
                        raise BrokenLink("a line without CR LF")
                    return seen - 1
                seen = self.filled - self.at
            if seen > 65536:
                raise BrokenLink("a line without end")
            self.more(1)

    cdef int more(self, Py_ssize_t size) except -1:
        """Have at least ``size`` bytes more than now."""
        if self.at and self.at == self.filled:
            self.at = self.filled = 0
        if self.filled + size > self.capacity:
            self.reserve(2 * (self.filled + size))
        self.receive(self.filled + size)
        return 0

    cdef int64_t number(self, Py_ssize_t length) except? -1:
        """The integer of a line whose first byte is its kind."""
        cdef int64_t value = 0
        cdef Py_ssize_t i = 1
        cdef bint negative = length > 1 and self.buffer[self.at + 1] == 45
        if negative:
            i = 2
        if length - i < 1 or length - i > 18:
            raise BrokenLink("a length that is no number")
        while i < length:
            if not 48 <= self.buffer[self.at + i] <= 57:
                raise BrokenLink("a length that is no number")
            value = value * 10 + (self.buffer[self.at + i] - 48)
            i += 1
        return -value if negative else value

    cdef object reply(self, int depth):
        cdef Py_ssize_t length = self.line()
        cdef unsigned char kind
        cdef int64_t size, i
        cdef object value
        if length < 1:
            raise BrokenLink("an empty line")
        kind = self.buffer[self.at]
        if kind == 43 or kind == 45:  # simple string, error
            value = PyBytes_FromStringAndSize(<const char*> self.buffer + self.at + 1, length - 1)
            self.at += length + 2
            if kind == 45:
                raise Unusual(value.decode("utf-8", "replace"))
            return value
        size = self.number(length)
        self.at += length + 2
        if kind == 58:  # integer
            return size
        if kind == 36:  # bulk string
            if size == -1:
                return None
            if not 0 <= size <= 512 * 1024 * 1024:
                raise BrokenLink(f"a string of {size} bytes")
            if self.filled < self.at + size + 2:
                self.more(self.at + size + 2 - self.filled)
            value = PyBytes_FromStringAndSize(<const char*> self.buffer + self.at, size)
            if self.buffer[self.at + size] != 13 or self.buffer[self.at + size + 1] != 10:
                raise BrokenLink("a string without CR LF")
            self.at += size + 2
            return value
        if kind == 42:  # array
            if size == -1:
                return None
            if not 0 <= size <= 1024 * 1024 or depth:
                raise BrokenLink(f"an array of {size}")
            value = []
            for i in range(size):
                try:
                    (<list> value).append(self.reply(depth + 1))
                except Unusual as error:
                    raise BrokenLink(f"an error inside an array: {error}") from None
            return value
        raise BrokenLink(f"a reply of kind {kind}")
