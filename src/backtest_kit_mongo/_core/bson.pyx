"""BSON (bsonspec.org): documents from Python values, checked while they are written; candle columns from raw documents.

The writer refuses what a reader could not get back: integers outside 64 bits, naive datetimes, keys that are no strings,
NUL in a key, nesting without end. The reader trusts no length: every step is checked against the end of its buffer.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport PyDateTime_Check, import_datetime
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.math cimport isfinite
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcmp, memcpy

from datetime import datetime, timedelta, timezone

from bson import Decimal128, ObjectId
from bson import encode as _encode_with_pymongo

import_datetime()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef object _EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef object _MILLISECOND = timedelta(milliseconds=1)

# The server takes 100 levels of nesting (MongoDB limits); three of them hold the command and the update around a payload.
cdef int MAX_DEPTH = 96


@cython.final
cdef class _Writer:
    """A growing buffer and, for the error message, the path of the value that is being written."""

    cdef char* data
    cdef Py_ssize_t size, capacity
    cdef list path
    cdef object fallback

    def __cinit__(self, object fallback):
        self.capacity = 512
        self.size = 0
        self.path = []
        self.fallback = fallback
        self.data = <char*> PyMem_Malloc(self.capacity)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t capacity = self.capacity
        cdef char* data
        if self.size + more > capacity:
            while capacity < self.size + more:
                capacity *= 2
            data = <char*> PyMem_Realloc(self.data, capacity)
            if data == NULL:
                raise MemoryError
            self.data = data
            self.capacity = capacity
        return 0

    cdef int put(self, const void* source, Py_ssize_t size) except -1:
        self.reserve(size)
        memcpy(self.data + self.size, source, size)
        self.size += size
        return 0

    cdef int put_byte(self, unsigned char value) except -1:
        return self.put(&value, 1)

    cdef int put_int32(self, int32_t value) except -1:
        return self.put(&value, 4)

    cdef int put_int64(self, int64_t value) except -1:
        return self.put(&value, 8)

    cdef int put_double(self, double value) except -1:
        return self.put(&value, 8)

    cdef str where(self):
        return ".".join(self.path)

    cdef int put_name(self, object name) except -1:
        cdef Py_ssize_t size
        cdef const char* text
        if not isinstance(name, str):
            raise TypeError(f"{self.where()}: keys must be str, got {type(name).__name__} ({name!r:.60})")
        try:
            text = PyUnicode_AsUTF8AndSize(name, &size)
        except UnicodeEncodeError:
            raise ValueError(f"{self.where()}: key {ascii(name)} holds a lone surrogate and is no UTF-8") from None
        if memchr(text, 0, size) != NULL:
            raise ValueError(f"{self.where()}: key {ascii(name)} holds a NUL character")
        return self.put(text, size + 1)

    cdef int put_string(self, str value) except -1:
        cdef Py_ssize_t size
        cdef const char* text
        try:
            text = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            raise ValueError(f"{self.where()}: text with a lone surrogate is no UTF-8") from None
        if size >= 0x7FFFFFFF:
            raise ValueError(f"{self.where()}: text of {size} bytes is too long for BSON")
        self.put_int32(<int32_t> (size + 1))
        return self.put(text, size + 1)

    cdef int put_members(self, object value, int depth) except -1:
        """Write dict, list or tuple as a document; the length is filled in at the end."""
        cdef Py_ssize_t start = self.size, length
        cdef object name, member
        cdef Py_ssize_t index = 0
        cdef int32_t total
        if depth > MAX_DEPTH:
            raise ValueError(f"{self.where()[:60]}...: nested deeper than {MAX_DEPTH} levels, or it contains itself")
        self.put_int32(0)
        if isinstance(value, dict):
            for name, member in (<dict> value).items():
                self.put_element(name, member, depth)
        else:
            for member in value:
                self.put_element(str(index), member, depth)
                index += 1
        self.put_byte(0)
        length = self.size - start
        if length > 0x7FFFFFFF:
            raise ValueError(f"{self.where()}: {length} bytes are too long for BSON")
        total = <int32_t> length
        memcpy(self.data + start, &total, 4)
        return 0

    cdef int put_element(self, object name, object value, int depth) except -1:
        cdef Py_ssize_t start = self.size
        cdef long long integer
        cdef int overflow = 0
        cdef bytes raw
        self.put_byte(0)  # the type, known only below
        self.put_name(name)
        self.path.append(name)
        cdef unsigned char kind
        if value is None:
            kind = 0x0A
        elif value is True or value is False:
            kind = 0x08
            self.put_byte(value is True)
        elif isinstance(value, str):
            kind = 0x02
            self.put_string(value)
        elif isinstance(value, float):
            kind = 0x01
            self.put_double(<double> value)
        elif isinstance(value, int):
            integer = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                raise ValueError(f"{self.where()}: {value!r:.60} does not fit into 64 bits")
            if -0x80000000 <= integer <= 0x7FFFFFFF:
                kind = 0x10
                self.put_int32(<int32_t> integer)
            else:
                kind = 0x12
                self.put_int64(integer)
        elif isinstance(value, dict):
            kind = 0x03
            self.put_members(value, depth + 1)
        elif isinstance(value, (list, tuple)):
            kind = 0x04
            self.put_members(value, depth + 1)
        elif PyDateTime_Check(value):
            kind = 0x09
            if value.utcoffset() is None:
                raise ValueError(f"{self.where()}: {value!r} is naive; give it a time zone, as in datetime.now(timezone.utc)")
            self.put_int64((value - _EPOCH) // _MILLISECOND)
        elif isinstance(value, (bytes, bytearray)):
            kind = 0x05
            raw = bytes(value)
            if PyBytes_GET_SIZE(raw) >= 0x7FFFFFFF:
                raise ValueError(f"{self.where()}: {len(raw)} bytes are too long for BSON")
            self.put_int32(<int32_t> PyBytes_GET_SIZE(raw))
            self.put_byte(0)
            self.put(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
        elif isinstance(value, ObjectId):
            kind = 0x07
            raw = value.binary
            self.put(PyBytes_AS_STRING(raw), 12)
        else:
            self.size = start
            self.path.pop()
            return self.put_other(name, value, depth)
        self.data[start] = <char> kind
        self.path.pop()
        return 0

    cdef int put_other(self, object name, object value, int depth) except -1:
        """Types outside the core set: pymongo's own BSON types as pymongo writes them, the rest through the fallback."""
        cdef bytes raw
        cdef object plain
        if type(value).__module__.partition(".")[0] == "bson":
            raw = _encode_with_pymongo({"": value})
            # int32 length, type, empty name, value, closing NUL
            self.put_byte(raw[4])
            self.put_name(name)
            return self.put(PyBytes_AS_STRING(raw) + 6, PyBytes_GET_SIZE(raw) - 7)
        self.path.append(name)
        if depth > MAX_DEPTH:
            raise ValueError(f"{self.where()[:60]}...: nested deeper than {MAX_DEPTH} levels, or it contains itself")
        try:
            plain = self.fallback(value)
        except TypeError as error:
            raise TypeError(f"{self.where()}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{self.where()}: {error}") from None
        self.path.pop()
        return self.put_element(name, plain, depth + 1)


def encode(dict document not None, fallback not None) -> bytes:
    """The BSON of ``document``.

    ``fallback(value)`` turns a value of a type outside BSON into one inside, or raises TypeError. Raises TypeError or
    ValueError whose text begins with the path of the value at fault.
    """
    cdef _Writer writer = _Writer(fallback)
    writer.put_members(document, 0)
    return PyBytes_FromStringAndSize(writer.data, writer.size)


# --- reading ---------------------------------------------------------------------------------------------------------

cdef int32_t _int32(const unsigned char* at) noexcept:
    cdef int32_t value
    memcpy(&value, at, 4)
    return value


cdef Py_ssize_t _value_size(unsigned char kind, const unsigned char* at, Py_ssize_t left) except -1:
    """How many bytes the value at ``at`` takes, with at most ``left`` bytes before its document ends."""
    cdef Py_ssize_t size
    cdef const void* end
    if kind in (0x01, 0x09, 0x11, 0x12):  # double, date, timestamp, int64
        size = 8
    elif kind == 0x10:  # int32
        size = 4
    elif kind == 0x08:  # bool
        size = 1
    elif kind in (0x06, 0x0A, 0x7F, 0xFF):  # undefined, null, max key, min key
        size = 0
    elif kind == 0x07:  # ObjectId
        size = 12
    elif kind == 0x13:  # decimal128
        size = 16
    elif kind in (0x02, 0x0D, 0x0E, 0x05, 0x03, 0x04, 0x0F, 0x0C):
        if left < 4:
            raise ValueError("BSON ends inside a length")
        size = _int32(at)
        if kind in (0x03, 0x04, 0x0F):  # document, array, code with scope: the length counts itself
            if size < 5:
                raise ValueError("BSON length is too small")
        elif size < 0 or (kind != 0x05 and size < 1):
            raise ValueError("BSON length is negative")
        else:
            # string, code, symbol: length; binary: length and subtype; DBPointer: a string and 12 bytes
            size += 4 + (1 if kind == 0x05 else 0) + (12 if kind == 0x0C else 0)
    elif kind == 0x0B:  # regular expression: two C strings
        end = memchr(at, 0, left)
        if end == NULL:
            raise ValueError("BSON ends inside a regular expression")
        size = <const unsigned char*> end - at + 1
        end = memchr(at + size, 0, left - size)
        if end == NULL:
            raise ValueError("BSON ends inside a regular expression")
        size = <const unsigned char*> end - at + 1
    else:
        raise ValueError(f"BSON type 0x{kind:02x} is unknown")
    if size > left:
        raise ValueError("BSON value reaches beyond its document")
    return size


cdef enum:
    FIELDS = 6

cdef const char* _NAMES[FIELDS]
_NAMES[0] = b"timestamp"
_NAMES[1] = b"open"
_NAMES[2] = b"high"
_NAMES[3] = b"low"
_NAMES[4] = b"close"
_NAMES[5] = b"volume"
cdef Py_ssize_t[FIELDS] _NAME_SIZES = [9, 4, 4, 3, 5, 6]

cdef double _number(unsigned char kind, const unsigned char* at, int field) except? -1.0:
    cdef double real
    cdef int64_t integer
    if kind == 0x01:
        memcpy(&real, at, 8)
        return real
    if kind == 0x10:
        return <double> _int32(at)
    if kind == 0x12:
        memcpy(&integer, at, 8)
        return <double> integer
    if kind == 0x13:
        return float(Decimal128.from_bid(PyBytes_FromStringAndSize(<const char*> at, 16)).to_decimal())
    raise ValueError(f"{_NAMES[field].decode()} is not a number (BSON type 0x{kind:02x})")


cdef Py_ssize_t _candle(const unsigned char* document, Py_ssize_t size, double* values) except -1:
    """Read the six fields of one candle document into ``values``."""
    cdef Py_ssize_t at = 4, name_size, value_size
    cdef const unsigned char* name
    cdef const void* end
    cdef unsigned char kind
    cdef int field, seen = 0
    while at < size - 1:
        kind = document[at]
        name = document + at + 1
        end = memchr(name, 0, size - 1 - (at + 1))
        if end == NULL:
            raise ValueError("BSON ends inside a field name")
        name_size = <const unsigned char*> end - name
        at += name_size + 2
        value_size = _value_size(kind, document + at, size - 1 - at)
        for field in range(FIELDS):
            if name_size == _NAME_SIZES[field] and memcmp(name, _NAMES[field], name_size) == 0:
                values[field] = _number(kind, document + at, field)
                seen |= 1 << field
                break
        at += value_size
    if at != size - 1 or document[size - 1] != 0:
        raise ValueError("BSON document does not end where its length says")
    for field in range(FIELDS):
        if not seen & (1 << field):
            raise ValueError(f"{_NAMES[field].decode()} is missing")
    return 0


def decode_candles(list batches not None, char[::1] target, long long since, long long step, Py_ssize_t limit) -> int:
    """Place candle documents on the grid since, since + step, ... (``limit`` slots, ms); return how many slots were filled.

    ``batches`` hold whole BSON documents end to end, ordered by time stamp without duplicates. ``target`` is the memory of
    ``limit`` packed rows of one int64 (time stamp) and five float64 (open, high, low, close, volume). Documents off the grid
    are passed over. Raises ValueError for malformed BSON and for a candle with a field that is absent or no number.
    """
    cdef double values[FIELDS]
    cdef const unsigned char[::1] batch
    cdef const unsigned char* data
    cdef Py_ssize_t left, size, slot, filled = 0
    cdef long long timestamp, offset
    cdef object raw
    if step <= 0 or limit < 0 or target.shape[0] != limit * 48:
        raise ValueError("target does not hold limit rows of 48 bytes")
    for raw in batches:
        batch = raw
        left = batch.shape[0]
        if left == 0:
            continue
        data = &batch[0]
        while left > 0:
            if left < 5:
                raise ValueError("BSON ends inside a length")
            size = _int32(data)
            if size < 5 or size > left:
                raise ValueError("BSON document reaches beyond its batch")
            try:
                _candle(data, size, values)
            except ValueError as error:
                raise ValueError(f"candle after {filled} good ones of the window: {error}") from None
            data += size
            left -= size
            if not isfinite(values[0]) or values[0] > 9e15 or values[0] < -9e15:
                continue
            timestamp = <long long> values[0]
            offset = timestamp - since
            if <double> timestamp != values[0] or offset < 0 or offset % step != 0:
                continue
            slot = <Py_ssize_t> (offset // step)
            if slot >= limit or slot < filled:
                continue
            memcpy(&target[slot * 48], &timestamp, 8)
            memcpy(&target[slot * 48 + 8], &values[1], 40)
            filled += 1
            if slot != filled - 1:
                return filled - 1  # a hole: nothing behind it can make the window whole
    return filled
