"""The fast path of a single write: from a key and a body to an acknowledged document, in one round trip and without the driver."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from pymongo.errors import PyMongoError

from backtest_kit_mongo._core.counters cimport Counters
from backtest_kit_mongo._core.ids cimport IdTable
from backtest_kit_mongo._core.wire_socket cimport now_ns, today_ms
from backtest_kit_mongo._core.op_msg cimport MongoSocketPool
from backtest_kit_mongo._core.resp cimport RedisSocket
from backtest_kit_mongo._core.writer cimport Writer

from backtest_kit_mongo._core.keys import check_fields
from backtest_kit_mongo._core.wire_socket import BrokenSocketError, SocketTimeoutError
from backtest_kit_mongo._core.op_msg import NOT_TAKEN


@cython.final
cdef class UpsertWriter:
    """Writes single records of one domain. Call it with a key, a body and a simulation time (ms, or None); it returns True once stored.

    It returns False, before it sends anything, if the store must write instead: if the key or the body may be invalid, if the body is
    not a dict, if the indexes were not checked recently, or if there is no connection. The store then counts, and raises the error.
    """

    cdef IdTable ids
    cdef Counters counters
    cdef tuple names, kinds
    cdef str body
    cdef int writes, bytes_written, errors, operation
    cdef bint timed, removable
    cdef Py_ssize_t most
    cdef object plain, was_new, by_driver, translated
    cdef object set_command, take_connection, give_connection_back, redis_timed_out, put_id
    cdef MongoSocketPool pool
    cdef object sessions
    cdef bytes head, tail
    cdef int64_t until

    def __init__(
        self, domain, IdTable ids not None, Counters counters not None, tuple counts not None, Py_ssize_t most,
        plain, was_new, by_driver, translated, set_command, take_connection, give_connection_back, redis_timed_out, put_id,
    ):
        """``domain``: from ``domains.py``. ``counts``: indexes of writes, bytes written, errors, and the operation.

        ``most``: size in bytes up to which a message cannot hold a document that is too large. ``plain``: the ``fallback`` of
        ``writer.encode``. ``was_new``: called after a document was inserted. ``by_driver``: called with the key, body, time, removal and
        number of a write that no socket could take; returns what a socket would. ``translated``: returns our error for an error of the
        driver. ``set_command``: returns the Redis command for a key and an id. ``take_connection``, ``give_connection_back``,
        ``redis_timed_out``: as for ``HitReader``. ``put_id``: stores an id in Redis if there is no such connection, it broke, or Redis
        rejected an earlier id.
        """
        self.ids, self.counters, self.most = ids, counters, most
        self.names, self.kinds, self.body = domain.key, domain.kinds, domain.body
        self.timed, self.removable = domain.when, domain.soft_delete
        self.writes, self.bytes_written, self.errors, self.operation = counts
        self.plain, self.was_new, self.by_driver, self.translated = plain, was_new, by_driver, translated
        self.set_command, self.take_connection, self.give_connection_back = set_command, take_connection, give_connection_back
        self.redis_timed_out, self.put_id = redis_timed_out, put_id

    def connect(self, MongoSocketPool pool not None, bytes head not None, bytes tail not None, sessions):
        """Write over the sockets of ``pool`` from now on, with a findAndModify: ``head``, query and update, ``tail``.

        ``sessions`` number the writes; None if the server does not support that.
        """
        self.head, self.tail, self.sessions, self.pool = head, tail, sessions, pool

    def disconnect(self):
        """Make every call return False."""
        self.pool = None

    @property
    def connected(self) -> bool:
        """Whether there is a pool of sockets to write over."""
        return self.pool is not None

    def trust_indexes(self, double seconds):
        """Note that the indexes were checked now, and need no other check for ``seconds``."""
        self.until = now_ns() + <int64_t> (seconds * 1e9)

    cdef Writer message(self, tuple key, dict body, object when, bint removed, object number):
        """Return the command of an upsert; see ``stores.mongo.documents.update_of`` for the document that it creates."""
        cdef Writer message = Writer(self.plain)
        cdef Py_ssize_t whole, update, part
        cdef int64_t now = today_ms()
        cdef object name, member
        message.put(b"\0\0\0\0\0", 5)  # flags, and the kind of the only section
        whole = message.begin()
        message.put(PyBytes_AS_STRING(self.head), PyBytes_GET_SIZE(self.head))
        message.put(b"\x03query\0", 7)
        part = message.begin()
        for name, member in zip(self.names, key):
            message.put_element(name, -1, member, 0)
        message.end(part)
        message.put(b"\x03update\0", 8)
        update = message.begin()
        message.put(b"\x03$set\0", 6)
        part = message.begin()
        message.put_element(self.body, -1, body, 0)
        message.put(b"\x09updatedDate\0", 13)
        message.put_int64(now)
        if self.timed:
            message.put_element("when", -1, when, 0)
        if self.removable:
            message.put(b"\x08removed\0", 9)
            message.put_byte(removed)
        message.end(part)
        message.put(b"\x03$setOnInsert\0", 14)
        part = message.begin()
        message.put(b"\x10__v\0\0\0\0\0", 9)
        message.put(b"\x09createDate\0", 12)
        message.put_int64(now)
        message.end(part)
        message.end(update)
        message.put(PyBytes_AS_STRING(self.tail), PyBytes_GET_SIZE(self.tail))
        if number is not None:
            for name, member in number.members.items():
                message.put_element(name, -1, member, 0)
        message.end(whole)
        return message

    cdef int note(self, tuple key, bytes identity) except -1:
        """Post the id to Redis; the next exchange on this thread's connection reads the reply."""
        cdef RedisSocket redis_socket
        cdef int64_t started = now_ns()
        cdef bint posted = False
        connection = self.take_connection()
        if connection is not None:
            redis_socket = connection.socket
            try:
                redis_socket.post(self.set_command(key, identity))
                posted = redis_socket.posted_error is None  # else Redis rejected an earlier id: ``put_id`` counts and logs that
            except BaseException as error:
                connection.drop()
                if isinstance(error, SocketTimeoutError):
                    self.redis_timed_out(error, started / 1e9)
                    posted = True
                elif isinstance(error, BrokenSocketError):
                    connection.broke = True  # the fallback tries once more, not twice
                else:
                    raise
            finally:
                self.give_connection_back(connection)
        if not posted:
            self.put_id(key, identity)
        return 0

    def __call__(self, tuple key not None, object body, object when) -> bool:
        cdef int64_t started = now_ns()
        cdef MongoSocketPool pool = self.pool
        cdef object sessions = self.sessions, number = None
        cdef Writer message
        cdef bint removed = False
        if pool is None or not pool.usable or started > self.until or type(body) is not dict:
            return False
        try:
            check_fields(key, self.names, self.kinds)
        except (TypeError, ValueError):
            return False
        if self.removable:
            removed = (<dict> body).get("removed") is True
        if sessions is not None:
            number = sessions.take()
        try:
            try:
                message = self.message(key, <dict> body, when, removed, number)
            # The body cannot be stored, or another thread changed it meanwhile. The fallback meets the same error and reports it.
            except (TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError):
                return False
            if message.size > self.most:
                return False
            self.counters.add(self.bytes_written, message.size)
            outcome = pool.upsert(message.data, message.size)
            if outcome is NOT_TAKEN:
                outcome = self.by_driver(key, body, when, removed, number)
        except PyMongoError as error:
            self.counters.add(self.errors)
            raise self.translated(error) from error
        finally:
            if number is not None:
                sessions.give_back(number)
        identity, inserted = outcome
        if inserted:
            self.was_new()
        if identity is not None:  # an id of another type, which another writer stored, is not cached
            self.ids.put(key, identity)
            self.note(key, identity)
        self.counters.add(self.writes)
        self.counters.observe(self.operation, now_ns() - started)
        return True
