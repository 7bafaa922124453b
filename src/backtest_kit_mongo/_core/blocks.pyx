"""A cache of closed candles in process memory, under a byte budget.

A cached candle needs no query for as long as ``lifetime`` says: a write never changes it, but another process may replace or remove it.
"""

cimport cython
from cpython.long cimport PyLong_CheckExact
from cpython.unicode cimport PyUnicode_CheckExact
from libc.string cimport memcpy

from backtest_kit_mongo._core.candles cimport dicts_of
from backtest_kit_mongo._core.wire_socket cimport now_ns

import threading

import numpy as np

cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1

cdef enum:
    ROW = 48
    # The memory of a block besides its candles: the array, its view, this object, its list entry and perhaps its series.
    OVERHEAD = 1024
    FOREVER = 0x7FFFFFFF  # seconds
    # Adjacent blocks merge up to this many candles (12 MiB): few windows then span two blocks, and adding a block copies little.
    MERGED = 1 << 18


@cython.final
cdef class _Run:
    """A block: candles of one series without a gap."""

    cdef tuple series
    cdef object candles  # a read-only array that owns its memory
    cdef const char[::1] bytes
    cdef long long step, first, end  # ms; ``end`` is the open time of the candle after the last one
    cdef long long expires  # when it must be read again (``now_ns``)
    cdef Py_ssize_t count
    cdef unsigned long long used

    def __init__(self, tuple series, long long step, long long expires, candles):
        candles.flags.writeable = False
        self.series, self.step, self.expires, self.candles = series, step, expires, candles
        self.bytes = candles.view(np.int8)
        self.count = self.bytes.shape[0] // ROW
        memcpy(&self.first, &self.bytes[0], 8)
        self.end = self.first + self.count * step

    cdef Py_ssize_t cost(self) noexcept:
        return self.count * ROW + OVERHEAD


@cython.final
cdef class CandleBlocks:
    """Blocks of closed candles by series (exchange name, symbol, interval), at most ``budget`` bytes; evicts the least recently used first.

    No candle is returned ``lifetime`` seconds after it was read, or later. Only existing candles are cached: a missing candle is looked up
    again each time. ``rows`` and ``array`` count each window that they return: ``counts`` holds the indexes in ``counters`` of the counts
    "reads" and "hits", and of the operation "read".
    Thread-safe: blocks are immutable, and one thread at a time adds or removes them.
    """

    cdef readonly Py_ssize_t budget, nbytes
    cdef readonly long long generation  # how often the cache was cleared
    cdef long long _lifetime  # ns
    cdef object _add_to, _observe, _reads, _hits, _read, _lock, __weakref__
    cdef dict _series  # series -> its blocks, ordered by time; they may touch but never overlap
    cdef unsigned long long _clock

    def __init__(self, Py_ssize_t budget, counters, tuple counts, double lifetime=FOREVER):
        self.budget = budget
        self._lifetime = <long long> (lifetime * 1e9)
        self._add_to, self._observe = counters.add, counters.observe
        self._reads, self._hits, self._read = counts
        self.renew()
        self.clear()

    def renew(self):
        """In a forked child: make a new lock, and clear the cache if another thread was changing it. See ``stores.fork_safety``."""
        cdef bint changing = self._lock is not None and self._lock.locked()
        self._lock = threading.Lock()
        if changing:
            self.clear()

    def clear(self):
        """Remove all candles."""
        with self._lock:
            self._series = {}
            self.nbytes = 0
            self.generation += 1

    cdef int _touch(self, _Run run) except -1:
        self._clock += 1
        run.used = self._clock
        return 0

    cdef int _count(self, long long started) except -1:
        """Count a window that was in the cache."""
        self._observe(self._read, now_ns() - started)
        self._add_to(self._reads)
        self._add_to(self._hits)
        return 0

    # --- reading ---

    cdef Py_ssize_t _find(self, list runs, long long since) except -2:
        """Return the position of the last block that begins at or before ``since``, or -1."""
        cdef Py_ssize_t low = 0, high = len(runs), middle
        while low < high:
            middle = (low + high) // 2
            if (<_Run> runs[middle]).first <= since:
                low = middle + 1
            else:
                high = middle
        return low - 1

    cdef _Run _run(self, tuple series, limit, since, long long now, Py_ssize_t* count, Py_ssize_t* first):
        """Return the block that holds a whole window at ``now``, or None; also None unless all arguments are exactly str and int."""
        cdef int overflow = 0
        cdef long long start
        cdef Py_ssize_t at
        cdef list runs
        cdef _Run run
        if len(series) != 3:
            return None
        if not (PyUnicode_CheckExact(series[0]) and PyUnicode_CheckExact(series[1]) and PyUnicode_CheckExact(series[2])):
            return None
        runs = self._series.get(series)
        if runs is None or not PyLong_CheckExact(limit) or not PyLong_CheckExact(since):
            return None
        start = PyLong_AsLongLongAndOverflow(since, &overflow)
        if overflow:
            return None
        at = self._find(runs, start)
        if at < 0:
            return None
        run = <_Run> runs[at]
        if start >= run.end or (start - run.first) % run.step != 0 or now >= run.expires:
            return None
        first[0] = (start - run.first) // run.step
        start = PyLong_AsLongLongAndOverflow(limit, &overflow)
        if overflow or start < 1 or start > run.count - first[0]:
            return None
        count[0] = start
        self._touch(run)
        return run

    def rows(self, tuple series not None, limit, since, until):
        """Return ``limit`` candles from ``since`` (ms) on as dicts; None unless one block holds them all, or if an argument is unusual."""
        cdef Py_ssize_t count, first
        cdef _Run run
        cdef list window
        cdef long long started = now_ns()
        run = self._run(series, limit, since, started, &count, &first)
        if run is None or not (until is None or PyLong_CheckExact(until)):
            return None
        window = dicts_of(&run.bytes[first * ROW], count)
        self._count(started)
        return window

    def array(self, tuple series not None, limit, since):
        """Return the same window as a read-only view of the block's memory."""
        cdef Py_ssize_t count, first
        cdef _Run run
        cdef long long started = now_ns()
        run = self._run(series, limit, since, started, &count, &first)
        if run is None:
            return None
        window = run.candles[first : first + count]
        self._count(started)
        return window

    def head(self, tuple series not None, Py_ssize_t limit, long long since):
        """Return the candles of a window before the first one that is not cached, from one or several blocks; None if there are none."""
        cdef list runs = self._series.get(series)
        cdef list parts = []
        cdef Py_ssize_t at, first
        cdef long long next = since, now = now_ns()
        cdef _Run run
        if runs is None:
            return None
        at = self._find(runs, since)
        while 0 <= at < len(runs) and limit > 0:
            run = <_Run> runs[at]
            if not run.first <= next < run.end or (next - run.first) % run.step != 0 or now >= run.expires:
                break
            self._touch(run)
            first = (next - run.first) // run.step
            parts.append(run.candles[first : min(run.count, first + limit)])
            limit -= run.count - first
            next = run.end
            at += 1
        if len(parts) < 2:
            return parts[0] if parts else None
        joined = np.concatenate(parts)
        joined.flags.writeable = False
        return joined

    # --- adding ---

    def keep(self, tuple series not None, long long step, candles not None, long long generation=-1, long long asked=0):
        """Add consecutive candles (CANDLE_DTYPE, ``step`` ms apart) that have closed and were read whole.

        An empty array, or one larger than the budget, is ignored. The array becomes read-only. A view of much less than the array that
        owns the memory is copied; otherwise the cache shares the memory with the caller. If ``generation`` is given, it is the one from
        before the candles were read: nothing is added if the cache was cleared meanwhile. ``asked`` is the time before they were read, on
        the clock of ``time.monotonic_ns()``, from which their lifetime counts; 0 means now.
        """
        cdef _Run run
        cdef long long expires
        if not len(candles) or candles.nbytes + OVERHEAD > self.budget:
            return
        owner = candles.base
        expires = (asked or now_ns()) + self._lifetime
        run = _Run(series, step, expires, candles if owner is None or 8 * candles.nbytes >= 7 * owner.nbytes else candles.copy())
        with self._lock:
            if generation in (-1, self.generation):
                self._insert(run)

    cdef int _insert(self, _Run run) except -1:
        """Add a block: merge it with its neighbours unless the result is too large, otherwise replace the candles that it overlaps.

        Neighbours that have expired are dropped.
        """
        cdef list near = [], rests = []
        cdef _Run other
        cdef long long now = now_ns()
        cdef long long first = run.first, end = run.end
        cdef Py_ssize_t count
        for other in self._near(run):
            if now >= other.expires:
                self._drop(other)
            else:
                near.append(other)
        for other in near:
            if other.first <= run.first and other.end >= run.end:
                return self._touch(other)
            first, end = min(first, other.first), max(end, other.end)
        count = (end - first) // run.step
        if count > run.count and count <= max(MERGED, run.count) and count * ROW + OVERHEAD <= self.budget:
            run = self._merged([*near, run], first, end)
        else:
            near = [other for other in near if other.first < run.end and other.end > run.first]
            for other in near:
                if other.first < run.first:
                    rests.append(_Run(run.series, run.step, other.expires, other.candles[: (run.first - other.first) // run.step].copy()))
                if other.end > run.end:
                    rests.append(_Run(run.series, run.step, other.expires, other.candles[(run.end - other.first) // run.step :].copy()))
        for other in near:
            self._drop(other)
        for other in rests:
            self._add(other)
        return self._add(run)

    cdef list _near(self, _Run run):
        """Return the blocks that overlap or touch ``run``."""
        cdef list runs = self._series.get(run.series, [])
        cdef _Run other
        return [other for other in runs[max(0, self._find(runs, run.first - 1)) : self._find(runs, run.end) + 1] if other.end >= run.first]

    cdef _Run _merged(self, list runs, long long first, long long end):
        """Merge blocks without gaps between them into one; where they overlap, the last one in ``runs`` wins.

        It expires with the oldest of them.
        """
        cdef _Run run = runs[0]
        cdef long long expires = run.expires
        joined = np.empty((end - first) // run.step, run.candles.dtype)
        cdef char[::1] target = joined.view(np.int8)
        for run in runs:
            memcpy(&target[(run.first - first) // run.step * ROW], &run.bytes[0], run.count * ROW)
            expires = min(expires, run.expires)
        return _Run(run.series, run.step, expires, joined)

    cdef int _add(self, _Run run) except -1:
        """Evict blocks until ``run`` fits into the budget, then add it."""
        cdef list runs
        cdef _Run other, oldest
        while self.nbytes + run.cost() > self.budget:
            oldest = None
            for runs in self._series.values():
                for other in runs:
                    if oldest is None or other.used < oldest.used:
                        oldest = other
            self._drop(oldest)
        runs = self._series.setdefault(run.series, [])
        runs.insert(self._find(runs, run.first) + 1, run)
        self.nbytes += run.cost()
        return self._touch(run)

    cdef int _drop(self, _Run run) except -1:
        cdef list runs = self._series[run.series]
        del runs[self._find(runs, run.first)]
        if not runs:
            del self._series[run.series]
        self.nbytes -= run.cost()
        return 0
