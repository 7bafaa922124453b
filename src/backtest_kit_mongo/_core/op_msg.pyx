"""MongoDB's OP_MSG (mongodb.com/docs/manual/reference/mongodb-wire-protocol): send prebuilt messages, read whole replies."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy, memmove, memset, strlen

from pymongo.errors import NetworkTimeout

from backtest_kit_mongo._core.bson cimport Element, RecordReader, document_size, find_element, int32_at, next_element, number_of
from backtest_kit_mongo._core.counters cimport Counters
from backtest_kit_mongo._core.wire_socket cimport WireSocket, iovec, now_ns

from backtest_kit_mongo._core.wire_socket import BrokenSocketError, SocketTimeoutError, UnexpectedReplyError

try:
    from pymongo._csot import TIMEOUT as _TIMEOUT
except ImportError:  # then only pymongo knows whether a call has a deadline
    _TIMEOUT = None

KNOWS_DEADLINES = _TIMEOUT is not None
"""Whether sockets may be used: a call inside ``pymongo.timeout`` must go through pymongo, so its deadline must be visible."""

cdef extern from "Python.h":
    int PyContextVar_Get(object var, PyObject* default_value, PyObject** value) except -1


cdef enum:
    HEADER = 16
    OP_MSG = 2013
    # MongoDB's limit for a message (maxMessageSizeBytes) plus 16 KiB; a length beyond it is garbage.
    LARGEST = 48_000_000 + 16_384
    PIECES = 4


@cython.final
cdef class MongoSocket(WireSocket):
    """Sends OP_MSGs and reads their replies in order. The last reply's document stays in the buffer: ``size`` bytes at ``document``.

    You can send several messages before you read a reply (``post``). The server answers them in order, so it works on the next one
    while you process the last reply. All messages but the first must be small, or their replies must be. Otherwise a send could wait
    forever for a server that waits for its reply to be read.
    """

    def __cinit__(
        self, object owner, int fd, double timeout_seconds, object pool_generation, int64_t generation, bint whole=False, object server=None
    ):
        self.whole = whole
        self.pool_generation = pool_generation
        self.generation = generation
        self.server = server
        self.expected = 1

    cpdef bint serves(self) except -1:
        """Return whether the driver takes the server for the primary, and connections of this generation for alive."""
        # The driver raises its pool's generation when it learns that connections are dead.
        if self.pool_generation._generation != self.generation:
            return False
        if self.server is None:
            return True
        # The driver replaces the description whenever it learns something, from this server or from another that became primary.
        description = self.server._description
        if description is self.description:
            return True
        if not description.is_writable:
            return False
        self.description = description
        return True

    cdef int look_up(self) except -1:
        if not self.serves():
            raise BrokenSocketError("the server is no longer the primary, or its connections are dead")
        return 0

    cdef const unsigned char* document(self) noexcept:
        return self.buffer + HEADER + 5

    cdef int send_message(self, iovec* body, int count) except -1:
        """Send the pieces of a message body (flags, sections). ``count`` includes ``body[0]``, which is reserved for the header."""
        cdef int32_t header[4]
        cdef Py_ssize_t length = HEADER
        cdef int i
        for i in range(1, count):
            length += body[i].iov_len
        if length > LARGEST:
            raise ValueError(f"a message of {length} bytes exceeds MongoDB's limit")
        if self.request == self.expected - 1:  # every message was answered
            if self.filled != self.total:
                raise BrokenSocketError("unexpected bytes after a reply")
            self.filled = self.total = 0
            if self.request == 0x7FFFFFFF:
                self.request, self.expected = 0, 1
        elif self.request == 0x7FFFFFFF:
            raise BrokenSocketError("request ids have run out")
        self.request += 1
        header[0], header[1], header[2], header[3] = <int32_t> length, self.request, 0, OP_MSG
        body[0].iov_base = header
        body[0].iov_len = HEADER
        return self.send(body, count)

    cdef int receive_message(self) except -1:
        """Read the reply to the oldest unanswered message."""
        if self.expected > self.request:
            raise ValueError("every message was answered: no reply is due")
        if self.total:  # bytes that came after the last reply
            self.filled -= self.total
            memmove(self.buffer, self.buffer + self.total, self.filled)
            self.total = 0
        self.receive(HEADER)
        cdef Py_ssize_t total = int32_at(self.buffer)
        if total < HEADER + 5 + 5 or total > LARGEST:
            raise BrokenSocketError(f"a reply has an invalid length of {total} bytes")
        if int32_at(self.buffer + 12) != OP_MSG:
            raise BrokenSocketError(f"expected a reply with opcode {OP_MSG}, got opcode {int32_at(self.buffer + 12)}")
        if int32_at(self.buffer + 8) != self.expected:
            raise BrokenSocketError(f"expected the reply to request {self.expected}, got the reply to request {int32_at(self.buffer + 8)}")
        self.receive(total)
        cdef int32_t flags = int32_at(self.buffer + HEADER)
        self.size = total - HEADER - 5 - (4 if flags & 1 else 0)  # bit 0: a checksum follows
        if flags & ~1 or self.buffer[HEADER + 4] != 0 or self.size < 5 or int32_at(self.document()) != self.size:
            raise BrokenSocketError("a reply is not exactly one document")
        self.total = total
        self.expected += 1
        if self.filled != total and self.expected > self.request:
            raise BrokenSocketError("unexpected bytes after a reply")
        return 0

    cdef int find(self, const char* name, Element* element) except -1:
        return find_element(self.document(), self.size, name, strlen(name), element)

    cdef int succeeded(self) except -1:
        """Raise UnexpectedReplyError unless the reply says ok and has no errors, BrokenSocketError if it is malformed."""
        cdef Element element
        try:
            if not self.find(b"ok", &element) or number_of(&element) != 1.0:
                raise UnexpectedReplyError("the reply is not ok")
            if self.find(b"writeErrors", &element):
                raise UnexpectedReplyError("the reply has a write error")
            if self.find(b"writeConcernError", &element):
                error = UnexpectedReplyError("the reply has a write concern error")
                error.unconfirmed = PyBytes_FromStringAndSize(<const char*> self.document(), self.size)
                raise error
        except ValueError as error:
            raise BrokenSocketError(f"a reply is not valid BSON: {error}") from None
        return 0

    cdef int batch(self, Element* batch, int64_t* cursor) except -1:
        """Locate the documents and the cursor id in the reply of find or getMore."""
        cdef Element outer, inner
        self.succeeded()
        try:
            if not self.find(b"cursor", &outer) or outer.kind != 0x03:
                raise UnexpectedReplyError("the reply has no cursor")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenSocketError("the cursor of a reply is not a document")
            if not find_element(outer.value, outer.size, b"firstBatch", 10, batch):
                if not find_element(outer.value, outer.size, b"nextBatch", 9, batch):
                    raise UnexpectedReplyError("the reply has no batch")
            if batch.kind != 0x04 or document_size(batch.value, batch.size) != batch.size:
                raise BrokenSocketError("the batch of a reply is not an array")
            if not find_element(outer.value, outer.size, b"id", 2, &inner) or inner.kind != 0x12:
                raise UnexpectedReplyError("the reply has no cursor id")
        except ValueError as error:
            raise BrokenSocketError(f"a reply is not valid BSON: {error}") from None
        memcpy(cursor, inner.value, 8)
        return 0

    def post(self, *parts):
        """Send a message in up to four pieces (flags and sections). Read its reply later; replies come in order."""
        cdef iovec pieces[PIECES + 1]
        cdef bytes part
        cdef int count = 1
        if not 0 < len(parts) <= PIECES:
            raise ValueError(f"expected a message in 1 to {PIECES} pieces, got {len(parts)}")
        for part in parts:
            pieces[count].iov_base, pieces[count].iov_len = PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part)
            count += 1
        self.send_message(pieces, count)

    def reply(self) -> bytes:
        """Return the reply document of the oldest unanswered message, whatever it says."""
        self.receive_message()
        return PyBytes_FromStringAndSize(<const char*> self.document(), self.size)

    def success(self) -> bytes:
        """Like ``reply``. Raises UnexpectedReplyError unless the reply is a plain success."""
        self.receive_message()
        self.succeeded()
        return PyBytes_FromStringAndSize(<const char*> self.document(), self.size)

    def command(self, *parts) -> bytes:
        """Send a message and return its reply. Raises UnexpectedReplyError unless it is a plain success."""
        self.post(*parts)
        return self.success()

    cdef int one(self, bytes head, bytes middle, bytes tail, Element* document) except -1:
        """Send a find in three pieces and read its one document; return 0 if there is none."""
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
            raise BrokenSocketError(f"a reply is not valid BSON: {error}") from None
        if document.kind != 0x03:
            raise BrokenSocketError("the batch of a reply holds something other than documents")
        return 1

    def find_one(self, bytes head not None, bytes middle not None, bytes tail not None):
        """Send a find in three pieces; return its one document as bytes, or None."""
        cdef Element document
        if not self.one(head, middle, tail, &document):
            return None
        return PyBytes_FromStringAndSize(<const char*> document.value, document.size)

    def find_documents(self):
        """Read the reply of a posted find or getMore; return (its documents end to end, cursor id or 0 if there are no more)."""
        cdef Element batch, document
        cdef int64_t cursor
        cdef Py_ssize_t at = 4, size = 0
        self.receive_message()
        self.batch(&batch, &cursor)
        # Joined in place, over the names "0", "1", ... of the array. Checked as a whole before, since joining destroys the array.
        cdef char* target = <char*> batch.value
        try:
            while next_element(batch.value, batch.size, &at, &document):
                if document.kind != 0x03:
                    raise BrokenSocketError("the batch of a reply holds something other than documents")
        except ValueError as error:
            raise BrokenSocketError(f"a reply is not valid BSON: {error}") from None
        at = 4
        while next_element(batch.value, batch.size, &at, &document):
            memmove(target + size, document.value, document.size)
            size += document.size
        return PyBytes_FromStringAndSize(target, size), cursor

    def upserted(self, bytes message not None):
        """Send a findAndModify that returns the new document; return (its 12-byte ``_id`` or None if not an ObjectId, whether inserted)."""
        return self.upserted_by(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    cdef tuple upserted_by(self, const char* message, Py_ssize_t size):
        cdef iovec pieces[2]
        cdef Element outer, inner
        cdef bint existed
        pieces[1].iov_base, pieces[1].iov_len = <void*> message, size
        self.send_message(pieces, 2)
        self.receive_message()
        self.succeeded()
        try:
            if not self.find(b"lastErrorObject", &outer) or outer.kind != 0x03:
                raise UnexpectedReplyError("the reply has no lastErrorObject")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenSocketError("the lastErrorObject of a reply is not a document")
            if not find_element(outer.value, outer.size, b"updatedExisting", 15, &inner) or inner.kind != 0x08:
                raise UnexpectedReplyError("the lastErrorObject of the reply has no updatedExisting")
            existed = inner.value[0] == 1
            if not self.find(b"value", &outer) or outer.kind != 0x03:
                raise UnexpectedReplyError("the reply has no document")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenSocketError("the value of a reply is not a document")
            if not find_element(outer.value, outer.size, b"_id", 3, &inner):
                raise UnexpectedReplyError("the document of the reply has no _id")
        except ValueError as error:
            raise BrokenSocketError(f"a reply is not valid BSON: {error}") from None
        return PyBytes_FromStringAndSize(<const char*> inner.value, 12) if inner.kind == 0x07 else None, not existed


NOT_TAKEN = object()
"""Returned by a call that must go through the driver instead."""


cdef bint _has_deadline() except -1:
    """Return whether this thread is inside ``pymongo.timeout``, a deadline that only the driver observes."""
    cdef PyObject* value = NULL
    PyContextVar_Get(_TIMEOUT, NULL, &value)
    if value == NULL:
        return False
    limit = <object> value
    Py_DECREF(limit)  # the reference that PyContextVar_Get returned
    return limit is not None


cdef class MongoSocketPool:
    """Idle sockets, and what happens to one after a call. A subclass opens sockets and returns their connections to the driver."""

    def open(self) -> MongoSocket | None:
        """Return a new socket, or None if there cannot be one."""
        raise NotImplementedError

    def leave(self, MongoSocket mongo_socket, bint broken) -> None:
        """Give up a socket. If it is ``broken``, it must never be used again."""
        raise NotImplementedError

    def report(self, MongoSocket mongo_socket, error) -> None:
        """Tell the driver that a socket broke."""
        raise NotImplementedError

    def unconfirmed(self, bytes reply) -> None:
        """Raise the error that the caller of an unconfirmed write gets, unless the driver is to send the write again."""
        raise NotImplementedError

    cpdef object borrow(self):
        """Return a socket for one thread's exchange, or None if the call must go through the driver."""
        cdef MongoSocket mongo_socket
        if not self.usable or _has_deadline():
            return None
        while self.idle:
            mongo_socket = self.idle.pop()
            if mongo_socket.serves():
                return mongo_socket
            self.leave(mongo_socket, mongo_socket.pool_generation._generation != mongo_socket.generation)
        return self.open()

    cpdef object give_back(self, MongoSocket mongo_socket):
        """Return a socket to the pool after complete exchanges, for the next caller."""
        mongo_socket.used = now_ns()
        self.idle.append(mongo_socket)
        if self.closed:
            self.close()

    cdef object failed(self, MongoSocket mongo_socket, object error):
        """Give up a socket after an error. Return NOT_TAKEN if the driver may try again, else raise the error."""
        cdef bint in_step = isinstance(error, UnexpectedReplyError)
        try:
            if isinstance(error, BrokenSocketError):
                self.report(mongo_socket, error)
        finally:
            self.leave(mongo_socket, not in_step)
        if isinstance(error, SocketTimeoutError):
            raise NetworkTimeout(str(error)) from None
        if in_step and error.unconfirmed is not None:
            self.unconfirmed(error.unconfirmed)
        if not in_step and not isinstance(error, BrokenSocketError):
            raise error
        return NOT_TAKEN

    cdef object not_taken_from(self, MongoSocket mongo_socket):
        """Return NOT_TAKEN for a reply of a server that was no longer the primary by the time it came."""
        self.leave(mongo_socket, False)
        return NOT_TAKEN

    def read(self, method, *args):
        """Return ``method(mongo_socket, *args)``, one message and its reply, or NOT_TAKEN if the call must go through the driver."""
        cdef object mongo_socket = self.borrow()
        if mongo_socket is None:
            return NOT_TAKEN
        try:
            answer = method(mongo_socket, *args)
        except BaseException as error:  # Ctrl-C in the middle of a reply, a document that cannot be read
            return self.failed(mongo_socket, error)
        if not (<MongoSocket> mongo_socket).serves():
            return self.not_taken_from(mongo_socket)
        self.give_back(mongo_socket)
        return answer

    def write(self, method, *args):
        """Like ``read``, for a write. Its reply counts even if the server is no longer the primary by then."""
        cdef object mongo_socket = self.borrow()
        if mongo_socket is None:
            return NOT_TAKEN
        try:
            answer = method(mongo_socket, *args)
        except BaseException as error:
            return self.failed(mongo_socket, error)
        self.give_back(mongo_socket)
        return answer

    cdef object upsert(self, const char* message, Py_ssize_t size):
        """Like ``write``: return what ``MongoSocket.upserted`` returns for a message, or NOT_TAKEN."""
        cdef object mongo_socket = self.borrow()
        if mongo_socket is None:
            return NOT_TAKEN
        try:
            answer = (<MongoSocket> mongo_socket).upserted_by(message, size)
        except BaseException as error:
            return self.failed(mongo_socket, error)
        self.give_back(mongo_socket)
        return answer

    cpdef object match(self, bytes head, bytes value, bytes tail, RecordReader reader, tuple key, Counters counters, int which):
        """Like ``read``: find a document by its id (a find in three pieces) and return its record; None if it is not one of ``key``.

        Adds the size of the document in bytes to the count ``which``.
        """
        cdef object borrowed = self.borrow()
        cdef MongoSocket mongo_socket
        cdef Element document
        cdef object answer = None
        cdef Py_ssize_t size = 0
        if borrowed is None:
            return NOT_TAKEN
        mongo_socket = borrowed
        try:
            if mongo_socket.one(head, value, tail, &document):
                size = document.size
                answer = reader.match_at(document.value, document.size, key)
        except BaseException as error:
            return self.failed(mongo_socket, error)
        if not mongo_socket.serves():
            return self.not_taken_from(mongo_socket)
        self.give_back(mongo_socket)
        if size:
            counters.add(which, size)
        return answer


def find_by_ids(bytes head not None, list ids not None, bytes tail not None) -> bytes:
    """Return the message of a find for ids (12 bytes each): the elements of ``head``, ``filter: {_id: {$in: ids}}``, those of ``tail``."""
    cdef Py_ssize_t count = len(ids), i, digits, rest
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
        raise ValueError(f"a message for {count} ids exceeds MongoDB's limit")
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
            raise ValueError("an id must have 12 bytes")
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
    """Return position -> ``_id`` (12 bytes, or None if not an ObjectId) of the documents that an update inserted, from its reply."""
    cdef Element array, entry, index, identity
    cdef Py_ssize_t at = 4
    cdef dict ids = {}
    if reply.shape[0] < 5 or document_size(&reply[0], reply.shape[0]) != reply.shape[0]:
        raise ValueError(f"BSON document length does not match its {reply.shape[0]} bytes")
    if not find_element(&reply[0], reply.shape[0], b"upserted", 8, &array):
        return ids
    if array.kind != 0x04 or document_size(array.value, array.size) != array.size:
        raise ValueError("upserted is not an array")
    while next_element(array.value, array.size, &at, &entry):
        if entry.kind != 0x03 or document_size(entry.value, entry.size) != entry.size:
            raise ValueError("upserted holds something other than documents")
        if not find_element(entry.value, entry.size, b"index", 5, &index):
            raise ValueError("upserted has an entry without index")
        if not find_element(entry.value, entry.size, b"_id", 3, &identity):
            raise ValueError("upserted has an entry without _id")
        ids[int(number_of(&index))] = (
            PyBytes_FromStringAndSize(<const char*> identity.value, 12) if identity.kind == 0x07 else None
        )
    return ids
