# The base of the sockets of MongoDB (op_msg.pyx) and Redis (resp.pyx).

from libc.stdint cimport int64_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len

cdef int64_t now_ns() noexcept
cdef int64_t today_ms() noexcept

cdef class WireSocket:
    cdef readonly object owner
    cdef int fd, timeout_ms
    cdef int64_t until  # when the timeout ends, on the clock of now_ns
    cdef bint whole  # whether the timeout is for a whole exchange, not for each read
    cdef unsigned char* buffer
    cdef Py_ssize_t capacity, filled
    cdef object tls  # the ssl.SSLSocket that encrypts, or None
    cdef readonly int64_t used  # when it was last given back, by time.monotonic_ns()

    cdef int reserve(self, Py_ssize_t size) except -1
    cdef int begin(self) except -1
    cdef int left(self) noexcept
    cdef int take(self, ssize_t got) except -1
    cdef int send_encrypted(self, iovec* pieces, int count) except -1
    cdef ssize_t receive_encrypted(self, int turn) except -3
    cdef int send(self, iovec* pieces, int count) except -1
    cdef Py_ssize_t receive(self, Py_ssize_t needed) except -1
    cdef int look_up(self) except -1
