"""What serves a domain."""

from __future__ import annotations

from typing import Any

import msgspec

from .._core.blocks import CandleBlocks
from .._core.hit_reader import HitReader
from .._core.upsert_writer import UpsertWriter
from ..errors import ConfigError, NotConfiguredError
from ..mode_defaults import LookAhead
from ..stores.base import Store

__all__ = ["Binding", "Slot", "not_configured", "opened"]


class Binding(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What serves a domain. It never changes, so that a call that began with it does not meet parts of another store."""

    store: Store | None
    """None before ``setup`` and after ``close``, unless the domain has a store of its own."""
    lacking: ConfigError | None = None
    """What this process lacks to open the store, if the registry comes from another one."""
    chosen: Store | None = None
    """The store that was chosen for the domain; None: the MongoDB of the settings, whichever that is."""
    custom: type[Any] | None = None
    """The user's class in front of the store."""
    instances: dict[tuple[Any, ...], Any] = msgspec.field(default_factory=dict)
    """The instances of that class, by context."""

    # The fast paths of the store, None where it has none.
    hits: HitReader | None = None
    upserts: UpsertWriter | None = None
    blocks: CandleBlocks | None = None

    # How reads treat the simulation time.
    look_ahead: LookAhead = "off"
    history: bool = False
    watches: bool = False
    """Whether reads depend on the simulation time at all."""


def not_configured(lacking: ConfigError | None) -> NotConfiguredError:
    """Return the error of a call that needs a store before there is one. ``lacking`` is what a registry of another process lacks here."""
    if lacking is not None:
        error = NotConfiguredError(f"this registry comes from another process: {lacking}")
        error.hint = lacking.hint  # the message contains it
        return error
    return NotConfiguredError(
        "setup() has not been called, or the registry is closed", hint="call backtest_kit_mongo.setup() first, or use_memory()"
    )


def opened(binding: Binding) -> Store:
    """Return the store of a binding. Raises NotConfiguredError if it has none."""
    if binding.store is None:
        raise not_configured(binding.lacking)
    return binding.store


class Slot:
    """Holds the current binding of a domain."""

    __slots__ = ("binding",)

    def __init__(self, binding: Binding) -> None:
        self.binding: Binding = binding
