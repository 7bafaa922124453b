"""The methods of the default registry as functions. Most programs need only one registry."""

from __future__ import annotations

from typing import Final

from .registry import Registry

__all__ = [
    "close", "default_registry", "discard_versions", "get_config", "get_mongo", "get_redis", "install", "reset_stats", "set_config",
    "setup", "stats", "wait_for_init",
]  # fmt: skip


class _DefaultRegistry(Registry):
    """The registry of the package's own names. It pickles by name: another process uses its own, under the settings of its ``setup``."""

    def __reduce__(self) -> str:
        return "default_registry"


default_registry: Final = _DefaultRegistry()

setup: Final = default_registry.setup
set_config: Final = default_registry.set_config
install: Final = default_registry.install
get_config: Final = default_registry.get_config
get_mongo: Final = default_registry.get_mongo
get_redis: Final = default_registry.get_redis
wait_for_init: Final = default_registry.wait_for_init
close: Final = default_registry.close
discard_versions: Final = default_registry.discard_versions
stats: Final = default_registry.stats
reset_stats: Final = default_registry.reset_stats
