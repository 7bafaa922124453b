"""Rebuild locks and sockets in a forked child: sockets belong to the parent, and another thread of it may have held a lock."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["renew_after_fork"]


class Renewable(Protocol):
    """An object that can rebuild its locks and sockets in a forked child."""

    def renew(self) -> None:
        """Replace everything inherited through the fork, without touching what the parent still uses."""


_objects: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Call ``thing.renew()`` in every forked child, as long as ``thing`` is alive. It holds only a weak reference."""
    _objects.add(thing)


def _renew_all() -> None:
    for thing in list(_objects):
        thing.renew()


os.register_at_fork(after_in_child=_renew_all)
