"""Every domain on one kind of store: what the contract suites run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS


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
    kit.close()
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()
    kit.reset_stats()
