"""Tell whether a BSON document holds only values that JSON has, so that writing plain values as JSON costs no search in Python."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport isfinite
from libc.string cimport memcpy

from backtest_kit_mongo._core.bson cimport Element, int32_at, next_element

cdef enum:
    DEEPEST = 200  # as in bson.pyx


cdef bint _is_plain(const unsigned char* document, Py_ssize_t size, int depth) except -1:
    cdef Element element
    cdef Py_ssize_t at = 4
    cdef double real
    if depth > DEEPEST:
        raise ValueError("BSON is nested too deeply")
    while next_element(document, size, &at, &element):
        if element.kind == 0x03 or element.kind == 0x04:  # their size is the length that they state themselves
            if not _is_plain(element.value, element.size, depth + 1):
                return False
        elif element.kind == 0x01:
            memcpy(&real, element.value, 8)
            if not isfinite(real):
                return False
        elif element.kind not in (0x02, 0x08, 0x0A, 0x10, 0x12):  # text, bool, null, int32, int64
            return False
    return True


def is_plain(raw not None) -> bool:
    """Return whether each value is an object, a list, text, a bool, null, an integer or a finite double. Raises ValueError for bad BSON."""
    cdef Py_buffer view
    PyObject_GetBuffer(raw, &view, PyBUF_SIMPLE)
    try:
        if view.len < 5 or int32_at(<const unsigned char*> view.buf) != view.len:
            raise ValueError(f"BSON document length does not match its {view.len} bytes")
        return _is_plain(<const unsigned char*> view.buf, view.len, 0)
    finally:
        PyBuffer_Release(&view)
