"""Number writes, so that a replica set executes each one once, however often it is sent (MongoDB's retryable writes).

If a connection breaks, the reply to a write can be lost with it, and the client does not know whether the write was executed. It must
send the write again; but if the write was executed and another client has written since, that later write must not be undone.
Each write therefore carries the id of a session and a transaction number that increases within it. A server that has already executed
that number returns the lost reply, and so does a new primary. pymongo numbers its own writes in the same way, but it cannot do so for
commands, and a write that was sent over the wire protocol must keep its number when pymongo sends it again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bson import Int64
from pymongo import MongoClient
from pymongo.client_session import ClientSession

__all__ = ["Sessions", "TransactionNumber"]

_FIRST = 1 << 40
"""The first transaction number. pymongo may return a session that it has already used for its own writes, numbered from 1. The server
rejects a lower number, and takes an equal number for the same write, which it then does not execute."""


class TransactionNumber(NamedTuple):
    """The transaction number of one write, and its session, which no other write uses at the same time."""

    session: ClientSession
    value: Int64

    @property
    def members(self) -> dict[str, Any]:
        """The fields that a command sent over the wire protocol needs. pymongo adds the session by itself."""
        return {"lsid": self.session.session_id, "txnNumber": self.value}


class Sessions:
    """The sessions of one client, each used by one write at a time. There are as many as there are concurrent writes."""

    def __init__(self, client: MongoClient[Any]) -> None:
        self._client = client
        self._idle: list[TransactionNumber] = []  # each session with the number that it used last

    def take(self) -> TransactionNumber:
        """Return a number that no write has carried yet. Give it back when the write has ended."""
        try:
            session, last = self._idle.pop()
        except IndexError:
            session, last = self._client.start_session(causal_consistency=False), Int64(_FIRST)
        return TransactionNumber(session, Int64(last + 1))

    def give_back(self, number: TransactionNumber) -> None:
        """Return a number to the pool: its write has succeeded or failed, and will not be sent again."""
        self._idle.append(number)

    def close(self) -> None:
        """End all sessions, so that the server forgets them as well."""
        while self._idle:
            self._idle.pop().session.end_session()
