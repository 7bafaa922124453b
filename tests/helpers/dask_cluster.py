"""A Dask cluster on this machine."""

from __future__ import annotations

import pytest


def local_cluster():
    """Return a cluster of two processes with two threads each; skip the test without Dask."""
    distributed = pytest.importorskip("distributed")
    # Port 0: another test may have a cluster too, and all of them would want the port of the dashboard.
    return distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0", silence_logs=50)
