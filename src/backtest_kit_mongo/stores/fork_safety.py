"""What must not be shared with a forked child (sockets, locks another thread may hold) is made anew there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["renew_after_fork"]


class Renewable(Protocol):
    """An object that can start afresh in a child."""

    def renew(self) -> None:
        """Drop what came with the fork, without touching what the parent still uses."""


_objects: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Call ``thing.renew()`` in every forked child, for as long as ``thing`` lives."""
    _objects.add(thing)


def _renew_all() -> None:
    for thing in list(_objects):
        thing.renew()


os.register_at_fork(after_in_child=_renew_all)
