"""A bounded table of ids in C: what a process remembers of ``key -> _id``, in 27 to 54 bytes an entry."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject_Hash
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

import os

cdef enum:
    FEWEST_SLOTS = 16

# Keeps a caller who may choose the keys from choosing where they stand.
cdef uint64_t _SECRET = int.from_bytes(os.urandom(8), "little")


cdef uint64_t hash_of(object key) except 0:
    """A 64-bit keyed hash of a tuple, never 0. This may run Python code (``__hash__``), and so comes before any look at the slots."""
    if not isinstance(key, tuple):
        raise TypeError(f"a key must be a tuple, got {type(key).__name__}")
    # The finalizer of splitmix64: every bit of the hash sways every bit of the slot.
    cdef uint64_t mixed = (<uint64_t> PyObject_Hash(key)) ^ _SECRET
    mixed = (mixed ^ (mixed >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9ULL
    mixed = (mixed ^ (mixed >> 27)) * <uint64_t> 0x94D049BB133111EBULL
    mixed ^= mixed >> 31
    return mixed or 1


@cython.final
cdef class IdTable:
    """At most ``limit`` ids (12 bytes each) by key; at the limit a new key takes the place of another. 0 keeps nothing.

    Keys are not kept, only 64 bits of hash: two keys may, once in 2**64, share an entry, and one then gets the id of the other.
    Whoever asks must verify the document behind an id, as every hit is verified anyway; a collision costs time, never truth.

    Safe under threads: nothing but C runs between the first look at the slots and the last.
    """

    # Open addressing with linear probing; the slots are a power of two, at most three quarters of them taken, doubled as needed.

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
        """The memory of the table, all in."""
        return type(self).__basicsize__ + self.size * sizeof(Slot)

    def __sizeof__(self) -> int:
        return self.nbytes

    cdef inline Py_ssize_t seek(self, uint64_t hash) noexcept:
        """Where a hash stands, or the empty slot where it would. There must be slots; one of four is empty."""
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
        """Double the slots, in place: the old and the new ones never stand side by side in memory."""
        cdef Py_ssize_t old = self.size, size = 2 * old if old else FEWEST_SLOTS, first = 0, n, i
        cdef Slot moved
        cdef Slot* slots = <Slot*> PyMem_Realloc(self.slots, size * sizeof(Slot))
        if slots == NULL:
            raise MemoryError
        memset(slots + old, 0, (size - old) * sizeof(Slot))
        self.slots = slots
        self.size = size
        # In the order of the probes, from behind a gap on: each entry then moves back, or up by ``old`` and back, over slots that
        # are settled already, and leaves no hole before one that is.
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
        """Empty a slot, and close the gap for those that probed over it."""
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
        """Make room for a new hash where it belongs, and nowhere else: so no part of the table fills up or runs dry.

        The hash is random, and so is who goes. Returns the empty slot.
        """
        cdef Py_ssize_t mask = self.size - 1
        cdef Py_ssize_t home = <Py_ssize_t> (hash & <uint64_t> mask), i = home
        while self.slots[i].hash == 0:
            i = (i + 1) & mask
        self.remove(i)
        return self.seek(hash)

    def get(self, key) -> bytes | None:
        """The id, or None."""
        return self.look_up(hash_of(key))

    def get_many(self, keys) -> list:
        """The id, or None, of each key."""
        return [self.look_up(hash_of(key)) for key in keys]

    def put(self, key, bytes id not None) -> None:
        """Remember an id. Raises MemoryError, and keeps what there was, if the table cannot grow."""
        cdef uint64_t hash
        cdef Py_ssize_t i
        if PyBytes_GET_SIZE(id) != ID_SIZE:
            raise ValueError(f"an id has {ID_SIZE} bytes, got {PyBytes_GET_SIZE(id)}")
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
        """Forget an id, if there is one."""
        cdef uint64_t hash = hash_of(key)
        cdef Py_ssize_t i
        if self.count == 0:
            return
        i = self.seek(hash)
        if self.slots[i].hash != 0:
            self.remove(i)

    def clear(self) -> None:
        """Forget all ids and give their memory back."""
        PyMem_Free(self.slots)
        self.slots = NULL
        self.size = self.count = 0
