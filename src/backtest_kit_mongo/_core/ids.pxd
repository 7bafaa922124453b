# Declarations for the fast paths (hit_reader.pyx, upsert_writer.pyx).

from libc.stdint cimport uint64_t

cdef enum:
    ID_SIZE = 12

# 20 bytes without padding. Hash and id are adjacent, so that a hit touches one cache line of the CPU.
cdef packed struct Slot:
    uint64_t hash  # 0: the slot is empty
    char id[ID_SIZE]

cdef uint64_t hash_of(object key) except 0

cdef class IdTable:
    cdef Slot* slots
    cdef Py_ssize_t size, count, limit

    cdef inline Py_ssize_t seek(self, uint64_t hash) noexcept
    cdef bytes look_up(self, uint64_t hash)
    cdef int grow(self) except -1
    cdef void remove(self, Py_ssize_t hole) noexcept
    cdef Py_ssize_t evict(self, uint64_t hash) noexcept
