"""A bounded table of ids in C: the ``key -> _id`` that a process caches, in 27 to 54 bytes per entry."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject_Hash
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

import os

cdef enum:
    FEWEST_SLOTS = 16

# Keeps a caller who can choose keys from choosing their slots.
cdef uint64_t _SECRET = int.from_bytes(os.urandom(8), "little")


cdef uint64_t hash_of(object key) except 0:
    """Return a 64-bit keyed hash of a tuple, never 0. It may run Python code (``__hash__``): call it before you access the slots."""
    if not isinstance(key, tuple):
        raise TypeError(f"a key must be a tuple, got {type(key).__name__}")
    # The finalizer of splitmix64: every bit of the hash affects every bit of the slot number.
    cdef uint64_t mixed = (<uint64_t> PyObject_Hash(key)) ^ _SECRET
    mixed = (mixed ^ (mixed >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9ULL
    mixed = (mixed ^ (mixed >> 27)) * <uint64_t> 0x94D049BB133111EBULL
    mixed ^= mixed >> 31
    return mixed or 1


@cython.final
cdef class IdTable:
    """At most ``limit`` ids (12 bytes each) by key. At the limit a new key replaces another; a limit of 0 stores nothing.

    The table stores 64-bit hashes, not keys. Two keys share an entry with a chance of 1 in 2**64, and one then gets the id of the
    other. So verify the document of an id, as every hit is verified anyway: a collision costs time, never correctness.

    Thread-safe: only C code runs between the first and the last access to the slots.
    """

    # Open addressing with linear probing. The number of slots is a power of two; it doubles when three quarters are in use.

    def __cinit__(self, Py_ssize_t limit):
        if limit < 0:
            raise ValueError(f"limit must be 0 or more, got {limit}")
        self.limit = limit

    def __dealloc__(self):
        PyMem_Free(self.slots)

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """The memory of the table in bytes, with the object itself."""
        return type(self).__basicsize__ + self.size * sizeof(Slot)

    def __sizeof__(self) -> int:
        return self.nbytes

    cdef inline Py_ssize_t seek(self, uint64_t hash) noexcept:
        """Return the slot of a hash, or the empty slot where it belongs. There must be slots; one of four is empty."""
        cdef Py_ssize_t mask = self.size - 1
        cdef Py_ssize_t i = <Py_ssize_t> (hash & <uint64_t> mask)
        while self.slots[i].hash != hash and self.slots[i].hash != 0:
            i = (i + 1) & mask
        return i

    cdef bytes look_up(self, uint64_t hash):
        cdef Py_ssize_t i
        if self.count == 0:
            return None
        i = self.seek(hash)
        return None if self.slots[i].hash == 0 else PyBytes_FromStringAndSize(self.slots[i].id, ID_SIZE)

    cdef int grow(self) except -1:
        """Double the slots in place, so that memory never holds an old and a new table at once."""
        cdef Py_ssize_t old = self.size, size = 2 * old if old else FEWEST_SLOTS, first = 0, n, i
        cdef Slot moved
        cdef Slot* slots = <Slot*> PyMem_Realloc(self.slots, size * sizeof(Slot))
        if slots == NULL:
            raise MemoryError
        memset(slots + old, 0, (size - old) * sizeof(Slot))
        self.slots = slots
        self.size = size
        # Move entries in probe order, starting behind an empty slot. Each then moves back, or up by ``old`` and back, over slots
        # that are final already, and leaves no hole in front of a final one.
        while first < old and slots[first].hash != 0:
            first += 1
        for n in range(old):
            i = (first + n) & (old - 1)
            if slots[i].hash != 0:
                moved = slots[i]
                slots[i].hash = 0
                slots[self.seek(moved.hash)] = moved
        return 0

    cdef void remove(self, Py_ssize_t hole) noexcept:
        """Empty a slot, and close the gap for entries whose probes passed it."""
        cdef Py_ssize_t mask = self.size - 1, i = hole, home
        while True:
            i = (i + 1) & mask
            if self.slots[i].hash == 0:
                break
            home = <Py_ssize_t> (self.slots[i].hash & <uint64_t> mask)
            if ((i - home) & mask) >= ((i - hole) & mask):
                self.slots[hole] = self.slots[i]
                hole = i
        self.slots[hole].hash = 0
        self.count -= 1

    cdef Py_ssize_t evict(self, uint64_t hash) noexcept:
        """Evict the first entry at or behind the home slot of a new hash; return the empty slot for the hash.

        Evicting there keeps any part of the table from filling up or running empty. The hash is random, and so is the evicted entry.
        """
        cdef Py_ssize_t mask = self.size - 1
        cdef Py_ssize_t home = <Py_ssize_t> (hash & <uint64_t> mask), i = home
        while self.slots[i].hash == 0:
            i = (i + 1) & mask
        self.remove(i)
        return self.seek(hash)

    def get(self, key) -> bytes | None:
        """Return the id of a key, or None."""
        return self.look_up(hash_of(key))

    def get_many(self, keys) -> list:
        """Return the id of each key, or None."""
        return [self.look_up(hash_of(key)) for key in keys]

    def put(self, key, bytes id not None) -> None:
        """Store the id of a key. Raises MemoryError if the table cannot grow; its entries stay."""
        cdef uint64_t hash
        cdef Py_ssize_t i
        if PyBytes_GET_SIZE(id) != ID_SIZE:
            raise ValueError(f"an id must have {ID_SIZE} bytes, got {PyBytes_GET_SIZE(id)}")
        hash = hash_of(key)
        if self.limit == 0:
            return
        if self.size == 0:
            self.grow()
        i = self.seek(hash)
        if self.slots[i].hash == 0:
            if self.count >= self.limit:
                i = self.evict(hash)
            elif self.count >= self.size - self.size // 4:
                self.grow()
                i = self.seek(hash)
            self.count += 1
            self.slots[i].hash = hash
        memcpy(self.slots[i].id, PyBytes_AS_STRING(id), ID_SIZE)

    def drop(self, key) -> None:
        """Remove the id of a key, if there is one."""
        cdef uint64_t hash = hash_of(key)
        cdef Py_ssize_t i
        if self.count == 0:
            return
        i = self.seek(hash)
        if self.slots[i].hash != 0:
            self.remove(i)

    def clear(self) -> None:
        """Remove all ids and free their memory."""
        PyMem_Free(self.slots)
        self.slots = NULL
        self.size = self.count = 0
