"""BSON (bsonspec.org) taken apart: records, values, single fields. No length is trusted: every step is checked against its end."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.math cimport NAN, isfinite
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memchr, memcmp, memcpy

from datetime import datetime, timedelta, timezone

from bson import Binary, Code, DBRef, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)

cdef object _EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
cdef object _MILLISECOND = timedelta(milliseconds=1)

# MongoDB nests a hundred levels at most; twice that keeps a hostile document from the end of the stack.
cdef enum:
    DEEPEST = 200

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
    if depth > DEEPEST:
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
    return _rare_value(element, depth)


cdef object _rare_value(const Element* element, int depth):
    """Types that payloads hardly ever have, as pymongo's own classes. (Its decoder is not asked: it reads beyond malformed ones.)"""
    cdef unsigned char kind = element.kind
    cdef const unsigned char* at = element.value
    cdef Py_ssize_t size = element.size, length
    if kind == 0x05:
        if at[4] == 2:  # the old form holds its length once more
            if size < 9 or _int32(at + 5) != size - 9:
                raise ValueError("BSON binary of subtype 2 contradicts its length")
            return Binary(PyBytes_FromStringAndSize(<const char*> at + 9, size - 9), 2)
        return Binary(PyBytes_FromStringAndSize(<const char*> at + 5, size - 5), at[4])
    if kind == 0x0B:
        length = <const unsigned char*> memchr(at, 0, size) - at
        return Regex(_text(at, length), _text(at + length + 1, size - length - 2))
    if kind == 0x11:
        return Timestamp(<unsigned int> _int32(at + 4), <unsigned int> _int32(at))
    if kind == 0x7F:
        return MaxKey()
    if kind == 0xFF:
        return MinKey()
    if kind == 0x0F:  # its own length, a text, a document
        if size < 14 or not 1 <= _int32(at + 4) <= size - 13:
            raise ValueError("BSON code with scope contradicts its length")
        length = _int32(at + 4)
        if at[8 + length - 1] != 0:
            raise ValueError("BSON text has no end")
        return Code(_text(at + 8, length - 1), _members(at + 8 + length, size - 8 - length, False, depth + 1))
    length = _int32(at)  # a text, checked to be inside the element
    if at[4 + length - 1] != 0:
        raise ValueError("BSON text has no end")
    text = _text(at + 4, length - 1)
    if kind == 0x0D:
        return Code(text)
    if kind == 0x0E:
        return text
    if kind == 0x0C:
        return DBRef(text, ObjectId(PyBytes_FromStringAndSize(<const char*> at + 4 + length, 12)))
    raise ValueError(f"BSON type 0x{kind:02x} is unknown")


def decode(const unsigned char[::1] raw not None) -> dict:
    """The dict of one BSON document. Raises ValueError for malformed BSON."""
    return _members(whole_document(raw), raw.shape[0], False, 0)


def split(const unsigned char[::1] batch not None) -> list:
    """The documents of a batch of whole documents, each as bytes."""
    cdef list documents = []
    cdef Py_ssize_t at = 0, size
    while at < batch.shape[0]:
        size = document_size(&batch[at], batch.shape[0] - at)
        documents.append(PyBytes_FromStringAndSize(<const char*> &batch[at], size))
        at += size
    return documents


cdef Py_ssize_t document_size(const unsigned char* at, Py_ssize_t left) except -1:
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
            elif is_called(&element, b"_id", 3):
                parts.identity = element
            elif is_called(&element, b"when", 4):
                parts.when = element
            elif is_called(&element, b"removed", 7):
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
        """(key, id in 12 bytes or None if it is no ObjectId, body, when, removed) of a document; None for a key field that is not there."""
        cdef Parts parts
        cdef Py_ssize_t i
        self.scan(whole_document(raw), raw.shape[0], &parts)
        key = tuple([value_of(&parts.keys[i], 0) if parts.keys[i].kind else None for i in range(len(self.names))])
        identity = PyBytes_FromStringAndSize(<const char*> parts.identity.value, 12) if parts.identity.kind == 0x07 else None
        return (key, identity, *self.values(&parts))


cdef bint is_called(const Element* element, const char* name, Py_ssize_t size) noexcept:
    return element.name_size == size and memcmp(element.name, name, size) == 0


cdef bint _named(const Element* element, bytes name) noexcept:
    return is_called(element, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
