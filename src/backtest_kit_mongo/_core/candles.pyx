"""Candle documents as columns on a time grid."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.math cimport isfinite
from libc.string cimport memcpy

from backtest_kit_mongo._core.bson cimport Element, document_size, find_element, is_called, next_element, number_of

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
    cdef Element element
    cdef Element[FIELDS] found
    cdef Py_ssize_t at = 4
    cdef int field
    cdef long long timestamp
    cdef unsigned long long offset  # the distance of two int64 may need all 64 bits
    for field in range(FIELDS):
        found[field].kind = 0
    while next_element(document, size, &at, &element):
        for field in range(FIELDS):
            if is_called(&element, _NAMES[field], _NAME_SIZES[field]):
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
            size = document_size(&batch[at], batch.shape[0] - at)
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
            size = document_size(&batch[at], batch.shape[0] - at)
            if find_element(&batch[at], size, PyBytes_AS_STRING(wanted), PyBytes_GET_SIZE(wanted), &element):
                if element.kind in (0x01, 0x10, 0x12, 0x13):
                    found.append(number_of(&element))
            at += size
    return found
