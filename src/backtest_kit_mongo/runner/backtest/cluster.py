"""A cluster of Dask as an executor: many runs on more machines than this one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from ...candles import library
from ...errors import ServerUnavailableError

__all__ = ["cluster_executor"]


@contextmanager
def cluster_executor(address: str, timeout: float = 15.0) -> Iterator[Executor]:
    """The cluster whose scheduler is at ``address`` (``tcp://host:8786``), as the ``executor`` of ``sweep``.

        with cluster_executor("tcp://10.0.0.5:8786") as executor:
            sweep("strategy.py", {"FAST": [6, 12]}, executor=executor)

    Its workers are processes with this library installed. They need the strategy file under the same path, and use the settings
    of this process, which travel through the scheduler with their passwords: the addresses of both servers must be such that
    they are right on every machine. A worker process does one run at a time; start one for each core. ServerUnavailableError
    where no scheduler answers within ``timeout`` seconds, MissingDependencyError without Dask.
    """
    distributed = library("distributed", "cluster")
    try:
        client = distributed.Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ServerUnavailableError(
            f"no Dask scheduler answers at {address}: {error}", hint="`dask scheduler` starts one, `dask worker ADDRESS` its workers"
        ) from error
    with client:
        executor: Executor = client.get_executor(pure=False)
        yield executor
