"""The straight path of a hit: from a key whose id this process knows to its record, with one exchange and no Python in between."""

cimport cython
from libc.stdint cimport int64_t

from pymongo.errors import PyMongoError

from backtest_kit_mongo._core.bson cimport RecordReader
from backtest_kit_mongo._core.counters cimport Counters
from backtest_kit_mongo._core.ids cimport IdTable, hash_of
from backtest_kit_mongo._core.wire cimport MongoLinks, now_ns

from backtest_kit_mongo._core.keys import check_fields
from backtest_kit_mongo._core.wire import NOT_TAKEN


@cython.final
cdef class Hits:
    """Reads of one domain. Called with a key: (body, when, removed), or None where the long way must be gone.

    The long way is gone for everything but a plain hit: an illegal key, an id that is not known, that leads nowhere or elsewhere, a
    connection that cannot be used, a document that cannot be read. It does its own counting, and says what is wrong.
    """

    cdef IdTable ids
    cdef RecordReader reader
    cdef Counters counters
    cdef tuple names, kinds
    cdef int reads, hits, errors, operation
    cdef object translated
    cdef MongoLinks links
    cdef bytes head, tail

    def __init__(self, IdTable ids not None, RecordReader reader not None, Counters counters not None, tuple names, tuple kinds,
                 tuple counts not None, translated):
        """``counts``: under which numbers to count reads, hits and errors, and the latency; ``translated``: our error for a driver's."""
        self.ids = ids
        self.reader = reader
        self.counters = counters
        self.names, self.kinds = names, kinds
        self.reads, self.hits, self.errors, self.operation = counts
        self.translated = translated

    def connect(self, MongoLinks links, bytes head, bytes tail):
        """Read over ``links``, with a find that has the id between ``head`` and ``tail``; None: no more."""
        self.links = links
        self.head, self.tail = head, tail

    def __call__(self, tuple key not None):
        """(body, when, removed), or None."""
        cdef int64_t started = now_ns()
        cdef bytes value
        if self.links is None:
            return None
        try:
            check_fields(key, self.names, self.kinds)
            value = self.ids.look_up(hash_of(key))
            if value is None:
                return None
            answer = self.links.match(self.head, value, self.tail, self.reader, key)
        except (TypeError, ValueError):
            return None
        except PyMongoError as error:  # the configured time has passed: to try again would double it
            self.counters.add(self.errors)
            raise self.translated(error) from error
        if answer is None or answer is NOT_TAKEN:
            return None
        self.counters.add(self.reads)
        self.counters.add(self.hits)
        self.counters.observe(self.operation, now_ns() - started)
        return answer
