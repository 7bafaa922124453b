"""The methods of the default registry as functions. Most programs need only one registry."""

from __future__ import annotations

from .registry import Registry

__all__ = [
    "close", "default_registry", "discard_versions", "get_config", "get_mongo", "get_redis", "install", "reset_stats", "set_config",
    "setup", "stats", "wait_for_init",
]  # fmt: skip

default_registry = Registry()

setup = default_registry.setup
set_config = default_registry.set_config
install = default_registry.install
get_config = default_registry.get_config
get_mongo = default_registry.get_mongo
get_redis = default_registry.get_redis
wait_for_init = default_registry.wait_for_init
close = default_registry.close
discard_versions = default_registry.discard_versions
stats = default_registry.stats
reset_stats = default_registry.reset_stats
