# Declarations for the fast path of a write (upsert_writer.pyx).

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t

cdef struct Step:  # of the path to the value being written; on the stack, so that a path costs nothing until an error needs it
    PyObject* name
    Py_ssize_t index  # of a list member, which has no name; -1 if there is a name
    Step* above

cdef class Writer:
    cdef char* data
    cdef Py_ssize_t size, capacity
    cdef Step* step  # NULL at the outermost document
    cdef object fallback
    cdef int pending  # nested calls of the fallback: their results are being written

    cdef int reserve(self, Py_ssize_t more) except -1
    cdef int put(self, const void* source, Py_ssize_t size) except -1
    cdef int put_byte(self, unsigned char value) except -1
    cdef int put_int32(self, int32_t value) except -1
    cdef int put_int64(self, int64_t value) except -1
    cdef int put_double(self, double value) except -1
    cdef str where(self)
    cdef int refuse_depth(self) except -1
    cdef int put_name(self, object name) except -1
    cdef int put_index(self, Py_ssize_t index) except -1
    cdef int put_string(self, object value) except -1
    cdef int put_date(self, object value) except -1
    cdef int put_members(self, object value, int depth) except -1
    cdef Py_ssize_t begin(self) except -1
    cdef int end(self, Py_ssize_t start) except -1
    cdef int put_element(self, object name, Py_ssize_t index, object value, int depth) except -1
    cdef int put_value(self, object value, int depth) except -1
    cdef int put_other(self, object value, int depth) except -1
