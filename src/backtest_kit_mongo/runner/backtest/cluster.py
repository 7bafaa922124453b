"""A Dask cluster as an executor: many runs on several machines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from ...candles import library
from ...errors import ServerUnavailableError

__all__ = ["cluster_executor"]


@contextmanager
def cluster_executor(address: str, timeout: float = 15.0) -> Iterator[Executor]:
    """Connect to a Dask scheduler, and use its cluster as the ``executor`` of ``sweep``.

    The workers are processes with this library installed. They need the strategy file under the same path. They use the settings
    of this process, which travel through the scheduler, passwords included: the addresses of both servers must be valid on every
    machine. A worker process does one run at a time; start one for each core.

    Args:
        address: the address of the scheduler, such as ``tcp://10.0.0.5:8786``
        timeout: how long to wait for it, in seconds

    Yields:
        the executor, until the end of the ``with`` block

    Raises:
        ServerUnavailableError: no scheduler answers in time
        MissingDependencyError: Dask is not installed

    Examples:
        >>> from backtest_kit_mongo.runner import cluster_executor, sweep
        >>> def on_the_cluster(address):
        ...     with cluster_executor(address) as executor:
        ...         return sweep("strategy.py", {"FAST": [6, 12]}, executor=executor)
    """
    distributed = library("distributed", "cluster")
    try:
        client = distributed.Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ServerUnavailableError(
            f"no Dask scheduler answers at {address}: {error}",
            hint="start one with `dask scheduler`, and its workers with `dask worker ADDRESS`",
        ) from error
    with client:
        executor: Executor = client.get_executor(pure=False)
        yield executor
