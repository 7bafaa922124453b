# Declarations for the fast paths (hit_reader.pyx, upsert_writer.pyx).

from libc.stdint cimport int64_t

from backtest_kit_mongo._core.wire_socket cimport WireSocket

cdef class RedisSocket(WireSocket):
    cdef Py_ssize_t at
    cdef int pending
    cdef readonly object posted_error

    cpdef object call(self, bytes command)
    cdef Py_ssize_t line(self) except -1
    cdef int more(self, Py_ssize_t size) except -1
    cdef int64_t number(self, Py_ssize_t length) except? -1
    cdef object reply(self, int depth)
