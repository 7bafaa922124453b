"""What importing the package loads, and that all its names are still available."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import backtest_kit_mongo as kit

pytestmark = pytest.mark.once

HEAVY = ("numpy", "pymongo", "bson", "redis", "msgspec", "asyncio", "ssl", "importlib.metadata", "typer", "rich")


def in_a_fresh_process(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_import_loads_nothing_heavy():
    shown = in_a_fresh_process("import sys; before = set(sys.modules); import backtest_kit_mongo; print(*set(sys.modules) - before)")
    loaded = set(shown.split())
    assert loaded.isdisjoint(HEAVY)
    assert {name for name in loaded if name.startswith("backtest_kit_mongo.")} == {
        "backtest_kit_mongo.errors",
        "backtest_kit_mongo.contract_names",
    }


@pytest.mark.parametrize("name", [*kit.__all__, "__version__"])
def test_every_name_is_listed_and_there(name):
    assert name in dir(kit)
    assert getattr(kit, name) is getattr(kit, name)
    assert name in vars(kit)  # found without __getattr__ from now on


def test_a_star_import_gives_all_names():
    assert in_a_fresh_process("from backtest_kit_mongo import *; print(setup.__name__, PersistSignalAdapter, ConfigError.__name__)")


def test_a_name_alone_loads_what_it_needs():
    """A single name does not load the stores or the drivers."""
    assert in_a_fresh_process("import sys; from backtest_kit_mongo import set_logger; print('pymongo' in sys.modules)") == "False\n"
    assert version("backtest-kit-mongo") == kit.__version__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'backtest_kit_mongo' has no attribute 'setpu'") as caught:
        _ = kit.setpu
    assert (caught.value.name, caught.value.obj) == ("setpu", kit)  # the interpreter derives "Did you mean" from these


def test_modules_are_attributes_as_before():
    in_a_fresh_process("import backtest_kit_mongo as kit; kit.candles.interval_ms('1m'); kit.config.Config; kit.payloads.Candle")
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        kit.nothing  # noqa: B018


def test_the_module_of_replica_sets_has_moved():
    from backtest_kit_mongo import servers

    with pytest.warns(DeprecationWarning, match="import ReplicaSet from backtest_kit_mongo.servers"):
        from backtest_kit_mongo.replica_set import ReplicaSet
    assert ReplicaSet is servers.ReplicaSet
