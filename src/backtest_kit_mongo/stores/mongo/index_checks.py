"""When the indexes of a domain were last checked: before its first write, and again from time to time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from ..._core.upsert_writer import UpsertWriter
from ...domains import Domain
from .database import MongoDatabase
from .indexes import ensure_indexes

__all__ = ["CHECKED", "SEEN", "IndexChecks"]

SEEN = 1.0
"""Seconds after which they are checked again if a document was inserted: a missing unique index would let in duplicates."""

CHECKED = 30.0
"""Seconds after which the indexes are checked again: a database may be dropped or restored while a process runs."""


class IndexChecks:
    """Creates the indexes of each domain before they are needed."""

    def __init__(self, connection: MongoDatabase) -> None:
        self._connection = connection
        self._checked: dict[str, float] = {}  # time.monotonic
        self.upserts: Mapping[str, UpsertWriter] = {}
        """The fast writers, which write without a check for as long as they are told."""

    def ensure(self, domain: Domain, *, seen_within: float | None = None) -> None:
        """Create the indexes of a domain, unless they were checked within the last ``seen_within`` seconds (``CHECKED`` if None).

        Two threads may do this at the same time, which costs less than letting one wait for the timeout of the other.
        """
        if time.monotonic() - self._checked.get(domain.name, -math.inf) > (CHECKED if seen_within is None else seen_within):
            self._connection.retried(domain, lambda: ensure_indexes(self._connection.collection(domain), domain))
            self._note(domain, time.monotonic(), CHECKED)

    def ensure_just_now(self, domain: Domain) -> None:
        """Create the indexes of a domain, unless they were checked within the last ``SEEN`` seconds."""
        self.ensure(domain, seen_within=SEEN)

    def look_again(self, domain: Domain) -> None:
        """A record was inserted: make the next write check the indexes first, unless they were checked within the last second."""
        if time.monotonic() - self._checked.get(domain.name, 0.0) > SEEN:
            self._note(domain, -math.inf, 0)

    def _note(self, domain: Domain, when: float, seconds: float) -> None:
        """Note that the indexes were checked at ``when`` (time.monotonic) and need no check for the next ``seconds``."""
        self._checked[domain.name] = when
        if domain.name in self.upserts:
            self.upserts[domain.name].trust_indexes(seconds)
