"""Candles as packed rows of 48 bytes (an int64 timestamp in ms, five float64 values): from BSON, from dicts, and to dicts."""

from cpython.dict cimport PyDict_Copy, PyDict_GetItemWithError, PyDict_SetItem
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.math cimport isfinite
from libc.string cimport memcmp, memcpy

from backtest_kit_mongo._core.bson cimport Element, document_size, find_element, is_called, next_element, number_of

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

cdef enum:
    FIELDS = 6
    ROW = 48
    # The stretches of a document between its fixed-size values; a candle has 12. A document with more is parsed in full each time.
    STRETCHES = 24

# A double cannot hold every integer beyond this, and the TypeScript package stores times as doubles.
cdef long long _TIME_LIMIT = 1LL << 53

_FIELDS = ("timestamp", "open", "high", "low", "close", "volume")
cdef const char* _NAMES[FIELDS]
_NAMES[0] = b"timestamp"
_NAMES[1] = b"open"
_NAMES[2] = b"high"
_NAMES[3] = b"low"
_NAMES[4] = b"close"
_NAMES[5] = b"volume"
cdef Py_ssize_t[FIELDS] _NAME_SIZES = [9, 4, 4, 3, 5, 6]
cdef dict _EMPTY_ROW = dict.fromkeys(_FIELDS)
cdef str _TIMESTAMP = _FIELDS[0], _OPEN = _FIELDS[1], _HIGH = _FIELDS[2], _LOW = _FIELDS[3], _CLOSE = _FIELDS[4], _VOLUME = _FIELDS[5]


# --- from BSON ---

cdef struct Layout:
    # A document that was parsed. Another document of the same size that equals it in all stretches between the fixed-size values
    # has the same kinds, names and lengths at the same offsets, so it need not be parsed.
    const unsigned char* document
    Py_ssize_t size
    int stretches
    Py_ssize_t[STRETCHES] start
    Py_ssize_t[STRETCHES] length
    Element[FIELDS] fields


cdef bint _is_like(const Layout* layout, const unsigned char* document, Py_ssize_t size) noexcept:
    cdef int i
    if layout.stretches == 0 or layout.size != size:
        return False
    for i in range(layout.stretches):
        if memcmp(document + layout.start[i], layout.document + layout.start[i], layout.length[i]) != 0:
            return False
    return True


cdef int _walk(Layout* layout, const unsigned char* document, Py_ssize_t size) except -1:
    """Find the six fields of a document, and note its layout. Of several elements with one name the last one counts."""
    cdef Element element
    cdef Py_ssize_t at = 4, start = 4
    cdef int field, stretches = 0
    layout.stretches = 0
    for field in range(FIELDS):
        layout.fields[field].kind = 0
        layout.fields[field].value = layout.fields[field].name = document
    while next_element(document, size, &at, &element):
        for field in range(FIELDS):
            if is_called(&element, _NAMES[field], _NAME_SIZES[field]):
                layout.fields[field] = element
                break
        if element.kind in (0x01, 0x07, 0x09, 0x10, 0x12) and stretches < STRETCHES:
            layout.start[stretches] = start
            layout.length[stretches] = at - element.size - start
            stretches += 1
            start = at
    layout.document, layout.size = document, size
    if stretches < STRETCHES:
        layout.start[stretches], layout.length[stretches] = start, size - start
        layout.stretches = stretches + 1
    return 0


cdef Py_ssize_t _slot(
    Layout* layout, const unsigned char* document, Py_ssize_t size, long long since, long long step, double* values
) except -2:
    """Return the grid slot of a candle and put its six fields into ``values``; return -1, without its prices, if it is off the grid."""
    cdef Py_ssize_t distance
    cdef int field
    cdef long long timestamp
    cdef unsigned long long offset  # the difference of two int64 values may need all 64 bits
    if _is_like(layout, document, size):
        distance = document - layout.document
        layout.document = document
        for field in range(FIELDS):
            layout.fields[field].value += distance
            layout.fields[field].name += distance
    else:
        _walk(layout, document, size)
    if layout.fields[0].kind == 0:
        raise ValueError("timestamp is missing")
    values[0] = number_of(&layout.fields[0])
    if not isfinite(values[0]) or values[0] > 9e15 or values[0] < -9e15:
        return -1
    timestamp = <long long> values[0]
    if <double> timestamp != values[0] or timestamp < since:
        return -1
    offset = <unsigned long long> timestamp - <unsigned long long> since
    if offset % <unsigned long long> step != 0:
        return -1
    for field in range(1, FIELDS):
        if layout.fields[field].kind == 0x01:
            memcpy(&values[field], layout.fields[field].value, 8)
            continue
        if layout.fields[field].kind == 0:
            raise ValueError(f"the candle at {timestamp} has no {_NAMES[field].decode()}")
        try:
            values[field] = number_of(&layout.fields[field])
        except ValueError as error:
            raise ValueError(f"the candle at {timestamp}: {error}") from None
    offset //= <unsigned long long> step
    return <Py_ssize_t> min(offset, <unsigned long long> 0x7FFFFFFFFFFFFFFF)


def decode_candles(
    list batches not None, char[::1] target, long long since, long long step, Py_ssize_t limit, Py_ssize_t filled=0
) -> int:
    """Decode candle documents into the grid since, since + step, ... (``limit`` slots, ms); return how many slots are filled.

    ``batches`` hold whole BSON documents end to end, ordered by timestamp without duplicates. ``target`` is the memory of
    ``limit`` packed rows. Its first ``filled`` rows are filled already, so that you can decode a window in several calls.
    Documents off the grid are skipped. Decoding stops at the first gap, and when the window is full. Raises ValueError if the
    BSON is malformed, or if a field of a candle is absent or not a number.
    """
    cdef double values[FIELDS]
    cdef const unsigned char[::1] batch
    cdef Py_ssize_t at, size, slot
    cdef long long timestamp
    cdef Layout layout
    cdef object raw
    if step <= 0 or limit < 0 or not 0 <= filled <= limit or target.shape[0] % ROW != 0 or target.shape[0] // ROW != limit:
        raise ValueError("target does not hold limit rows of 48 bytes")
    for raw in batches:
        batch = raw
        at = 0
        layout.stretches = 0  # its document belongs to another batch
        while at < batch.shape[0]:
            if filled == limit:
                return filled
            size = document_size(&batch[at], batch.shape[0] - at)
            slot = _slot(&layout, &batch[at], size, since, step, values)
            at += size
            if slot < filled or slot >= limit:
                continue
            if slot != filled:
                return filled  # a gap: no later candle can complete the window
            timestamp = since + slot * step
            memcpy(&target[slot * ROW], &timestamp, 8)
            memcpy(&target[slot * ROW + 8], &values[1], 40)
            filled += 1
    return filled


def numbers(list batches not None, str name not None) -> list:
    """Return the number called ``name`` of each document as a float, skipping documents without one; ``batches`` as in decode_candles."""
    cdef bytes field = name.encode()
    cdef const unsigned char[::1] batch
    cdef Element element
    cdef Py_ssize_t at, size
    cdef list values = []
    cdef object raw
    for raw in batches:
        batch = raw
        at = 0
        while at < batch.shape[0]:
            size = document_size(&batch[at], batch.shape[0] - at)
            if find_element(&batch[at], size, field, len(field), &element):
                if element.kind in (0x01, 0x10, 0x12, 0x13):
                    values.append(number_of(&element))
            at += size
    return values


# --- to dicts ---

cdef list dicts_of(const char* rows, Py_ssize_t count):
    """Return one dict per packed row. Each is a copy of a template that has all keys, so that only values are set."""
    cdef list candles = PyList_New(count)
    cdef Py_ssize_t i
    cdef long long timestamp
    cdef double[FIELDS - 1] prices
    cdef dict row
    for i in range(count):
        memcpy(&timestamp, rows, 8)
        memcpy(prices, rows + 8, 40)
        rows += ROW
        row = PyDict_Copy(_EMPTY_ROW)
        PyDict_SetItem(row, _TIMESTAMP, timestamp)
        PyDict_SetItem(row, _OPEN, prices[0])
        PyDict_SetItem(row, _HIGH, prices[1])
        PyDict_SetItem(row, _LOW, prices[2])
        PyDict_SetItem(row, _CLOSE, prices[3])
        PyDict_SetItem(row, _VOLUME, prices[4])
        Py_INCREF(row)
        PyList_SET_ITEM(candles, i, row)
    return candles


def to_dicts(const char[::1] rows not None) -> list:
    """Return one dict per packed row, in order."""
    if rows.shape[0] % ROW != 0:
        raise ValueError(f"expected packed rows of 48 bytes, got {rows.shape[0]} bytes")
    return dicts_of(&rows[0], rows.shape[0] // ROW) if rows.shape[0] else []


# --- from dicts ---

cdef bint _number(object value, double* number) except -1:
    """Put a float, or an int that a double holds exactly, into ``number``; return 0 for anything else."""
    cdef int overflow = 0
    cdef long long whole
    if PyFloat_CheckExact(value):
        number[0] = PyFloat_AS_DOUBLE(value)
        return 1
    if PyLong_CheckExact(value):
        whole = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0 and -_TIME_LIMIT <= whole <= _TIME_LIMIT:
            number[0] = <double> whole
            return 1
    return 0


cdef bint _plain_row(object row, char* target) except -1:
    """Pack a plain dict of ints and floats; return 0 for any other row. (A borrowed value is used before the next lookup.)"""
    cdef double[FIELDS] values
    cdef PyObject* value
    cdef long long timestamp
    cdef int field
    cdef tuple names = _FIELDS
    if type(row) is not dict:
        return 0
    for field in range(FIELDS):
        value = PyDict_GetItemWithError(row, names[field])
        if value == NULL or (field == 0 and not PyLong_CheckExact(<object> value)) or not _number(<object> value, &values[field]):
            return 0
    timestamp = <long long> values[0]
    memcpy(target, &timestamp, 8)
    memcpy(target + 8, &values[1], 40)
    return 1


def pack_rows(tuple rows not None, char[::1] target not None, unusual) -> None:
    """Pack candles into ``target``. If a row is not a plain dict of ints and floats, ``unusual(index, row)`` returns its six values."""
    cdef Py_ssize_t index, count = len(rows)
    cdef long long timestamp
    cdef double[FIELDS - 1] prices
    if target.shape[0] % ROW != 0 or target.shape[0] // ROW != count:
        raise ValueError("target does not hold a row of 48 bytes for each candle")
    for index in range(count):
        if not _plain_row(rows[index], &target[index * ROW]):
            timestamp, prices[0], prices[1], prices[2], prices[3], prices[4] = unusual(index, rows[index])
            memcpy(&target[index * ROW], &timestamp, 8)
            memcpy(&target[index * ROW + 8], prices, 40)


def are_sound(const char[::1] rows not None, long long step) -> bool:
    """Return whether all packed rows have finite prices, and timestamps on the grid of ``step`` ms that a double holds exactly."""
    cdef Py_ssize_t at
    cdef int field
    cdef long long timestamp
    cdef double[FIELDS - 1] prices
    if rows.shape[0] % ROW != 0 or step <= 0:
        raise ValueError(f"expected packed rows of 48 bytes and a grid of 1 ms or more, got {rows.shape[0]} bytes and {step} ms")
    for at in range(0, rows.shape[0], ROW):
        memcpy(&timestamp, &rows[at], 8)
        memcpy(prices, &rows[at + 8], 40)
        if timestamp > _TIME_LIMIT or timestamp < -_TIME_LIMIT or timestamp % step != 0:
            return False
        for field in range(FIELDS - 1):
            if not isfinite(prices[field]):
                return False
    return True
