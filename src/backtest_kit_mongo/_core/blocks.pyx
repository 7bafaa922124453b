"""Closed candles in process memory, under a byte budget. They never change, so what is here needs no look at the database."""

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
    # What a run costs besides its candles: the array, its view, this object, its place in a list and perhaps its series.
    OVERHEAD = 1024
    # Neighbours grow together up to so many candles (12 MiB), so that a window seldom lies over two runs, and the copy that a
    # newcomer costs stays small.
    MERGED = 1 << 18


@cython.final
cdef class _Run:
    """Candles of one series without a hole."""

    cdef tuple series
    cdef object candles  # a read-only array, which owns its memory
    cdef const char[::1] bytes
    cdef long long step, first, end  # ms; ``end`` is the open time of the candle behind the last one
    cdef Py_ssize_t count
    cdef unsigned long long used

    def __init__(self, tuple series, long long step, candles):
        candles.flags.writeable = False
        self.series, self.step, self.candles = series, step, candles
        self.bytes = candles.view(np.int8)
        self.count = self.bytes.shape[0] // ROW
        memcpy(&self.first, &self.bytes[0], 8)
        self.end = self.first + self.count * step

    cdef Py_ssize_t cost(self) noexcept:
        return self.count * ROW + OVERHEAD


@cython.final
cdef class CandleBlocks:
    """Runs of closed candles by series (exchange name, symbol, interval), at most ``budget`` bytes; the least recently used go first.

    Only what is there is ever kept: a candle that is missing is looked for again each time. A window that ``rows`` or ``array``
    give is counted: ``counts`` are the numbers of the counts "reads" and "hits", and of the operation "read". Safe under threads:
    runs are immutable, changes are made by one thread at a time.
    """

    cdef readonly Py_ssize_t budget, nbytes
    cdef object _add_to, _observe, _reads, _hits, _read, _lock, __weakref__
    cdef dict _series  # series -> its runs, by time; they may touch but never overlap
    cdef unsigned long long _clock

    def __init__(self, Py_ssize_t budget, counters, tuple counts):
        self.budget = budget
        self._add_to, self._observe = counters.add, counters.observe
        self._reads, self._hits, self._read = counts
        self.renew()
        self.clear()

    def renew(self):
        """Start with a free lock in a forked child; what another thread was changing at the fork is forgotten. See ``stores.forks``."""
        cdef bint changing = self._lock is not None and self._lock.locked()
        self._lock = threading.Lock()
        if changing:
            self.clear()

    def clear(self):
        """Forget all candles."""
        with self._lock:
            self._series = {}
            self.nbytes = 0

    cdef int _touch(self, _Run run) except -1:
        self._clock += 1
        run.used = self._clock
        return 0

    cdef int _count(self, long long started) except -1:
        """One more window that was here."""
        self._observe(self._read, now_ns() - started)
        self._add_to(self._reads)
        self._add_to(self._hits)
        return 0

    # --- reading ---

    cdef Py_ssize_t _find(self, list runs, long long since) except -2:
        """The position of the last run that begins at or before ``since``; -1 if there is none."""
        cdef Py_ssize_t low = 0, high = len(runs), middle
        while low < high:
            middle = (low + high) // 2
            if (<_Run> runs[middle]).first <= since:
                low = middle + 1
            else:
                high = middle
        return low - 1

    cdef _Run _run(self, tuple series, limit, since, Py_ssize_t* count, Py_ssize_t* first):
        """The run in which a window lies as a whole, or None; also for arguments of any but the plainest types."""
        cdef int overflow = 0
        cdef long long start
        cdef Py_ssize_t at
        cdef list runs
        cdef _Run run
        if len(series) != 3 or not (PyUnicode_CheckExact(series[0]) and PyUnicode_CheckExact(series[1]) and PyUnicode_CheckExact(series[2])):
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
        if start >= run.end or (start - run.first) % run.step != 0:
            return None
        first[0] = (start - run.first) // run.step
        start = PyLong_AsLongLongAndOverflow(limit, &overflow)
        if overflow or start < 1 or start > run.count - first[0]:
            return None
        count[0] = start
        self._touch(run)
        return run

    def rows(self, tuple series not None, limit, since, until):
        """The ``limit`` candles from ``since`` (ms) on as dicts, or None if they are not all here in one run (or if in doubt)."""
        cdef Py_ssize_t count, first
        cdef _Run run
        cdef list found
        cdef long long started = now_ns()
        run = self._run(series, limit, since, &count, &first)
        if run is None or not (until is None or PyLong_CheckExact(until)):
            return None
        found = dicts_of(&run.bytes[first * ROW], count)
        self._count(started)
        return found

    def array(self, tuple series not None, limit, since):
        """The same as a read-only view of the memory."""
        cdef Py_ssize_t count, first
        cdef _Run run
        cdef long long started = now_ns()
        run = self._run(series, limit, since, &count, &first)
        if run is None:
            return None
        found = run.candles[first : first + count]
        self._count(started)
        return found

    def head(self, tuple series not None, Py_ssize_t limit, long long since):
        """The first candles of a window, as many as are here without a hole, from as many runs as it takes; None if not even the first."""
        cdef list runs = self._series.get(series)
        cdef list parts = []
        cdef Py_ssize_t at, first
        cdef long long next = since
        cdef _Run run
        if runs is None:
            return None
        at = self._find(runs, since)
        while 0 <= at < len(runs) and limit > 0:
            run = <_Run> runs[at]
            if not run.first <= next < run.end or (next - run.first) % run.step != 0:
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

    # --- keeping ---

    def keep(self, tuple series not None, long long step, candles not None):
        """Keep candles (CANDLE_DTYPE, at least one) that follow each other at ``step`` ms, have closed and were read whole.

        The array becomes read-only; if it shares memory with another one it is copied, else whoever holds it sees the same memory.
        """
        cdef _Run run
        if not len(candles) or candles.nbytes + OVERHEAD > self.budget:
            return
        run = _Run(series, step, candles if candles.base is None else candles.copy())
        with self._lock:
            self._insert(run)

    cdef int _insert(self, _Run run) except -1:
        """Put a run between its neighbours: in one with them where that is not too large, else in place of what it overlaps."""
        cdef list near = self._near(run), rests = []
        cdef _Run other
        cdef long long first = run.first, end = run.end
        cdef Py_ssize_t count
        for other in near:
            if other.first <= run.first and other.end >= run.end:
                return self._touch(other)
            first, end = min(first, other.first), max(end, other.end)
        count = (end - first) // run.step
        if near and count <= max(MERGED, run.count) and count * ROW + OVERHEAD <= self.budget:
            run = self._merged([*near, run], first, end)
        else:
            near = [other for other in near if other.first < run.end and other.end > run.first]
            for other in near:
                if other.first < run.first:
                    rests.append(_Run(run.series, run.step, other.candles[: (run.first - other.first) // run.step].copy()))
                if other.end > run.end:
                    rests.append(_Run(run.series, run.step, other.candles[(run.end - other.first) // run.step :].copy()))
        for other in near:
            self._drop(other)
        for other in rests:
            self._add(other)
        return self._add(run)

    cdef list _near(self, _Run run):
        """The runs that overlap a run or touch it."""
        cdef list runs = self._series.get(run.series, [])
        cdef _Run other
        return [other for other in runs[max(0, self._find(runs, run.first - 1)) : self._find(runs, run.end) + 1] if other.end >= run.first]

    cdef _Run _merged(self, list runs, long long first, long long end):
        """One run of several that leave no hole between them; what the last of them has comes first."""
        cdef _Run run = runs[0]
        joined = np.empty((end - first) // run.step, run.candles.dtype)
        cdef char[::1] target = joined.view(np.int8)
        for run in runs:
            memcpy(&target[(run.first - first) // run.step * ROW], &run.bytes[0], run.count * ROW)
        return _Run(run.series, run.step, joined)

    cdef int _add(self, _Run run) except -1:
        """Make room, then take a run in."""
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
