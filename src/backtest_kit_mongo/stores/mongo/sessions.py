"""Numbers for writes, under which a replica set does a write once however often it is sent (MongoDB's retryable writes).

A reply can be lost with its connection, and nobody knows then whether the write was done. It must be sent again, or it may be lost;
and if it was done and another client has written since, that must not be undone. Each write therefore carries the id of a session
and a number that rises within it: a server that has done that number gives the reply that was lost, and so does one that became
primary after it. pymongo numbers its own writes in the same way, but for commands it cannot, and a write that went out over the wire
lane must keep its number when pymongo sends it again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bson import Int64
from pymongo import MongoClient
from pymongo.client_session import ClientSession

__all__ = ["Sessions", "TransactionNumber"]

_FIRST = 1 << 40
"""Where numbers begin. pymongo hands out sessions that it has used for writes of its own, which it counts from 1: a number that is lower
than one of those is refused, and an equal one taken for the same write, which is not done then."""


class TransactionNumber(NamedTuple):
    """The number of one write in a session that nothing else uses meanwhile."""

    session: ClientSession
    value: Int64

    @property
    def members(self) -> dict[str, Any]:
        """What a command carries that is sent past pymongo; pymongo itself adds the session."""
        return {"lsid": self.session.session_id, "txnNumber": self.value}


class Sessions:
    """The sessions of one client, each for one write at a time; there are as many as writes are under way at once."""

    def __init__(self, client: MongoClient[Any]) -> None:
        self._client = client
        self._idle: list[TransactionNumber] = []  # with the numbers that they used last

    def take(self) -> TransactionNumber:
        """A number that no write has carried yet, to be given back when its write has ended."""
        try:
            session, last = self._idle.pop()
        except IndexError:
            session, last = self._client.start_session(causal_consistency=False), Int64(_FIRST)
        return TransactionNumber(session, Int64(last + 1))

    def give_back(self, number: TransactionNumber) -> None:
        """The write has ended, well or not, and is not sent again."""
        self._idle.append(number)

    def close(self) -> None:
        """End all sessions, so that the server forgets them as well."""
        while self._idle:
            self._idle.pop().session.end_session()
