"""Decode BSON (bsonspec.org): records, values, single fields. No length is trusted: each is checked against the bytes that exist."""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport import_datetime
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.math cimport NAN, isfinite
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from backtest_kit_mongo._core.dates cimport date_of

from bson import Binary, Code, DBRef, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyUnicode_DecodeUTF8(const char* text, Py_ssize_t size, const char* errors)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bint PyUnicode_IS_ASCII(object text)
    const void* PyUnicode_DATA(object text)

cdef extern from *:
    """
    #define tuple_of(kind, arguments) PyTuple_Type.tp_new((PyTypeObject*) (kind), (arguments), NULL)
    """
    object tuple_of(object kind, tuple arguments)

import_datetime()

# MongoDB allows at most 100 levels of nesting. A limit of twice that keeps a hostile document from overflowing the stack.
cdef enum:
    DEEPEST = 200

# The size in bytes of a value of each fixed-size type; -1 for the other types.
cdef signed char _FIXED[256]
memset(_FIXED, -1, sizeof(_FIXED))
_FIXED[0x06] = _FIXED[0x0A] = _FIXED[0x7F] = _FIXED[0xFF] = 0  # undefined, null, max key, min key
_FIXED[0x08] = 1  # bool
_FIXED[0x10] = 4  # int32
_FIXED[0x01] = _FIXED[0x09] = _FIXED[0x11] = _FIXED[0x12] = 8  # double, date, timestamp, int64
_FIXED[0x07] = 12  # ObjectId
_FIXED[0x13] = 16  # decimal128


cdef inline Py_ssize_t _value_size(unsigned char kind, const unsigned char* at, Py_ssize_t left) except -1:
    """Return the size in bytes of the value at ``at``; ValueError if it exceeds the ``left`` bytes before its document ends."""
    cdef Py_ssize_t size = _FIXED[kind]
    if size < 0:
        size = _stated_size(kind, at, left)
    if size > left:
        raise ValueError("BSON value reaches beyond its document")
    return size


cdef inline Py_ssize_t _stated_size(unsigned char kind, const unsigned char* at, Py_ssize_t left) except -1:
    """Like ``_value_size``, for the types that have no fixed size; the result may exceed ``left``."""
    cdef Py_ssize_t size
    cdef const void* end
    if kind in (0x02, 0x0D, 0x0E, 0x05, 0x03, 0x04, 0x0F, 0x0C):
        if left < 4:
            raise ValueError("BSON ends inside a length")
        size = int32_at(at)
        if kind in (0x03, 0x04, 0x0F):  # document, array, code with scope: the length counts itself
            if size < 5:
                raise ValueError("BSON length is too small")
        elif size < 0 or (kind != 0x05 and size < 1):
            raise ValueError("BSON length is negative")
        else:
            # string, code, symbol: length; binary: length and subtype; DBPointer: a string and 12 bytes
            size += 4 + (1 if kind == 0x05 else 0) + (12 if kind == 0x0C else 0)
        return size
    if kind == 0x0B:  # regular expression: two C strings
        end = memchr(at, 0, left)
        if end != NULL:
            size = <const unsigned char*> end - at + 1
            end = memchr(at + size, 0, left - size)
        if end == NULL:
            raise ValueError("BSON ends inside a regular expression")
        return <const unsigned char*> end - at + 1
    raise ValueError(f"BSON type 0x{kind:02x} is unknown")


cdef int next_element(const unsigned char* document, Py_ssize_t size, Py_ssize_t* at, Element* element) except -1:
    """Read the element at ``at`` of a document (of ``size`` readable bytes) and move ``at`` behind it; return 0 at the end."""
    cdef const void* end
    if at[0] >= size - 1:
        if at[0] != size - 1 or document[size - 1] != 0:
            raise ValueError("BSON document does not end where its length says")
        return 0
    element.kind = document[at[0]]
    element.name = document + at[0] + 1
    end = memchr(element.name, 0, size - 1 - (at[0] + 1))
    if end == NULL:
        raise ValueError("BSON ends inside a field name")
    element.name_size = <const unsigned char*> end - element.name
    at[0] += element.name_size + 2
    element.value = document + at[0]
    element.size = _value_size(element.kind, element.value, size - 1 - at[0])
    at[0] += element.size
    return 1


cdef int find_element(const unsigned char* document, Py_ssize_t size, const char* name, Py_ssize_t name_size, Element* element) except -1:
    """Find the element called ``name``; return 0 if there is none."""
    cdef Py_ssize_t at = 4
    while next_element(document, size, &at, element):
        if element.name_size == name_size and memcmp(element.name, name, name_size) == 0:
            return 1
    return 0


cdef int check_whole(const unsigned char* document, Py_ssize_t room) except -1:
    """Raise ValueError unless the ``room`` bytes are exactly one document."""
    if room < 5 or int32_at(document) != room:
        raise ValueError(f"BSON document length does not match its {room} bytes")
    return 0


cdef double number_of(const Element* element) except? -1.0:
    """Return a number of any BSON type as a double; ValueError that names the field for anything else."""
    cdef double real
    cdef int64_t integer
    if element.kind == 0x01:
        memcpy(&real, element.value, 8)
        return real
    if element.kind == 0x10:
        return <double> int32_at(element.value)
    if element.kind == 0x12:
        memcpy(&integer, element.value, 8)
        return <double> integer
    if element.kind == 0x13:
        return float(Decimal128.from_bid(PyBytes_FromStringAndSize(<const char*> element.value, 16)).to_decimal())
    name = element.name[: element.name_size].decode("utf-8", "replace")
    raise ValueError(f"{name} is not a number (BSON type 0x{element.kind:02x})")


cdef enum:
    SHORT = 24  # the longest text that is cached, in bytes
    SLOTS = 1024

# Field names and short texts recur. Each slot keeps its last text, which then need not be created and hashed again. ASCII only:
# the bytes in memory of such a text are those on the wire. The GIL guards the slots.
cdef PyObject* _seen[SLOTS]


cdef inline size_t _slot(const unsigned char* at, Py_ssize_t size) noexcept:
    """Return the slot of a text of 1 byte or more: a mix of its length and its first and last eight bytes."""
    cdef uint64_t head = 0, tail = 0
    cdef uint32_t half
    if size >= 8:
        memcpy(&head, at, 8)
        memcpy(&tail, at + size - 8, 8)
    elif size >= 4:
        memcpy(&half, at, 4)
        head = half
        memcpy(&half, at + size - 4, 4)
        tail = half
    else:
        head = at[0] | <uint64_t> at[size >> 1] << 8 | <uint64_t> at[size - 1] << 16
    head = (head ^ <uint64_t> size) * <uint64_t> 0x9E3779B97F4A7C15
    return ((head ^ head >> 32 ^ tail) * <uint64_t> 0xD6E8FEB86659FD93) >> 54


cdef inline object _text(const unsigned char* at, Py_ssize_t size):
    cdef PyObject* cached
    cdef size_t slot
    if not 1 <= size <= SHORT:
        return PyUnicode_DecodeUTF8(<const char*> at, size, NULL)
    slot = _slot(at, size)
    cached = _seen[slot]
    if cached != NULL and PyUnicode_GET_LENGTH(<object> cached) == size and memcmp(PyUnicode_DATA(<object> cached), at, size) == 0:
        return <object> cached
    return _new_text(at, size, slot)


cdef object _new_text(const unsigned char* at, Py_ssize_t size, size_t slot):
    cdef PyObject* old
    text = PyUnicode_DecodeUTF8(<const char*> at, size, NULL)
    if PyUnicode_IS_ASCII(text):
        old = _seen[slot]
        Py_INCREF(text)
        _seen[slot] = <PyObject*> text
        Py_XDECREF(old)
    return text


cdef object _members(const unsigned char* document, Py_ssize_t size, bint is_list, int depth):
    cdef Element element
    cdef Py_ssize_t at = 4
    cdef dict members
    cdef list items
    if depth > DEEPEST:
        raise ValueError("BSON is nested too deeply")
    if size < 5 or int32_at(document) != size:
        raise ValueError("BSON document length does not match its element")
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
    """Return the Python value of an element: plain ints and floats, aware datetimes in UTC, Decimals; other types as in pymongo."""
    cdef double real
    cdef int64_t integer
    cdef unsigned char kind = element.kind
    if kind == 0x02:
        if element.value[element.size - 1] != 0:
            raise ValueError("BSON text does not end with NUL")
        return _text(element.value + 4, element.size - 5)
    if kind == 0x01:
        memcpy(&real, element.value, 8)
        return real
    if kind == 0x10:
        return int32_at(element.value)
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
        return date_of(integer)
    if kind == 0x07:
        return ObjectId(PyBytes_FromStringAndSize(<const char*> element.value, 12))
    if kind == 0x05 and element.value[4] == 0:
        return PyBytes_FromStringAndSize(<const char*> element.value + 5, element.size - 5)
    if kind == 0x13:
        return Decimal128.from_bid(PyBytes_FromStringAndSize(<const char*> element.value, 16)).to_decimal()
    return _rare_value(element, depth)


cdef object _rare_value(const Element* element, int depth):
    """Return a value of a type that is rare in bodies as pymongo's class. (pymongo's decoder reads past the end of malformed values.)"""
    cdef unsigned char kind = element.kind
    cdef const unsigned char* at = element.value
    cdef Py_ssize_t size = element.size, length
    if kind == 0x05:
        if at[4] == 2:  # the old form repeats its length
            if size < 9 or int32_at(at + 5) != size - 9:
                raise ValueError("BSON binary of subtype 2 has contradictory lengths")
            return Binary(PyBytes_FromStringAndSize(<const char*> at + 9, size - 9), 2)
        return Binary(PyBytes_FromStringAndSize(<const char*> at + 5, size - 5), at[4])
    if kind == 0x0B:
        length = <const unsigned char*> memchr(at, 0, size) - at
        return Regex(_text(at, length), _text(at + length + 1, size - length - 2))
    if kind == 0x11:
        return Timestamp(<unsigned int> int32_at(at + 4), <unsigned int> int32_at(at))
    if kind == 0x7F:
        return MaxKey()
    if kind == 0xFF:
        return MinKey()
    if kind == 0x0F:  # total length, text, document
        if size < 14 or not 1 <= int32_at(at + 4) <= size - 13:
            raise ValueError("BSON code with scope has contradictory lengths")
        length = int32_at(at + 4)
        if at[8 + length - 1] != 0:
            raise ValueError("BSON text does not end with NUL")
        return Code(_text(at + 8, length - 1), _members(at + 8 + length, size - 8 - length, False, depth + 1))
    length = int32_at(at)  # of a text, which is known to end inside the element
    if at[4 + length - 1] != 0:
        raise ValueError("BSON text does not end with NUL")
    text = _text(at + 4, length - 1)
    if kind == 0x0D:
        return Code(text)
    if kind == 0x0E:
        return text
    if kind == 0x0C:
        return DBRef(text, ObjectId(PyBytes_FromStringAndSize(<const char*> at + 4 + length, 12)))
    raise ValueError(f"BSON type 0x{kind:02x} is unknown")


def decode(raw not None) -> dict:
    """Decode one BSON document to a dict. Raises ValueError if the BSON is malformed."""
    cdef Py_buffer view
    PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
    try:
        check_whole(<const unsigned char*> view.buf, view.len)
        return _members(<const unsigned char*> view.buf, view.len, False, 0)
    finally:
        PyBuffer_Release(&view)


def split(raw not None) -> list:
    """Split a batch of whole documents; return each document as bytes. Raises ValueError if the last one is cut off."""
    cdef list documents = []
    cdef Py_ssize_t at = 0, size
    cdef Py_buffer view
    cdef const unsigned char* batch
    PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
    try:
        batch = <const unsigned char*> view.buf
        while at < view.len:
            size = document_size(batch + at, view.len - at)
            documents.append(PyBytes_FromStringAndSize(<const char*> batch + at, size))
            at += size
    finally:
        PyBuffer_Release(&view)
    return documents


cdef Py_ssize_t document_size(const unsigned char* at, Py_ssize_t left) except -1:
    if left < 5:
        raise ValueError("BSON ends inside a length")
    cdef Py_ssize_t size = int32_at(at)
    if size < 5 or size > left:
        raise ValueError("BSON document reaches beyond its batch")
    return size


@cython.final
cdef class RecordReader:
    """Decodes the documents of one collection: key fields, id, body, simulation time, soft deletion.

    A record is a ``record`` (tuple or a subclass of it) of (key, body, when, removed).

    The reader keeps no state between calls: another thread may run while a value is being created.
    """

    def __init__(self, tuple names not None, str body not None, record=tuple):
        cdef list field_names = [body.encode(), b"_id", b"when", b"removed", *(name.encode() for name in names)]
        cdef Py_ssize_t i
        cdef bytes name
        if len(names) > MOST_KEYS:
            raise ValueError(f"too many key fields: at most {MOST_KEYS}, got {len(names)}")
        if not (isinstance(record, type) and issubclass(record, tuple)):
            raise TypeError(f"record must be tuple or a subclass of it, got {record!r}")
        for i in range(len(field_names)):
            name = field_names[i]
            self.names[i].text = PyBytes_AS_STRING(name)
            self.names[i].size = PyBytes_GET_SIZE(name)
        self.kept, self.count, self.record = tuple(field_names), len(field_names), record

    cdef int scan(self, const unsigned char* document, Py_ssize_t size, Element* parts) except -1:
        """Note where the parts are; kind 0 for an absent one. Of several elements with one name the last one counts, as in a dict."""
        cdef Py_ssize_t at = 4
        cdef Py_ssize_t i
        cdef Element element
        if self.kept is None:
            raise TypeError("RecordReader.__init__ was not called")
        for i in range(KEYS + MOST_KEYS):
            parts[i].kind = 0
        while next_element(document, size, &at, &element):
            for i in range(self.count):
                if is_called(&element, self.names[i].text, self.names[i].size):
                    parts[i] = element
                    break
        return 0

    cdef bint matches(self, const Element* parts, tuple key) except -1:
        """Return whether the key fields equal ``key``."""
        cdef Py_ssize_t i, size
        cdef const char* text
        cdef const Element* part
        if len(key) != self.count - KEYS:
            raise ValueError(f"expected a key of {self.count - KEYS} fields, got {len(key)}")
        for i in range(len(key)):
            part = &parts[KEYS + i]
            if part.kind == 0x02 and isinstance(key[i], str):
                text = PyUnicode_AsUTF8AndSize(key[i], &size)
                if part.size != size + 5 or memcmp(part.value + 4, text, size) != 0:
                    return False
            elif part.kind == 0 or value_of(part, 0) != key[i]:
                return False
        return True

    cdef object make(self, object key, const Element* parts):
        """Create the record of a document; if ``key`` is None, its key is read from the key fields."""
        cdef double stamp
        cdef Py_ssize_t i
        if key is None:
            key = tuple([value_of(&parts[i], 0) if parts[i].kind else None for i in range(KEYS, self.count)])
        when = None
        if parts[WHEN].kind in (0x01, 0x10, 0x12, 0x13):  # no read depends on another value, which only another writer can leave there
            try:
                stamp = number_of(&parts[WHEN])
            except ValueError:  # a signalling NaN
                stamp = NAN
            if isfinite(stamp):
                when = int(stamp)
        removed = parts[REMOVED].kind == 0x08 and parts[REMOVED].value[0] == 1
        items = (key, value_of(&parts[BODY], 0) if parts[BODY].kind else None, when, removed)
        return items if self.record is tuple else tuple_of(self.record, (items,))

    cdef object match_at(self, const unsigned char* document, Py_ssize_t room, tuple key):
        """Like ``match``, for a document that must be exactly ``room`` bytes long."""
        cdef Element parts[KEYS + MOST_KEYS]
        check_whole(document, room)
        self.scan(document, room, parts)
        return self.make(key, parts) if self.matches(parts, key) else None

    cdef tuple open_at(self, const unsigned char* document, Py_ssize_t room):
        """Like ``open``, for a document that must be exactly ``room`` bytes long."""
        cdef Element parts[KEYS + MOST_KEYS]
        check_whole(document, room)
        self.scan(document, room, parts)
        return (identity_of(parts), self.make(None, parts))

    def match(self, raw not None, tuple key not None):
        """Return the record of a document, or None if its key fields do not equal ``key``."""
        cdef Py_buffer view
        PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
        try:
            return self.match_at(<const unsigned char*> view.buf, view.len, key)
        finally:
            PyBuffer_Release(&view)

    def open(self, raw not None) -> tuple:
        """Return (id as 12 bytes, or None if it is not an ObjectId; record) of a document. An absent key field reads as None."""
        cdef Py_buffer view
        PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
        try:
            return self.open_at(<const unsigned char*> view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def open_all(self, raw not None) -> list:
        """Return what ``open`` does for each document of a batch. Raises ValueError that names a document that cannot be read."""
        cdef list answer = []
        self.each(raw, None, None, answer)
        return answer

    def match_ids(self, raw not None, dict positions not None, keys not None, list records not None) -> int:
        """Put records of a batch into ``records``, each at the position of its key in ``keys``; return how many positions were filled.

        Takes a document if its id is in ``positions`` (id as 12 bytes -> position) and its key fields equal the key at that position.
        Raises ValueError that names a document that cannot be read.
        """
        if len(keys) != len(records):
            raise ValueError(f"keys and records must have the same length, got {len(keys)} and {len(records)}")
        return self.each(raw, positions, keys, records)

    cdef int each(self, object raw, dict positions, object keys, list into) except -1:
        cdef Element parts[KEYS + MOST_KEYS]
        cdef Py_buffer view
        cdef const unsigned char* at
        cdef Py_ssize_t left, size, position
        cdef int count = 0
        PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
        try:
            at = <const unsigned char*> view.buf
            left = view.len
            while left > 0:
                parts[IDENTITY].kind = 0
                size = document_size(at, left)
                self.scan(at, size, parts)
                identity = identity_of(parts)
                if positions is None:
                    into.append((identity, self.make(None, parts)))
                elif (slot := positions.get(identity)) is not None:
                    position = slot
                    if not 0 <= position < len(into):
                        raise IndexError(f"position {position} is out of range")
                    key = keys[position]
                    if key is not None and self.matches(parts, <tuple?> key) and position < len(into):
                        count += into[position] is None  # a batch may arrive twice: count each position once
                        into[position] = self.make(key, parts)
                at += size
                left -= size
        except ValueError as error:
            where = f"at byte {view.len - left} of a batch" if identity_of(parts) is None else f"_id {identity_of(parts).hex()}"
            raise ValueError(f"{where}: {error}") from None
        finally:
            PyBuffer_Release(&view)
        return count


cdef inline object identity_of(const Element* parts):
    if parts[IDENTITY].kind != 0x07:
        return None
    return PyBytes_FromStringAndSize(<const char*> parts[IDENTITY].value, 12)


cdef bint is_called(const Element* element, const char* name, Py_ssize_t size) noexcept:
    return element.name_size == size and memcmp(element.name, name, size) == 0
