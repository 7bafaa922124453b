"""MongoDB's OP_MSG (mongodb.com/docs/manual/reference/mongodb-wire-protocol): prebuilt messages out, whole replies in."""

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
except ImportError:  # whether a call has a deadline is known to pymongo alone then
    _TIMEOUT = None

KNOWS_DEADLINES = _TIMEOUT is not None
"""Whether links may be used: a call inside of ``pymongo.timeout`` must go through pymongo."""

cdef extern from "Python.h":
    int PyContextVar_Get(object var, PyObject* default_value, PyObject** value) except -1


cdef enum:
    HEADER = 16
    OP_MSG = 2013
    # MongoDB's own limit for one message (maxMessageSizeBytes); a length beyond it is garbage.
    LARGEST = 48_000_000 + 16_384
    PIECES = 4


@cython.final
cdef class MongoSocket(WireSocket):
    """Sends OP_MSGs and reads their replies in order. The last one's document stays in the buffer, at ``document`` of ``size`` bytes.

    Several messages may be on their way (``post``): the server answers them one after the other, so it works on the next one while
    the last answer is being looked at. All but the first must be small, or their answers must be: who sends while nobody reads what
    the server has to say could wait for it for ever.
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
        """Whether to the driver the server is the primary, and connections of this age are alive."""
        # The driver raises its pool's generation when it has learned that connections are dead.
        if self.pool_generation._generation != self.generation:
            return False
        if self.server is None:
            return True
        # It replaces the description of a server with all that it learns, be it from this server or from another that has become primary.
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
                raise BrokenSocketError("more bytes than one reply")
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
        """Read the reply to the oldest message that has none yet."""
        if self.expected > self.request:
            raise ValueError("no reply is due")
        if self.total:  # what came behind the last reply
            self.filled -= self.total
            memmove(self.buffer, self.buffer + self.total, self.filled)
            self.total = 0
        self.receive(HEADER)
        cdef Py_ssize_t total = int32_at(self.buffer)
        if total < HEADER + 5 + 5 or total > LARGEST:
            raise BrokenSocketError(f"a reply of {total} bytes")
        if int32_at(self.buffer + 12) != OP_MSG:
            raise BrokenSocketError(f"a reply with opcode {int32_at(self.buffer + 12)}")
        if int32_at(self.buffer + 8) != self.expected:
            raise BrokenSocketError("a reply to another request")
        self.receive(total)
        cdef int32_t flags = int32_at(self.buffer + HEADER)
        self.size = total - HEADER - 5 - (4 if flags & 1 else 0)  # bit 0: a checksum stands at the end
        if flags & ~1 or self.buffer[HEADER + 4] != 0 or self.size < 5 or int32_at(self.document()) != self.size:
            raise BrokenSocketError("a reply that is not one document")
        self.total = total
        self.expected += 1
        if self.filled != total and self.expected > self.request:
            raise BrokenSocketError("more bytes than one reply")
        return 0

    cdef int find(self, const char* name, Element* found) except -1:
        return find_element(self.document(), self.size, name, strlen(name), found)

    cdef int succeeded(self) except -1:
        """Raise UnexpectedReplyError unless the reply says ok and nothing of an error. BSON that is none breaks the link."""
        cdef Element found
        try:
            if not self.find(b"ok", &found) or number_of(&found) != 1.0:
                raise UnexpectedReplyError("not ok")
            if self.find(b"writeErrors", &found):
                raise UnexpectedReplyError("write error")
            if self.find(b"writeConcernError", &found):
                error = UnexpectedReplyError("write concern error")
                error.unconfirmed = PyBytes_FromStringAndSize(<const char*> self.document(), self.size)
                raise error
        except ValueError as error:
            raise BrokenSocketError(f"a reply that is no BSON: {error}") from None
        return 0

    cdef int batch(self, Element* batch, int64_t* cursor) except -1:
        """Find the documents and the cursor's id in the reply of find or getMore."""
        cdef Element outer, inner
        self.succeeded()
        try:
            if not self.find(b"cursor", &outer) or outer.kind != 0x03:
                raise UnexpectedReplyError("no cursor")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenSocketError("a cursor that is no document")
            if not find_element(outer.value, outer.size, b"firstBatch", 10, batch):
                if not find_element(outer.value, outer.size, b"nextBatch", 9, batch):
                    raise UnexpectedReplyError("no batch")
            if batch.kind != 0x04 or document_size(batch.value, batch.size) != batch.size:
                raise BrokenSocketError("a batch that is no array")
            if not find_element(outer.value, outer.size, b"id", 2, &inner) or inner.kind != 0x12:
                raise UnexpectedReplyError("no cursor id")
        except ValueError as error:
            raise BrokenSocketError(f"a reply that is no BSON: {error}") from None
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
        """As ``reply``; UnexpectedReplyError unless it is plain success."""
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
            raise BrokenSocketError(f"a reply that is no BSON: {error}") from None
        if document.kind != 0x03:
            raise BrokenSocketError("a batch of something else")
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
                    raise BrokenSocketError("a batch of something else")
        except ValueError as error:
            raise BrokenSocketError(f"a reply that is no BSON: {error}") from None
        at = 4
        while next_element(batch.value, batch.size, &at, &document):
            memmove(target + size, document.value, document.size)
            size += document.size
        return PyBytes_FromStringAndSize(target, size), cursor

    def upserted(self, bytes message not None):
        """Send a findAndModify that gives the new document; (its ``_id`` in 12 bytes or None if that is no ObjectId, whether it is new)."""
        return self.upserted_by(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    cdef tuple upserted_by(self, const char* message, Py_ssize_t size):
        cdef iovec pieces[2]
        cdef Element outer, inner
        cdef bint known
        pieces[1].iov_base, pieces[1].iov_len = <void*> message, size
        self.send_message(pieces, 2)
        self.receive_message()
        self.succeeded()
        try:
            if not self.find(b"lastErrorObject", &outer) or outer.kind != 0x03:
                raise UnexpectedReplyError("no outcome")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenSocketError("an outcome that is no document")
            if not find_element(outer.value, outer.size, b"updatedExisting", 15, &inner) or inner.kind != 0x08:
                raise UnexpectedReplyError("no outcome")
            known = inner.value[0] == 1
            if not self.find(b"value", &outer) or outer.kind != 0x03:
                raise UnexpectedReplyError("no document")
            if document_size(outer.value, outer.size) != outer.size:
                raise BrokenSocketError("a value that is no document")
            if not find_element(outer.value, outer.size, b"_id", 3, &inner):
                raise UnexpectedReplyError("a document without _id")
        except ValueError as error:
            raise BrokenSocketError(f"a reply that is no BSON: {error}") from None
        return PyBytes_FromStringAndSize(<const char*> inner.value, 12) if inner.kind == 0x07 else None, not known


NOT_TAKEN = object()
"""What a call gives that must go through the driver."""


cdef bint _has_deadline() except -1:
    """Whether this thread is inside ``pymongo.timeout``, whose deadline the driver keeps."""
    cdef PyObject* value = NULL
    PyContextVar_Get(_TIMEOUT, NULL, &value)
    if value == NULL:
        return False
    limit = <object> value
    Py_DECREF(limit)  # the reference that came with it
    return limit is not None


cdef class MongoSocketPool:
    """Idle links, and what becomes of one after a call. Opening them and giving them back is the work of the class above this one."""

    def open(self) -> MongoSocket | None:
        """A new link, or None where there can be none."""
        raise NotImplementedError

    def leave(self, MongoSocket link, bint broken) -> None:
        """Part with a link; a broken one's socket must never be used again."""
        raise NotImplementedError

    def report(self, MongoSocket link, error) -> None:
        """Tell the driver that a link broke."""
        raise NotImplementedError

    def unconfirmed(self, bytes reply) -> None:
        """Raise what an unconfirmed write is to the caller, unless the driver shall send it again."""
        raise NotImplementedError

    cpdef object borrow(self):
        """A link for one thread's exchange, or None where a call must go through the driver."""
        cdef MongoSocket link
        if not self.usable or _has_deadline():
            return None
        while self.idle:
            link = self.idle.pop()
            if link.serves():
                return link
            self.leave(link, link.pool_generation._generation != link.generation)
        return self.open()

    cpdef object give_back(self, MongoSocket link):
        """After whole exchanges: the next caller may have it."""
        link.used = now_ns()
        self.idle.append(link)
        if self.closed:
            self.close()

    cdef object failed(self, MongoSocket link, object error):
        """NOT_TAKEN after an error for which the driver may be asked again; any other error is raised."""
        cdef bint in_step = isinstance(error, UnexpectedReplyError)
        try:
            if isinstance(error, BrokenSocketError):
                self.report(link, error)
        finally:
            self.leave(link, not in_step)
        if isinstance(error, SocketTimeoutError):
            raise NetworkTimeout(str(error)) from None
        if in_step and error.unconfirmed is not None:
            self.unconfirmed(error.unconfirmed)
        if not in_step and not isinstance(error, BrokenSocketError):
            raise error
        return NOT_TAKEN

    cdef object not_taken_from(self, MongoSocket link):
        """NOT_TAKEN for an answer whose server was found to be no longer the primary while it came."""
        self.leave(link, False)
        return NOT_TAKEN

    def read(self, method, *args):
        """``method(link, *args)``: one message and its reply. NOT_TAKEN where the call must go through the driver."""
        cdef object link = self.borrow()
        if link is None:
            return NOT_TAKEN
        try:
            answer = method(link, *args)
        except BaseException as error:  # Ctrl-C in the middle of a reply, a document that cannot be read
            return self.failed(link, error)
        if not (<MongoSocket> link).serves():
            return self.not_taken_from(link)
        self.give_back(link)
        return answer

    def write(self, method, *args):
        """As ``read``, for a write: its reply is what the server says of it, whatever has become of the server meanwhile."""
        cdef object link = self.borrow()
        if link is None:
            return NOT_TAKEN
        try:
            answer = method(link, *args)
        except BaseException as error:
            return self.failed(link, error)
        self.give_back(link)
        return answer

    cdef object upsert(self, const char* message, Py_ssize_t size):
        """What ``MongoSocket.upserted`` gives for a message, or NOT_TAKEN. As ``write``."""
        cdef object link = self.borrow()
        if link is None:
            return NOT_TAKEN
        try:
            answer = (<MongoSocket> link).upserted_by(message, size)
        except BaseException as error:
            return self.failed(link, error)
        self.give_back(link)
        return answer

    cpdef object match(self, bytes head, bytes value, bytes tail, RecordReader reader, tuple key, Counters counters, int which):
        """What ``reader`` makes of the document of an id (in a find of three pieces); None if there is none of ``key``. As ``read``.

        The size of the document is added to the count ``which``.
        """
        cdef object borrowed = self.borrow()
        cdef MongoSocket link
        cdef Element document
        cdef object answer = None
        cdef Py_ssize_t size = 0
        if borrowed is None:
            return NOT_TAKEN
        link = borrowed
        try:
            if link.one(head, value, tail, &document):
                size = document.size
                answer = reader.match_at(document.value, document.size, key)
        except BaseException as error:
            return self.failed(link, error)
        if not link.serves():
            return self.not_taken_from(link)
        self.give_back(link)
        if size:
            counters.add(which, size)
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
