"""The public names match the table they are generated from."""

from __future__ import annotations

import importlib.util
import inspect

import pytest
from paths import ROOT

import backtest_kit_mongo as kit
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS

pytestmark = pytest.mark.once


def test_the_generated_classes_are_those_of_the_table():
    """``make generate`` updates them after a change of the table."""
    spec = importlib.util.spec_from_file_location("generate_contracts", ROOT / "tools" / "generate_contracts.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    sources = generator.sources()
    assert len(sources) == 2 * len(DOMAINS) + 7
    for path, source in sources.items():
        assert path.read_text() == source, path


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_every_method_is_documented_and_has_real_parameters(domain):
    adapter = adapter_of(domain)
    for call in domain.calls:
        method = getattr(adapter, call.name)
        assert method.__doc__
        assert [name for name in inspect.signature(method).parameters if name not in ("type", "limit") or name in call.arguments] == list(
            call.arguments
        )


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_redis_key_holds_the_same_fields_as_the_unique_index(domain):
    assert sorted(domain.key) == sorted(domain.cache)


def test_public_names_are_complete():
    for domain in DOMAINS:
        for kind in ("Adapter", "Instance"):
            assert f"Persist{domain.capitalize()}{kind}" in kit.__all__
    assert all(hasattr(kit, name) for name in kit.__all__)
