"""Counters and latency histograms in C. A call costs about 50 ns, and under the GIL threads lose no count.

They only grow: the difference of two copies shows what happened between them. Any number of observers can each measure their own
span of time.
"""

cimport cython
from libc.string cimport memcpy, memset


@cython.final
cdef class Counters:
    """The counters of one domain: ``COUNTS`` plain counts, and a histogram of durations for each operation."""

    def __cinit__(self):
        memset(self.counts, 0, sizeof(self.counts))
        memset(self.buckets, 0, sizeof(self.buckets))

    def copy(self) -> Counters:
        """Return a copy of all counts and histograms, taken at one instant."""
        cdef Counters result = Counters.__new__(Counters)
        memcpy(result.counts, self.counts, sizeof(self.counts))
        memcpy(result.buckets, self.buckets, sizeof(self.buckets))
        return result

    def since(self, Counters earlier not None) -> Counters:
        """Return what was counted since ``earlier``, a copy of these counters."""
        cdef Counters result = self.copy()
        cdef int i, operation
        for i in range(COUNTS):
            result.counts[i] -= earlier.counts[i]
        for operation in range(OPERATIONS):
            for i in range(POWERS * STEPS):
                result.buckets[operation][i] -= earlier.buckets[operation][i]
        return result

    cpdef int add(self, int which, long long n=1) except -1:
        """Add ``n`` to a count."""
        if not 0 <= which < COUNTS:
            raise IndexError(which)
        self.counts[which] += n

    def count(self, int which) -> int:
        """Return a count."""
        if not 0 <= which < COUNTS:
            raise IndexError(which)
        return self.counts[which]

    cpdef int observe(self, int operation, long long nanoseconds) except -1:
        """Add one duration to the histogram of an operation."""
        cdef int power = 0
        cdef unsigned long long value = <unsigned long long> nanoseconds if nanoseconds > 0 else 0
        cdef unsigned long long scaled = value
        if not 0 <= operation < OPERATIONS:
            raise IndexError(operation)
        while scaled >= 2 * STEPS:
            scaled >>= 1
            power += 1
        # Below 16 ns a step is 1 ns; from there on ``scaled`` is 16 to 31 in each power of two.
        cdef int index = power * STEPS + <int> scaled
        if index >= POWERS * STEPS:
            index = POWERS * STEPS - 1
        self.buckets[operation][index] += 1

    def observed(self, int operation) -> int:
        """Return how many durations of an operation were observed."""
        cdef long long total = 0
        cdef int i
        if not 0 <= operation < OPERATIONS:
            raise IndexError(operation)
        for i in range(POWERS * STEPS):
            total += self.buckets[operation][i]
        return total

    def percentile(self, int operation, double percent) -> float | None:
        """Return the ns that ``percent`` of the observed durations do not exceed (upper edge of the bucket); None without durations."""
        cdef long long total = self.observed(operation), seen = 0
        cdef int i, power
        if total == 0:
            return None
        cdef double rank = percent * total / 100.0  # in this order, so that 7 percent of 100 is exactly 7
        for i in range(POWERS * STEPS):
            seen += self.buckets[operation][i]
            if seen > 0 and seen >= rank:
                break
        if i < 2 * STEPS:
            return float(i)
        power = i // STEPS - 1
        return float(((<unsigned long long> (i - power * STEPS) + 1) << power) - 1)
