"""The fast path of a cache hit: from a key to the result of a read, in one round trip (or two) and without Python in between."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from math import inf

from pymongo.errors import PyMongoError

from backtest_kit_mongo._core.bson cimport RecordReader
from backtest_kit_mongo._core.counters cimport Counters
from backtest_kit_mongo._core.ids cimport IdTable, hash_of
from backtest_kit_mongo._core.wire_socket cimport now_ns
from backtest_kit_mongo._core.op_msg cimport MongoSocketPool
from backtest_kit_mongo._core.resp cimport RedisSocket

from backtest_kit_mongo._core.keys import check_fields
from backtest_kit_mongo._core.wire_socket import BrokenSocketError, SocketTimeoutError, UnexpectedReplyError
from backtest_kit_mongo._core.op_msg import NOT_TAKEN

FALLBACK = object()
"""``HitReader`` returns this if the store must read: the id is unknown or stale, the key invalid, or no connection usable."""


cdef int _restore_in_row(dict row, str field) except -1:
    if field in row and row[field] is None:
        row[field] = inf
    return 0


cpdef object restore_infinity(object body, str field, str unless_below):
    """Set a null ``field`` to +Infinity, in place, in a row and in the rows directly below it, except below the name ``unless_below``.

    A row is the body itself (Signal), below a name (Strategy), or in a [key, row] pair (Risk).
    """
    cdef object name, member
    if isinstance(body, dict):
        _restore_in_row(body, field)
        for name, member in (<dict> body).items():
            if isinstance(member, dict) and name != unless_below:
                _restore_in_row(member, field)
    elif isinstance(body, list):
        for member in <list> body:
            if isinstance(member, list) and len(<list> member) == 2 and isinstance((<list> member)[1], dict):
                _restore_in_row((<list> member)[1], field)


def bodies(list records not None, empty, infinite) -> list:
    """Return the bodies of records (key, body, when, removed), ``empty()`` for those without one.

    ``infinite``: the arguments of ``restore_infinity`` for their rows, or None.
    """
    cdef list answer = []
    for record in records:
        if record is None:
            answer.append(empty())
            continue
        _, body, _, removed = record
        if removed or body is None:
            answer.append(empty())
            continue
        if infinite is not None:
            restore_infinity(body, infinite[0], infinite[1])
        answer.append(body)
    return answer


UNASKED = object()
"""Means that Redis was not asked for an id."""

EMPTY = object()
"""``HitReader`` returns this for a record that is removed or has no body."""


@cython.final
cdef class HitReader:
    """Reads the records of one domain. Call it with a key; it returns the body of the record, EMPTY, or FALLBACK.

    Anything but a plain cache hit falls back to the store, which then counts the read and reports what is wrong.
    """

    cdef IdTable ids
    cdef RecordReader reader
    cdef Counters counters
    cdef tuple names, kinds
    cdef int reads, process_hits, redis_hits, bytes_read, errors, operation
    cdef str infinite_field, unless_below
    cdef object get_command, take_connection, give_connection_back, redis_timed_out, translated
    cdef MongoSocketPool pool
    cdef bytes head, tail
    cdef object learned

    def __init__(
        self, domain, IdTable ids not None, RecordReader reader not None, Counters counters not None, tuple counts not None,
        get_command, take_connection, give_connection_back, redis_timed_out, translated,
    ):
        """``domain``: from ``domains.py``. ``counts``: indexes of reads, hits (process, Redis), bytes read, errors, and the operation.

        ``get_command``: returns the Redis command for a key. ``take_connection``: returns this thread's connection to Redis, or None if it
        is not in use or not in order; ``give_connection_back`` takes it back. ``redis_timed_out``: called with a timeout error and the time
        (time.monotonic) at which the wait began. ``translated``: returns our error for an error of the driver.
        """
        self.ids, self.reader, self.counters = ids, reader, counters
        self.names, self.kinds = domain.key, domain.kinds
        self.reads, self.process_hits, self.redis_hits, self.bytes_read, self.errors, self.operation = counts
        self.infinite_field, self.unless_below = domain.infinite or (None, None)
        self.get_command, self.translated = get_command, translated
        self.take_connection, self.give_connection_back, self.redis_timed_out = take_connection, give_connection_back, redis_timed_out

    def connect(self, MongoSocketPool pool not None, bytes head not None, bytes tail not None):
        """Read over the sockets of ``pool`` from now on, with a find that has the id between ``head`` and ``tail``."""
        self.head, self.tail, self.pool = head, tail, pool

    def disconnect(self):
        """Make every call return FALLBACK."""
        self.pool = None

    @property
    def connected(self) -> bool:
        """Whether there is a pool of sockets to read over."""
        return self.pool is not None

    def take_learned(self, tuple key) -> tuple:
        """Return what the call with this same tuple learned before it returned FALLBACK, so that no cache is asked twice.

        Returns a pair. First the id cached in this process that does not lead to a record of the key, or None. Then what Redis holds
        (None: nothing), or UNASKED; an id from Redis does not lead to a record either.
        """
        learned, self.learned = self.learned, None
        if learned is None or learned[0] is not key:
            return None, UNASKED
        return learned[1], learned[2]

    cdef bytes ask_redis(self, tuple key):
        """Return the id that Redis holds for a key, or None."""
        cdef RedisSocket redis_socket
        cdef int64_t started = now_ns()
        connection = self.take_connection()
        if connection is None:
            return None
        redis_socket = connection.socket
        try:
            answer = redis_socket.call(self.get_command(key))
        except UnexpectedReplyError:
            return None
        except BaseException as error:
            connection.drop()
            if isinstance(error, SocketTimeoutError):
                self.redis_timed_out(error, started / 1e9)
            elif isinstance(error, BrokenSocketError):
                connection.broke = True  # the fallback asks once more, not twice
            else:
                raise
            return None
        finally:
            self.give_connection_back(connection)
        self.learned = (key, None, answer)  # in case the id does not lead to a record
        return _id_of(answer)

    def __call__(self, tuple key not None, object moment=None):
        """Return the body, EMPTY, or FALLBACK; FALLBACK also if the record was written later than ``moment`` (ms)."""
        cdef int64_t started = now_ns()
        cdef bytes value
        cdef bint from_process = True
        cdef MongoSocketPool pool = self.pool
        if pool is None:
            return FALLBACK
        try:
            check_fields(key, self.names, self.kinds)
            value = self.ids.look_up(hash_of(key))
            if value is None:
                from_process = False
                value = self.ask_redis(key)
                if value is None:
                    return FALLBACK
            record = pool.match(self.head, value, self.tail, self.reader, key, self.counters, self.bytes_read)
        except (TypeError, ValueError):
            return FALLBACK
        except PyMongoError as error:  # the configured timeout has passed: a retry would double it
            self.counters.add(self.errors)
            raise self.translated(error) from error
        if record is NOT_TAKEN:
            self.learned = None
            return FALLBACK
        if record is None:
            if from_process:
                self.learned = (key, value, UNASKED)
            return FALLBACK
        if not from_process:
            self.learned = None
            self.ids.put(key, value)
        _, body, when, removed = record
        if moment is not None and when is not None and when > moment:
            return FALLBACK
        if removed or body is None:
            body = EMPTY
        elif self.infinite_field is not None:
            restore_infinity(body, self.infinite_field, self.unless_below)
        self.counters.add(self.reads)
        self.counters.add(self.process_hits if from_process else self.redis_hits)
        self.counters.observe(self.operation, now_ns() - started)
        return body


cdef bytes _id_of(object value):
    """Return the id in a Redis value (24 hexadecimal digits), or None."""
    cdef bytes answer
    cdef const unsigned char* digits
    cdef unsigned char* target
    cdef int i, digit, byte = 0
    if not isinstance(value, bytes) or PyBytes_GET_SIZE(value) != 24:
        return None
    answer = PyBytes_FromStringAndSize(NULL, 12)
    digits = <const unsigned char*> PyBytes_AS_STRING(value)
    target = <unsigned char*> PyBytes_AS_STRING(answer)
    for i in range(24):
        digit = digits[i]
        if 48 <= digit <= 57:
            digit -= 48
        elif 97 <= digit | 32 <= 102:
            digit = (digit | 32) - 87
        else:
            return None
        byte = byte << 4 | digit
        if i & 1:
            target[i >> 1] = byte & 255
    return answer


def parse_id(value) -> bytes | None:
    """Return the id (12 bytes) in a Redis value (24 hexadecimal digits), or None if the value is not an id."""
    return _id_of(value)
