# Declarations for the fast paths (hit_reader.pyx, upsert_writer.pyx).

from libc.stdint cimport int32_t, int64_t

from backtest_kit_mongo._core.bson cimport Element, RecordReader
from backtest_kit_mongo._core.counters cimport Counters
from backtest_kit_mongo._core.wire_socket cimport WireSocket, iovec

cdef class MongoSocket(WireSocket):
    cdef readonly Py_ssize_t size
    cdef readonly object pool_generation
    cdef readonly int64_t generation
    cdef readonly object server
    cdef object description  # of the server, at the last check
    cdef Py_ssize_t total
    cdef int32_t request  # the id of the last message sent
    cdef int32_t expected  # the id of the message that the next reply answers

    cpdef bint serves(self) except -1
    cdef const unsigned char* document(self) noexcept
    cdef int send_message(self, iovec* body, int count) except -1
    cdef int receive_message(self) except -1
    cdef int find(self, const char* name, Element* element) except -1
    cdef int succeeded(self) except -1
    cdef int batch(self, Element* batch, int64_t* cursor) except -1
    cdef tuple upserted_by(self, const char* message, Py_ssize_t size)
    cdef int one(self, bytes head, bytes middle, bytes tail, Element* document) except -1

cdef class MongoSocketPool:
    cdef public list idle
    cdef public bint usable, closed

    cpdef object borrow(self)
    cpdef object give_back(self, MongoSocket mongo_socket)
    cdef object failed(self, MongoSocket mongo_socket, object error)
    cdef object not_taken_from(self, MongoSocket mongo_socket)
    cdef object upsert(self, const char* message, Py_ssize_t size)
    cpdef object match(self, bytes head, bytes value, bytes tail, RecordReader reader, tuple key, Counters counters, int which)
