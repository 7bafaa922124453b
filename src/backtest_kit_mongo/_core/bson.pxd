# Declarations for the modules of the core that read documents.

from libc.stdint cimport int32_t
from libc.string cimport memcpy


cdef inline int32_t int32_at(const unsigned char* at) noexcept:
    cdef int32_t value
    memcpy(&value, at, 4)
    return value


cdef struct Element:
    unsigned char kind
    const unsigned char* name
    Py_ssize_t name_size
    const unsigned char* value
    Py_ssize_t size

cdef int next_element(const unsigned char* document, Py_ssize_t size, Py_ssize_t* at, Element* element) except -1
cdef int find_element(const unsigned char* document, Py_ssize_t size, const char* name, Py_ssize_t name_size, Element* element) except -1
cdef double number_of(const Element* element) except? -1.0
cdef Py_ssize_t document_size(const unsigned char* at, Py_ssize_t left) except -1
cdef bint is_called(const Element* element, const char* name, Py_ssize_t size) noexcept


cdef enum:  # the parts of a record's document; if two parts have the same name, the element belongs to the first
    BODY
    IDENTITY
    WHEN
    REMOVED
    KEYS
    MOST_KEYS = 8

cdef struct Name:
    const char* text
    Py_ssize_t size

cdef class RecordReader:
    cdef Name names[KEYS + MOST_KEYS]
    cdef tuple kept  # the bytes that ``names`` point into
    cdef Py_ssize_t count
    cdef object record

    cdef int scan(self, const unsigned char* document, Py_ssize_t size, Element* parts) except -1
    cdef bint matches(self, const Element* parts, tuple key) except -1
    cdef object make(self, object key, const Element* parts)
    cdef object match_at(self, const unsigned char* document, Py_ssize_t room, tuple key)
    cdef tuple open_at(self, const unsigned char* document, Py_ssize_t room)
    cdef int each(self, object raw, dict positions, object keys, list into) except -1
