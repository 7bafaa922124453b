"""BSON (bsonspec.org): documents from Python values, checked while they are written; candle columns from raw documents.

The writer refuses what a reader could not get back: integers outside 64 bits, naive datetimes, keys that are no strings,
NUL in a key, nesting without end. The reader trusts no length: every step is checked against the end of its buffer.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport PyDateTime_Check, import_datetime
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.math cimport NAN, isfinite
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcmp, memcpy

from datetime import datetime, timedelta, timezone

from bson import Binary, Code, DatetimeMS, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson import decode as _decode_with_pymongo
from bson import encode as _encode_with_pymongo
from bson.errors import BSONError, InvalidDocument
from bson.raw_bson import RawBSONDocument

import_datetime()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

cdef object _EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef object _MILLISECOND = timedelta(milliseconds=1)

# What pymongo writes for us. (Int64, ObjectId and SON, a dict, are written here.)
cdef tuple _OF_PYMONGO = (Binary, Code, DatetimeMS, DBRef, Decimal128, MaxKey, MinKey, RawBSONDocument, Regex, Timestamp)

# The server takes 100 levels of nesting (MongoDB limits); three of them hold the command and the update around a payload.
cdef int MAX_DEPTH = 96


cdef str _shown(object value):
    """The beginning of a repr for an error message; the type where there is no repr (an int of 5,000 digits has none)."""
    try:
        return f"{value!r:.60}"
    except Exception:
        return f"a {type(value).__name__}"


@cython.final
cdef class _Writer:
    """A growing buffer and, for the error message, the path of the value that is being written."""

    cdef char* data
    cdef Py_ssize_t size, capacity
    cdef list path
    cdef object fallback
    cdef int pending  # calls of the fallback whose answer is being written

    def __cinit__(self, object fallback):
        self.capacity = 512
        self.size = 0
        self.pending = 0
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
        return ".".join(self.path) if self.path else "document"

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
            raise ValueError(f"{self.where()}: key {ascii(name)} holds a lone surrogate and is no UTF-8") from None
        if memchr(text, 0, size) != NULL:
            raise ValueError(f"{self.where()}: key {ascii(name)} holds a NUL character")
        return self.put(text, size + 1)

    cdef int put_string(self, object value) except -1:
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

    cdef int put_date(self, object value) except -1:
        cdef object milliseconds
        try:
            if value.utcoffset() is None:
                raise ValueError(f"{value!r} is naive; give it a time zone, as in datetime.now(timezone.utc)")
            milliseconds = (value - _EPOCH) // _MILLISECOND
            return self.put_int64(milliseconds)
        except TypeError as error:
            raise TypeError(f"{self.where()}: {error}") from None
        except (ValueError, ArithmeticError) as error:
            raise ValueError(f"{self.where()}: {error}") from None

    cdef int put_members(self, object value, int depth) except -1:
        """Write dict, list or tuple as a document; the length is filled in at the end."""
        cdef Py_ssize_t start = self.size, length
        cdef object name, member
        cdef Py_ssize_t index = 0
        cdef int32_t total
        if depth > MAX_DEPTH:
            self.refuse_depth()
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
        cdef object binary
        self.put_byte(0)  # the type, known only below
        self.put_name(name)
        self.path.append(name)
        cdef unsigned char kind
        if value is None:
            kind = 0x0A
        elif value is True or value is False:
            kind = 0x08
            self.put_byte(value is True)
        elif isinstance(value, str) and (type(value) is str or not isinstance(value, Code)):
            kind = 0x02
            self.put_string(value)
        elif isinstance(value, float):
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
                raise TypeError(f"{self.where()}: an ObjectId without its 12 bytes")
            self.put(PyBytes_AS_STRING(binary), 12)
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
        self.path.append(name)
        try:
            if isinstance(value, _OF_PYMONGO):
                raw = _encode_with_pymongo({"": value})
                plain = None
            else:
                raw = None
                plain = self.fallback(value)
        except (TypeError, InvalidDocument) as error:
            raise TypeError(f"{self.where()}: {error}") from None
        except (ValueError, ArithmeticError, BSONError) as error:
            raise ValueError(f"{self.where()}: {error}") from None
        if raw is None:
            if self.pending > MAX_DEPTH:  # as depth cannot see an answer that needs the fallback again, and again
                self.refuse_depth()
            self.path.pop()
            self.pending += 1
            self.put_element(name, plain, depth)
            self.pending -= 1
            return 0
        self.path.pop()
        # int32 length, type, empty name, value, closing NUL
        self.put_byte(raw[4])
        self.put_name(name)
        return self.put(PyBytes_AS_STRING(raw) + 6, PyBytes_GET_SIZE(raw) - 7)


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


cdef int next_element(const unsigned char* document, Py_ssize_t size, Py_ssize_t* at, Element* found) except -1:
    """The element of a document (of ``size`` bytes, which all exist) at ``at``, which then stands behind it; 0 at the end."""
    cdef const void* end
    if at[0] >= size - 1:
        if at[0] != size - 1 or document[size - 1] != 0:
            raise ValueError("BSON document does not end where its length says")
        return 0
    found.kind = document[at[0]]
    found.name = document + at[0] + 1
    end = memchr(found.name, 0, size - 1 - (at[0] + 1))
    if end == NULL:
        raise ValueError("BSON ends inside a field name")
    found.name_size = <const unsigned char*> end - found.name
    at[0] += found.name_size + 2
    found.value = document + at[0]
    found.size = _value_size(found.kind, found.value, size - 1 - at[0])
    at[0] += found.size
    return 1


cdef int find_element(const unsigned char* document, Py_ssize_t size, const char* name, Py_ssize_t name_size, Element* found) except -1:
    """The element called ``name``; 0 if there is none."""
    cdef Py_ssize_t at = 4
    while next_element(document, size, &at, found):
        if found.name_size == name_size and memcmp(found.name, name, name_size) == 0:
            return 1
    return 0


cdef const unsigned char* whole_document(const unsigned char[::1] raw) except NULL:
    """The start of ``raw``, whose length is checked to be that of one document."""
    if raw.shape[0] < 5 or _int32(&raw[0]) != raw.shape[0]:
        raise ValueError("BSON document reaches beyond its bytes")
    return &raw[0]


cdef double number_of(const Element* element) except? -1.0:
    """A number of any BSON type; ValueError that names the field for everything else."""
    cdef double real
    cdef int64_t integer
    if element.kind == 0x01:
        memcpy(&real, element.value, 8)
        return real
    if element.kind == 0x10:
        return <double> _int32(element.value)
    if element.kind == 0x12:
        memcpy(&integer, element.value, 8)
        return <double> integer
    if element.kind == 0x13:
        return float(Decimal128.from_bid(PyBytes_FromStringAndSize(<const char*> element.value, 16)).to_decimal())
    name = element.name[: element.name_size].decode("utf-8", "replace")
    raise ValueError(f"{name} is not a number (BSON type 0x{element.kind:02x})")


cdef object _text(const unsigned char* at, Py_ssize_t size):
    return PyUnicode_DecodeUTF8(<const char*> at, size, NULL)


cdef object _members(const unsigned char* document, Py_ssize_t size, bint is_list, int depth):
    cdef Element element
    cdef Py_ssize_t at = 4
    cdef dict members
    cdef list items
    if depth > 2 * MAX_DEPTH:
        raise ValueError("BSON is nested too deep")
    if size < 5 or _int32(document) != size:
        raise ValueError("BSON document reaches beyond its place")
    if is_list:
        items = []
        while next_element(document, size, &at, &element):
            items.append(value_of(&element, depth))
        return items
    members = {}
    while next_element(document, size, &at, &element):
        members[_text(element.name, element.name_size)] = value_of(&element, depth)
    return members


cdef object value_of(const Element* element, int depth):
    """The Python value of an element: plain ints and floats, aware datetimes in UTC, Decimals; other types as pymongo has them."""
    cdef double real
    cdef int64_t integer
    cdef unsigned char kind = element.kind
    if kind == 0x02:
        if element.value[element.size - 1] != 0:
            raise ValueError("BSON text has no end")
        return _text(element.value + 4, element.size - 5)
    if kind == 0x01:
        memcpy(&real, element.value, 8)
        return real
    if kind == 0x10:
        return _int32(element.value)
    if kind == 0x12:
        memcpy(&integer, element.value, 8)
        return integer
    if kind == 0x08:
        if element.value[0] > 1:
            raise ValueError("BSON boolean is neither true nor false")
        return element.value[0] == 1
    if kind == 0x0A or kind == 0x06:  # null, and JavaScript's undefined
        return None
    if kind == 0x03 or kind == 0x04:
        return _members(element.value, element.size, kind == 0x04, depth + 1)
    if kind == 0x09:
        memcpy(&integer, element.value, 8)
        try:
            return _EPOCH + _MILLISECOND * integer
        except OverflowError:
            raise ValueError(f"a date {integer} ms from 1970 is outside the years 1 to 9999") from None
    if kind == 0x07:
        return ObjectId(PyBytes_FromStringAndSize(<const char*> element.value, 12))
    if kind == 0x05 and element.value[4] == 0:
        return PyBytes_FromStringAndSize(<const char*> element.value + 5, element.size - 5)
    if kind == 0x13:
        return Decimal128.from_bid(PyBytes_FromStringAndSize(<const char*> element.value, 16)).to_decimal()
    # Rare types: as a document of one field, by pymongo.
    raw = PyBytes_FromStringAndSize(<const char*> element.value, element.size)
    try:
        return _decode_with_pymongo((element.size + 7).to_bytes(4, "little") + bytes((kind, 0)) + raw + b"\0")[""]
    except BSONError as error:
        raise ValueError(f"BSON type 0x{kind:02x} is malformed: {error}") from None


def decode(const unsigned char[::1] raw not None) -> dict:
    """The dict of one BSON document. Raises ValueError for malformed BSON."""
    return _members(whole_document(raw), raw.shape[0], False, 0)


def split(const unsigned char[::1] batch not None) -> list:
    """The documents of a batch of whole documents, each as bytes."""
    cdef list documents = []
    cdef Py_ssize_t at = 0, size
    while at < batch.shape[0]:
        size = _document_size(&batch[at], batch.shape[0] - at)
        documents.append(PyBytes_FromStringAndSize(<const char*> &batch[at], size))
        at += size
    return documents


cdef Py_ssize_t _document_size(const unsigned char* at, Py_ssize_t left) except -1:
    if left < 5:
        raise ValueError("BSON ends inside a length")
    cdef Py_ssize_t size = _int32(at)
    if size < 5 or size > left:
        raise ValueError("BSON document reaches beyond its batch")
    return size


cdef enum:
    MOST_KEYS = 8


cdef struct Parts:  # kind 0 where the document has no such field
    Element keys[MOST_KEYS]
    Element identity
    Element body
    Element when
    Element removed


@cython.final
cdef class RecordReader:
    """Takes the documents of one collection apart: key fields, id, body, simulation time, soft deletion.

    It keeps no state between calls: another thread may run while a value is being made.
    """

    cdef tuple names
    cdef bytes body

    def __init__(self, tuple names not None, str body not None):
        if len(names) > MOST_KEYS:
            raise ValueError("too many key fields")
        self.names = tuple([name.encode() for name in names])
        self.body = body.encode()

    cdef int scan(self, const unsigned char* document, Py_ssize_t size, Parts* parts) except -1:
        """Note where the parts are."""
        cdef Py_ssize_t at = 4
        cdef Py_ssize_t i
        cdef Element element
        parts.identity.kind = parts.body.kind = parts.when.kind = parts.removed.kind = 0
        for i in range(MOST_KEYS):
            parts.keys[i].kind = 0
        while next_element(document, size, &at, &element):
            if _named(&element, self.body):
                parts.body = element
            elif _is(&element, b"_id", 3):
                parts.identity = element
            elif _is(&element, b"when", 4):
                parts.when = element
            elif _is(&element, b"removed", 7):
                parts.removed = element
            else:
                for i in range(len(self.names)):
                    if _named(&element, <bytes> self.names[i]):
                        parts.keys[i] = element
                        break
        return 0

    cdef bint matches(self, Parts* parts, tuple key) except -1:
        """Whether the key fields are ``key``."""
        cdef Py_ssize_t i
        cdef Py_ssize_t size
        cdef const char* text
        cdef object wanted
        for i in range(len(self.names)):
            wanted = key[i]
            if parts.keys[i].kind == 0x02 and isinstance(wanted, str):
                text = PyUnicode_AsUTF8AndSize(wanted, &size)
                if parts.keys[i].size != size + 5 or memcmp(parts.keys[i].value + 4, text, size) != 0:
                    return False
            elif parts.keys[i].kind == 0 or value_of(&parts.keys[i], 0) != wanted:
                return False
        return True

    cdef tuple values(self, Parts* parts):
        cdef double stamp
        when = None
        if parts.when.kind in (0x01, 0x10, 0x12, 0x13):  # whatever else another writer left there, no read depends on it
            try:
                stamp = number_of(&parts.when)
            except ValueError:  # a signalling NaN
                stamp = NAN
            if isfinite(stamp):
                when = int(stamp)
        removed = parts.removed.kind == 0x08 and parts.removed.value[0] == 1
        return (value_of(&parts.body, 0) if parts.body.kind else None, when, removed)

    def match(self, const unsigned char[::1] raw not None, tuple key not None):
        """(body, when, removed) of a document, or None if its key fields are not ``key``."""
        cdef Parts parts
        if len(key) != len(self.names):
            raise ValueError("a key of another length")
        self.scan(whole_document(raw), raw.shape[0], &parts)
        return self.values(&parts) if self.matches(&parts, key) else None

    def open(self, const unsigned char[::1] raw not None) -> tuple:
        """(key, id or None if it is no ObjectId, body, when, removed) of a document; None for a key field that is not there."""
        cdef Parts parts
        cdef Py_ssize_t i
        self.scan(whole_document(raw), raw.shape[0], &parts)
        key = tuple([value_of(&parts.keys[i], 0) if parts.keys[i].kind else None for i in range(len(self.names))])
        identity = value_of(&parts.identity, 0) if parts.identity.kind == 0x07 else None
        return (key, identity, *self.values(&parts))


cdef bint _is(const Element* element, const char* name, Py_ssize_t size) noexcept:
    return element.name_size == size and memcmp(element.name, name, size) == 0


cdef bint _named(const Element* element, bytes name) noexcept:
    return _is(element, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))


# --- candles ---------------------------------------------------------------------------------------------------------

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


cdef Py_ssize_t _slot(const unsigned char* document, Py_ssize_t size, long long since, long long step, double* values) except -2:
    """The grid slot of a candle and its six fields in ``values``; -1 for a document off the grid, whose prices nobody asked for."""
    cdef Element element, found[FIELDS]
    cdef Py_ssize_t at = 4
    cdef int field
    cdef long long timestamp
    cdef unsigned long long offset  # the distance of two int64 may need all 64 bits
    for field in range(FIELDS):
        found[field].kind = 0
    while next_element(document, size, &at, &element):
        for field in range(FIELDS):
            if _is(&element, _NAMES[field], _NAME_SIZES[field]):
                found[field] = element
                break
    if found[0].kind == 0:
        raise ValueError("timestamp is missing")
    values[0] = number_of(&found[0])
    if not isfinite(values[0]) or values[0] > 9e15 or values[0] < -9e15:
        return -1
    timestamp = <long long> values[0]
    if <double> timestamp != values[0] or timestamp < since:
        return -1
    offset = <unsigned long long> timestamp - <unsigned long long> since
    if offset % <unsigned long long> step != 0:
        return -1
    for field in range(1, FIELDS):
        if found[field].kind == 0:
            raise ValueError(f"the candle at {timestamp} has no {_NAMES[field].decode()}")
        try:
            values[field] = number_of(&found[field])
        except ValueError as error:
            raise ValueError(f"the candle at {timestamp}: {error}") from None
    offset //= <unsigned long long> step
    return <Py_ssize_t> min(offset, <unsigned long long> 0x7FFFFFFFFFFFFFFF)


def decode_candles(list batches not None, char[::1] target, long long since, long long step, Py_ssize_t limit) -> int:
    """Place candle documents on the grid since, since + step, ... (``limit`` slots, ms); return how many slots were filled.

    ``batches`` hold whole BSON documents end to end, ordered by time stamp without duplicates. ``target`` is the memory of
    ``limit`` packed rows of one int64 (time stamp) and five float64 (open, high, low, close, volume). Documents off the grid
    are passed over. Raises ValueError for malformed BSON and for a candle with a field that is absent or no number.
    """
    cdef double values[FIELDS]
    cdef const unsigned char[::1] batch
    cdef Py_ssize_t at, size, slot, filled = 0
    cdef long long timestamp
    cdef object raw
    if step <= 0 or limit < 0 or target.shape[0] % 48 != 0 or target.shape[0] // 48 != limit:
        raise ValueError("target does not hold limit rows of 48 bytes")
    for raw in batches:
        batch = raw
        at = 0
        while at < batch.shape[0]:
            size = _document_size(&batch[at], batch.shape[0] - at)
            slot = _slot(&batch[at], size, since, step, values)
            at += size
            if slot < filled or slot >= limit:
                continue
            if slot != filled:
                return filled  # a hole: nothing behind it can make the window whole
            timestamp = since + slot * step
            memcpy(&target[slot * 48], &timestamp, 8)
            memcpy(&target[slot * 48 + 8], &values[1], 40)
            filled += 1
    return filled


def numbers(list batches not None, str name not None) -> list:
    """The number called ``name`` of each document, as float, without those that have none; ``batches`` as in decode_candles."""
    cdef bytes wanted = name.encode()
    cdef const unsigned char[::1] batch
    cdef Element element
    cdef Py_ssize_t at, size
    cdef list found = []
    cdef object raw
    for raw in batches:
        batch = raw
        at = 0
        while at < batch.shape[0]:
            size = _document_size(&batch[at], batch.shape[0] - at)
            if find_element(&batch[at], size, PyBytes_AS_STRING(wanted), PyBytes_GET_SIZE(wanted), &element):
                if element.kind in (0x01, 0x10, 0x12, 0x13):
                    found.append(number_of(&element))
            at += size
    return found
