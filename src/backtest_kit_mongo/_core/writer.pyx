"""Encode Python values as BSON (bsonspec.org), and check them on the way.

Values that could not be read back are rejected: integers outside 64 bits, naive datetimes, keys that are not strings, NUL in a key,
endless nesting.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport PyDateTime_Check, PyDateTime_CheckExact, datetime_tzinfo, get_utc, import_datetime
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcpy

from backtest_kit_mongo._core.dates cimport milliseconds_of

from backtest_kit_mongo._core.bson import decode

from datetime import datetime, timedelta, timezone

from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson import encode as _encode_with_pymongo
from bson.errors import BSONError, InvalidDocument
from bson.raw_bson import RawBSONDocument

import_datetime()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef object UTC = get_utc()
cdef object _EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef object _MILLISECOND = timedelta(milliseconds=1)
cdef object _FIRST = (datetime.min.replace(tzinfo=timezone.utc) - _EPOCH) // _MILLISECOND
cdef object _LAST = (datetime.max.replace(tzinfo=timezone.utc) - _EPOCH) // _MILLISECOND

# The types that pymongo encodes for us. (Int64, ObjectId and SON, which is a dict, are encoded here.)
cdef tuple _OF_PYMONGO = (Binary, Code, DatetimeMS, DBRef, Decimal128, MaxKey, MinKey, RawBSONDocument, Regex, Timestamp)

# The server accepts 100 levels of nesting (MongoDB limits); the command and the update around a body take three of them.
cdef int MAX_DEPTH = 96


cdef str _shown(object value):
    """Return the beginning of a repr for an error message; the type if there is no repr (an int of 5,000 digits has none)."""
    try:
        return f"{value!r:.60}"
    except Exception:
        return f"a {type(value).__name__}"


@cython.final
cdef class Writer:
    """A growing buffer and, for error messages, the path of the value being written."""

    def __cinit__(self, object fallback):
        self.capacity = 512
        self.size = 0
        self.pending = 0
        self.step = NULL
        self.fallback = fallback
        self.data = <char*> PyMem_Malloc(self.capacity)
        if self.data == NULL:
            raise MemoryError

    def __dealloc__(self):
        PyMem_Free(self.data)

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t capacity = self.capacity
        cdef char* data
        while capacity < self.size + more:
            capacity *= 2
        data = <char*> PyMem_Realloc(self.data, capacity)
        if data == NULL:
            raise MemoryError
        self.data = data
        self.capacity = capacity
        return 0

    cdef int put(self, const void* source, Py_ssize_t size) except -1:
        if self.size + size > self.capacity:
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
        cdef list path = []
        cdef Step* step = self.step
        while step != NULL:
            path.append(<object> step.name if step.index < 0 else str(step.index))
            step = step.above
        path.reverse()
        return ".".join(path) if path else "document"

    cdef int refuse_depth(self) except -1:
        raise ValueError(f"{self.where()[:60]}...: nested deeper than {MAX_DEPTH} levels, or it contains itself")

    cdef int put_name(self, object name) except -1:
        cdef Py_ssize_t size
        cdef const char* text
        if not isinstance(name, str):
            raise TypeError(f"{self.where()}: keys must be str, got {type(name).__name__} ({_shown(name)})")
        try:
            text = PyUnicode_AsUTF8AndSize(name, &size)
        except UnicodeEncodeError:
            raise ValueError(f"{self.where()}: key {ascii(name)} holds a lone surrogate and cannot be stored as UTF-8") from None
        if memchr(text, 0, size) != NULL:
            raise ValueError(f"{self.where()}: key {ascii(name)} holds a NUL character")
        return self.put(text, size + 1)

    cdef int put_index(self, Py_ssize_t index) except -1:
        cdef char digits[24]
        cdef int at = 23
        digits[at] = 0
        while True:
            at -= 1
            digits[at] = <char> (48 + index % 10)
            index //= 10
            if index == 0:
                return self.put(digits + at, 24 - at)

    cdef int put_string(self, object value) except -1:
        cdef Py_ssize_t size
        cdef const char* text
        try:
            text = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            raise ValueError(f"{self.where()}: text with a lone surrogate cannot be stored as UTF-8") from None
        if size >= 0x7FFFFFFF:
            raise ValueError(f"{self.where()}: text of {size} bytes is too long for BSON")
        self.put_int32(<int32_t> (size + 1))
        return self.put(text, size + 1)

    cdef int put_date(self, object value) except -1:
        cdef object milliseconds
        if PyDateTime_CheckExact(value) and datetime_tzinfo(value) is UTC:  # no Python code of a subclass or time zone is involved
            return self.put_int64(milliseconds_of(value))
        try:
            if value != value:  # pandas.NaT, which is a datetime
                raise ValueError("NaT is not a time; use None where there is none")
            if value.utcoffset() is None:
                raise ValueError(f"{value!r} is naive; give it a time zone, as in value.replace(tzinfo=timezone.utc)")
            milliseconds = (value - _EPOCH) // _MILLISECOND
            if not _FIRST <= milliseconds <= _LAST:
                raise ValueError(f"{value!r} is outside the years 1 to 9999 in UTC, and could not be read back")
            return self.put_int64(milliseconds)
        except TypeError as error:
            raise TypeError(f"{self.where()}: {error}") from None
        except (ValueError, ArithmeticError) as error:
            raise ValueError(f"{self.where()}: {error}") from None

    cdef int put_members(self, object value, int depth) except -1:
        """Write a dict, list or tuple as a document; fill in its length at the end."""
        cdef Py_ssize_t start
        cdef object name, member
        cdef Py_ssize_t index = 0
        if depth > MAX_DEPTH:
            self.refuse_depth()
        start = self.begin()
        if type(value) is dict:
            for name, member in (<dict> value).items():
                self.put_element(name, -1, member, depth)
        elif isinstance(value, dict):  # it may have its own order or items()
            for name, member in value.items():
                self.put_element(name, -1, member, depth)
        else:
            for member in value:
                self.put_element(None, index, member, depth)
                index += 1
        return self.end(start)

    cdef Py_ssize_t begin(self) except -1:
        """Begin a document and return its start."""
        self.put_int32(0)
        return self.size - 4

    cdef int end(self, Py_ssize_t start) except -1:
        """End the document that begins at ``start``, and fill in its length."""
        cdef Py_ssize_t length
        cdef int32_t total
        self.put_byte(0)
        length = self.size - start
        if length > 0x7FFFFFFF:
            raise ValueError(f"{self.where()}: {length} bytes are too long for BSON")
        total = <int32_t> length
        memcpy(self.data + start, &total, 4)
        return 0

    cdef int put_element(self, object name, Py_ssize_t index, object value, int depth) except -1:
        """Write one element: of a document under its name, or of a list (``name`` is None then) under its index."""
        cdef Step step
        cdef Py_ssize_t start = self.size
        self.put_byte(0)  # the type; filled in below
        if index < 0:
            self.put_name(name)
        else:
            self.put_index(index)
        step.name = <PyObject*> name
        step.index = index
        step.above = self.step
        self.step = &step
        cdef int kind = self.put_value(value, depth)
        self.data[start] = <char> kind  # the buffer may have moved
        self.step = step.above
        return 0

    cdef int put_value(self, object value, int depth) except -1:
        """Write the value of an element; return its BSON type."""
        cdef long long integer
        cdef int overflow = 0
        cdef bytes raw
        cdef object binary
        cdef int kind
        if value is None:
            kind = 0x0A
        elif value is True or value is False:
            kind = 0x08
            self.put_byte(value is True)
        elif isinstance(value, str) and (type(value) is str or not isinstance(value, Code)):
            kind = 0x02
            self.put_string(value)
        elif type(value) is float:
            kind = 0x01
            self.put_double(<double> value)
        elif isinstance(value, int):
            integer = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                raise ValueError(f"{self.where()}: {_shown(value)} does not fit into 64 bits")
            if -0x80000000 <= integer <= 0x7FFFFFFF and (type(value) is int or not isinstance(value, Int64)):
                kind = 0x10
                self.put_int32(<int32_t> integer)
            else:
                kind = 0x12
                self.put_int64(integer)
        elif isinstance(value, float):
            kind = 0x01
            self.put_double(<double> value)
        elif isinstance(value, dict):
            kind = 0x03
            self.put_members(value, depth + 1)
        elif isinstance(value, (list, tuple)):
            kind = 0x04
            self.put_members(value, depth + 1)
        elif PyDateTime_Check(value):
            kind = 0x09
            self.put_date(value)
        elif isinstance(value, (bytes, bytearray)) and (type(value) is bytes or not isinstance(value, Binary)):
            kind = 0x05
            raw = bytes(value)
            if PyBytes_GET_SIZE(raw) >= 0x7FFFFFFF:
                raise ValueError(f"{self.where()}: {len(raw)} bytes are too long for BSON")
            self.put_int32(<int32_t> PyBytes_GET_SIZE(raw))
            self.put_byte(0)
            self.put(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
        elif isinstance(value, ObjectId):
            kind = 0x07
            binary = getattr(value, "binary", None)
            if not isinstance(binary, bytes) or PyBytes_GET_SIZE(binary) != 12:
                raise TypeError(f"{self.where()}: the ObjectId does not hold 12 bytes")
            self.put(PyBytes_AS_STRING(binary), 12)
        elif type(value) is RawBSONDocument:  # already encoded, and so already checked
            kind = 0x03
            raw = bytes(value.raw)  # pymongo returns a memoryview for a long one
            self.put(PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw))
        else:
            kind = self.put_other(value, depth)
        return kind

    cdef int put_other(self, object value, int depth) except -1:
        """Write a value of another type: pymongo encodes its own BSON types, and the fallback converts the rest."""
        cdef bytes raw
        cdef object plain
        cdef int kind
        try:
            if isinstance(value, _OF_PYMONGO):
                raw = _encode_with_pymongo({"": value})
                decode(raw)  # pymongo encodes dates that could not be read back
                plain = None
            else:
                raw = None
                plain = self.fallback(value)
        except (TypeError, InvalidDocument) as error:
            raise TypeError(f"{self.where()}: {error}") from None
        except (ValueError, ArithmeticError, BSONError) as error:
            raise ValueError(f"{self.where()}: {error}") from None
        if raw is None:
            if self.pending > MAX_DEPTH:  # ``depth`` misses results that need the fallback again and again
                self.refuse_depth()
            self.pending += 1
            kind = self.put_value(plain, depth)
            self.pending -= 1
            return kind
        # int32 length, type, empty name, value, closing NUL
        self.put(PyBytes_AS_STRING(raw) + 6, PyBytes_GET_SIZE(raw) - 7)
        return raw[4]


def encode(dict document not None, fallback not None) -> bytes:
    """Return the BSON of ``document``.

    ``fallback(value)`` converts a value that has no BSON type to one that has, or raises TypeError. Raises TypeError or ValueError
    with a text that begins with the path of the invalid value.
    """
    cdef Writer writer = Writer(fallback)
    writer.put_members(document, 0)
    return PyBytes_FromStringAndSize(writer.data, writer.size)


def encode_many(list documents not None, fallback not None) -> bytes:
    """Return the BSON of all ``documents`` end to end. Like ``encode``; ``error.index`` is the position of the invalid document."""
    cdef Writer writer = Writer(fallback)
    cdef Py_ssize_t index = 0
    try:
        for document in documents:
            if not isinstance(document, dict):
                raise TypeError(f"expected a dict, got {type(document).__name__}")
            writer.put_members(document, 0)
            index += 1
    except (TypeError, ValueError) as error:
        error.index = index
        raise
    return PyBytes_FromStringAndSize(writer.data, writer.size)
