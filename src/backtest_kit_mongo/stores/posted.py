"""Writes whose replies are read later: posted on a connection of the wire lane, so that the server works while the caller goes on."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from pymongo.errors import NetworkTimeout

from .._core.link import BrokenLink, LinkTimeout, Unusual
from .._core.op_msg import NOT_TAKEN, MongoLink
from .forks import renew_after_fork
from .lane import Lane

__all__ = ["Posted"]

R = TypeVar("R")

MOST = 64
"""Replies that may be due. Each is small, so that they fit into the socket while nobody reads them."""

# Links that a child has inherited; see lane.
_inherited: list[Any] = []


class Posted:
    """What is on its way. A write has a tag, and what ``again`` needs to do it another way should nobody know what became of it."""

    def __init__(self, again: Callable[[dict[Hashable, Any]], object]) -> None:
        self._again = again
        self._link: MongoLink | None = None
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Forget the connection of the parent; see ``forks``."""
        if self._link is not None:
            _inherited.append(self._link)
        self._lock = threading.RLock()
        self._lane: Lane | None = None
        self._link = None
        self._due: deque[Iterable[Hashable]] = deque()  # the tags whose writes end with each message, in order
        self._open: dict[Hashable, Any] = {}

    def post(self, lane: Lane, writes: Mapping[Hashable, Any], messages: Iterable[Sequence[bytes]]) -> bool:
        """Send the messages of some writes; False if they must be written another way, since not all could be sent."""
        with self._lock:
            if self._link is not None and self._lane is not lane:
                self._part()
            if self._link is None:
                self._lane, self._link = lane, lane.borrow()
            link = self._link
            if link is None:
                return False
            try:
                for message in messages:
                    while len(self._due) >= MOST:
                        self._take()
                    link.post(*message)
                    self._due.append(())
                self._due[-1] = writes
                self._open.update(writes)
            except BrokenLink:
                self._part()
                return False
            except BaseException:
                self._part()
                raise
            return True

    def ask(self, lane: Lane, tag: Hashable, method: Callable[..., R], *args: Any) -> R:
        """As ``lane.call``, behind the write of ``tag`` if that is on its way."""
        if tag in self._open:
            with self._lock:
                link = self._link
                if link is not None and self._lane is lane:
                    try:
                        link.post(*args)
                        while self._due:
                            self._take()
                        answer = method(link)
                    except (BrokenLink, Unusual) as error:
                        self._part()
                        if isinstance(error, LinkTimeout):
                            raise NetworkTimeout(str(error)) from None
                        return NOT_TAKEN  # type: ignore[no-any-return]
                    except BaseException:
                        self._part()
                        raise
                    self._release()
                    return answer
        return lane.call(_exchange, method, *args)

    def settle(self, tag: Hashable | None = None) -> None:
        """Return when the write of a tag, or all that is on its way, has been done."""
        if not self._open if tag is None else tag not in self._open:
            return
        with self._lock:
            try:
                while self._due and (tag is None or tag in self._open):
                    self._take()
            except (BrokenLink, Unusual):
                self._part()
            except BaseException:  # Ctrl-C in the middle of a reply
                self._part()
                raise
            if not self._due:
                self._release()

    def close(self) -> None:
        """Part with the connection, without waiting for a server that may be dead: it has the writes already."""
        with self._lock:
            self._open.clear()
            self._part()

    def _take(self) -> None:
        assert self._link is not None
        self._link.restart()
        self._link.success()
        for tag in self._due.popleft():
            self._open.pop(tag, None)

    def _release(self) -> None:
        link, self._link = self._link, None
        if link is not None and self._lane is not None:
            self._lane.give_back(link)

    def _part(self) -> None:
        """Close the connection, and do again what was on its way: what came behind a failure is as uncertain."""
        left, self._open = self._open, {}
        self._due.clear()
        link, self._link = self._link, None
        if link is not None and self._lane is not None:
            self._lane.leave(link, True)
        if left:
            self._again(left)


def _exchange(link: MongoLink, method: Callable[[MongoLink], R], *parts: bytes) -> R:
    link.post(*parts)
    return method(link)
