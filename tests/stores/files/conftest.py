"""Fixtures of the tests of files: a folder, a store in it, and what it logs."""

from __future__ import annotations

import pytest
from file_helpers import Lines

import backtest_kit_mongo as kit
from backtest_kit_mongo.stores.files.store import FileStore


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "dump"


@pytest.fixture
def store(folder):
    return FileStore(folder)


@pytest.fixture
def warnings():
    lines = Lines()
    kit.set_logger(lines)
    yield lines
    kit.set_logger(None)
