"""Every domain on one kind of store: what the contract suites run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.domains import DOMAINS
from backtest_kit_mongo.testing.library import reset


@contextmanager
def serving(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve every domain from one kind of store, new and empty."""
    if kind == "mongo":
        request.getfixturevalue("mongo")
        yield kind
        return
    kit.close()
    kit.setup(stores=dict.fromkeys(DOMAINS, kind), CC_DUMP_DIR=request.getfixturevalue("tmp_path") / "dump")
    yield kind
    reset()
