"""Where client and servers run. In a virtual machine a round trip takes 40 or 110 us, depending on the core that the server wakes on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

__all__ = ["on_cores"]


def threads(pid: int) -> list[int]:
    """Return the current threads of a process; later ones inherit the cores of the thread that creates them."""
    return [int(name) for name in os.listdir(f"/proc/{pid}/task")]


def pin(pid: int, cores: Iterable[int]) -> dict[int, set[int]]:
    """Bind every thread of a process to ``cores``; return the previous cores of each."""
    before: dict[int, set[int]] = {}
    seen: list[int] = []
    while (current := threads(pid)) != seen:  # a thread may be created by one that is not bound yet
        seen = current
        for thread in current:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                before.setdefault(thread, os.sched_getaffinity(thread))
                os.sched_setaffinity(thread, cores)
    return before


@contextlib.contextmanager
def on_cores(name: str, servers: Iterable[int]) -> Iterator[str]:
    """Bind this process and the ``servers`` (process ids): ``same`` is one core for all, ``apart`` is one for each side.

    Yields the placement in words; afterwards all threads may run where they did before.
    """
    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[0]
    client_core = server_core if name == "same" else cores[min(1, len(cores) - 1)]
    words = f"client on core {client_core}, servers on core {server_core}"
    if name == "apart" and client_core == server_core:
        words += " (there is no other)"
    before = {pid: pin(pid, {server_core}) for pid in servers}
    before[os.getpid()] = pin(os.getpid(), {client_core})
    try:
        yield words
    finally:
        for pid, bound in before.items():
            for thread in threads(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(thread, bound.get(thread, cores))
