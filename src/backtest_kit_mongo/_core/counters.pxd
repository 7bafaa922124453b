# Declarations for the modules of the core that count.

cdef enum:
    OPERATIONS = 8
    COUNTS = 16
    # Histograms are log-linear: 16 steps for each power of two, from 1 ns to 2**40 ns (18 minutes). The error of a percentile
    # is at most 1/16. (The layout of HdrHistogram, hdrhistogram.org.)
    STEPS = 16
    POWERS = 37

cdef class Counters:
    cdef long long counts[COUNTS]
    cdef long long buckets[OPERATIONS][POWERS * STEPS]

    cpdef int add(self, int which, long long n=*) except -1
    cpdef int observe(self, int operation, long long nanoseconds) except -1
