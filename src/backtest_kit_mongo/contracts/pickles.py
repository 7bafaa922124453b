"""Registries in pickles: they travel by their settings, without passwords.

A pickle ends up in queues, caches and dumps. So a setting with a password travels without it, and the process that loads the pickle
takes the whole setting from its own environment. Apart from the password it must be the same there, so that no worker reads or writes
another database than the process that sent it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..config import Config, checked
from ..errors import ConfigError, InvalidTypeError
from ..mode_defaults import Kind
from ..stores.base import Store
from ..stores.files.jsonl import JsonlStore
from ..stores.files.store import FileStore
from ..stores.fork_safety import renew_after_fork
from ..stores.memory import DummyStore, MemoryStore

if TYPE_CHECKING:
    from .bindings import Bindings

__all__ = ["PickledSettings", "Served", "alive", "kind_of", "restored", "with_passwords", "without_passwords"]

Served = dict[str, tuple[Kind, type[Any] | None]]
"""By domain: the kind of its store, and the user's class in front of it."""

alive: Final[weakref.WeakValueDictionary[str, Bindings]] = weakref.WeakValueDictionary()
"""The registries of this process, by token."""


class PickledSettings(msgspec.Struct, frozen=True):
    """The settings of a registry as its pickle contains them."""

    values: dict[str, Any]
    redacted: dict[str, str]
    """The settings that contain a password: the name, and the value with ``***`` in place of the password."""


def without_passwords(config: Config, folder: str) -> PickledSettings:
    """Return settings that may leave the process. ``folder`` is the absolute path of ``CC_DUMP_DIR``.

    Embedded servers travel as their addresses: another process uses them, but does not start its own, which would be empty.
    """
    values = msgspec.structs.asdict(config)
    redacted = {name: shown for name, shown in config.__rich_repr__() if shown != values[name]}
    values |= {"CC_DUMP_DIR": folder, "CC_EMBEDDED": False, "CC_EMBEDDED_DIR": ""}
    return PickledSettings({name: value for name, value in values.items() if name not in redacted}, redacted)


def with_passwords(settings: PickledSettings, environ: Mapping[str, str] | None = None) -> Config:
    """Return the settings with those that contain a password from ``environ`` (default: ``os.environ``).

    Raises ConfigError if one is missing there or differs in more than the password.
    """
    environ = os.environ if environ is None else environ
    found: dict[str, Any] = {}
    for name, expected in settings.redacted.items():
        text = environ.get(name)
        hint = f"set {name} in the environment of this process to {expected}, with the password in place of ***"
        if not text:
            raise ConfigError(f"its pickle does not contain passwords, and {name} is not set here", hint=hint)
        found[name] = text
        here = dict(Config(**found).__rich_repr__())[name]
        if here != expected:
            raise ConfigError(f"its pickle does not contain passwords, and {name} is {here} here, but was {expected}", hint=hint)
    return checked(Config(**settings.values, **found))


class _BySettings:
    """The registries that pickles brought to this process. They stay open, so that many tasks share one set of connections."""

    def __init__(self) -> None:
        self._registries: dict[tuple[Any, ...], Bindings] = {}
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Start with a new lock; see ``stores.fork_safety``."""
        self._lock = threading.Lock()

    def get(self, cls: type[Bindings], token: str, settings: PickledSettings, served: Served) -> Bindings:
        """Return the registry with these settings. Make one if there is none, or if it was set up differently since."""
        key = (cls, msgspec.json.encode(settings, order="sorted"), *sorted(served.items()))
        with self._lock:
            registry = self._registries.get(key)
            if registry is None or registry.pickled_settings() not in (None, settings):
                registry = self._registries[key] = cls()
                registry.take_token(token)
            if registry.pickled_settings() is None:  # new, closed since, or a password was missing
                registry.restore(settings, served)
            return registry


_by_settings: Final = _BySettings()


def restored(cls: type[Bindings], token: str, settings: PickledSettings | None, served: Served) -> Bindings:
    """Return the registry of a pickle.

    This is the pickled object itself if it lives in this process and still has the same settings. Otherwise it is a registry with those
    settings, the same one for all such pickles. Never raises for a missing password: a pool of processes would report that as a broken
    pool, or hang. The first use of the registry raises NotConfiguredError instead.
    """
    registry = alive.get(token)
    if registry is not None and registry.pickled_settings() == settings:
        return registry
    if settings is not None:
        return _by_settings.get(cls, token, settings, served)
    registry = cls()
    registry.take_token(token)
    registry.restore(None, served)
    return registry


_KINDS: Final[Mapping[type[Any], Kind]] = {
    type(None): "mongo", FileStore: "file", JsonlStore: "jsonl", MemoryStore: "memory", DummyStore: "dummy",
}  # fmt: skip


def kind_of(name: str, store: Store | None) -> Kind:
    """Return the kind of a chosen store, as in the settings."""
    kind = _KINDS.get(type(store))
    if kind is None:
        raise InvalidTypeError(f"{name} is served by a {type(store).__name__}, which cannot be pickled", hint="set it up in each process")
    return kind
