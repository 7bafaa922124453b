"""Generate adapters.pyi and aio.pyi from the table of domains (``make stubs``). Tests compare them with ``stub()`` and ``aio_stub()``."""

from __future__ import annotations

import re
from inspect import isroutine
from pathlib import Path

import backtest_kit_mongo as kit
from backtest_kit_mongo.aio import PLAIN
from backtest_kit_mongo.domains import DOMAINS, Call, Domain

PACKAGE = Path(__file__).parents[1] / "src" / "backtest_kit_mongo"
TARGET = PACKAGE / "contracts" / "adapters.pyi"
AIO_TARGET = PACKAGE / "aio.pyi"

BASES = """class InstanceBase:
    def wait_for_init(self, initial: bool = True) -> None: ...

class AdapterBase:
    def __init__(self, registry: Bindings) -> None: ...
    def use_mongo(self) -> None: ...
    def use_json(self) -> None: ...
    def use_memory(self) -> None: ...
    def use_dummy(self) -> None: ...
    def clear(self) -> None: ...
    @property
    def id_cache(self) -> DomainIds: ...

class KeyedAdapterBase(AdapterBase):
    @overload
    def read_many(self, contexts: Iterable[Sequence[Any]], *, type: None = None) -> list[Any]: ...
    @overload
    def read_many(self, contexts: Iterable[Sequence[Any]], *, type: type[T]) -> list[T | None]: ...
    def write_many(self, items: Iterable[Sequence[Any]]) -> None: ...
    def update(self, context: Sequence[Any], change: Callable[[Any], Any], when: When | None = None) -> None: ...
"""

HEAD = f"""# Generated from the table in domains.py by tools/make_stubs.py (make stubs). Do not edit.
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from ..domains import Domain
from ..stores.mongo.redis_ids import DomainIds
from .bindings import Bindings

T = TypeVar("T")
When = datetime | int
Row = dict[str, Any]

{BASES}
def adapter_of(domain: Domain) -> AdapterBase: ...
"""


def awaited(stub: str) -> str:
    """Return a stub with the methods that may wait turned into coroutines or async iterators."""
    stub = re.sub(r"^    def (?!__init__|id_cache)(.*)", r"    async def \1", stub, flags=re.MULTILINE)
    stub = re.sub(r"async (def .* -> )Iterator\[", r"\1AsyncGenerator[", stub)
    return re.sub(r"^class (InstanceBase|AdapterBase):", r"class \1(Face):", stub, flags=re.MULTILINE).replace("DomainIds", "AsyncIds")


AIO_HEAD = f"""# Generated from the table in domains.py by tools/make_stubs.py (make stubs). Do not edit.
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, ParamSpec, TypeVar, overload

import numpy as np
import numpy.typing as npt

import backtest_kit_mongo as _kit

from .contracts import adapters as _sync
from .contracts.bindings import Bindings
from .stores.mongo.redis_ids import DomainIds

P = ParamSpec("P")
T = TypeVar("T")
When = datetime | int
Row = dict[str, Any]

PLAIN: Final[frozenset[str]]

def _function(function: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]: ...

class Face:
    sync: Any

class AsyncIds(Face):
    async def get(self, *context: Any) -> str | None: ...
    async def has(self, *context: Any) -> bool: ...
    async def delete(self, *context: Any) -> bool: ...
    def keys(self) -> AsyncGenerator[str]: ...
    async def size(self) -> int: ...
    async def clear(self) -> int: ...

{awaited(BASES)}"""

TYPES = {
    "when": "When",
    "backtest": "bool",
    "limit": "int",
    "since_timestamp": "int",
    "until_timestamp": "int",
    "data": "Any",
    "row": "Any",
    "rows": "Iterable[Any]",
    "entries": "Iterable[Any]",
    "candles": "Iterable[Any] | npt.NDArray[np.void]",
    "positions": "Iterable[Any] | Mapping[str, Any]",
}


def parameters(domain: Domain, names: tuple[str, ...]) -> str:
    """Return ``self`` and the typed parameters of a method."""
    typed = []
    for name in names:
        kind = TYPES.get(name, "str")
        if name == "row" and domain.nullable:
            kind = "Any | None"
        typed.append(f"{name}: {kind}")
    return ", ".join(["self", *typed])


def results(domain: Domain, call: Call) -> tuple[str, str | None]:
    """Return the return type of a method, and the one with ``type=T`` (None if it takes no ``type``)."""
    match call.operation:
        case "read":
            if domain.empty is list:
                return "list[list[Any]]", "T"
            return ("Row", "T") if domain.empty is dict else ("Row | None", "T | None")
        case "has":
            return "bool", None
        case "keys":
            return "Iterator[str]", None
        case "records":
            return "Iterator[Row]", "Iterator[Row]"
        case "rows":
            return "list[Row]", "list[T]"
        case "candles":
            return "list[Row] | None", "list[T] | None"
        case "array":
            return "npt.NDArray[np.void] | None", None
        case _:
            return "None", None


def method(domain: Domain, call: Call, *, instance: bool) -> list[str]:
    """Return the stub lines of one method."""
    names = tuple(name for name in call.arguments if not (instance and name in domain.context))
    head = f"    def {call.name}({parameters(domain, names)}"
    plain, typed = results(domain, call)
    limit = ", limit: int | None = ..." if call.operation == "rows" else ""
    if typed is None:
        return [f"{head}) -> {plain}: ..."]
    return [
        "    @overload",
        f"{head}, *{limit}, type: None = None) -> {plain}: ...",
        "    @overload",
        f"{head}, *{limit}, type: type[T]) -> {typed}: ...",
    ]


def classes(domain: Domain) -> list[str]:
    """Return the stub lines of a domain's two classes."""
    title = domain.name.capitalize()
    lines = [f"class Persist{title}Instance(InstanceBase):"]
    lines += [f"    {name}: {TYPES.get(name, 'str')}" for name in domain.context]
    lines.append(f"    def __init__({parameters(domain, domain.context)}) -> None: ...")
    for call in domain.calls:
        lines += method(domain, call, instance=True)
    base = "KeyedAdapterBase" if domain.keyed else "AdapterBase"
    lines += ["", f"class Persist{title}Utils({base}):"]
    for call in domain.calls:
        lines += method(domain, call, instance=False)
    if domain.name == "log":
        lines.append("    def use_jsonl(self) -> None: ...")
    lines += [f"    def use_persist_{domain.name}_adapter(self, cls: type[Any]) -> None: ...", ""]
    return lines


def of_registry() -> list[str]:
    """Return the stub lines of a registry's adapters and instances."""
    titles = [f"Persist{domain.name.capitalize()}" for domain in DOMAINS.values()]
    lines = [line for title in titles for line in (f"    {title}Adapter: {title}Utils", f"    {title}Instance: type[{title}Instance]")]
    return [*lines, "    def adapter(self, name: str) -> AdapterBase: ..."]


def named(names: list[str]) -> list[str]:
    """Return the stub lines of ``__all__``."""
    return ["__all__ = [", *(f'    "{name}",' for name in names), "]"]


def stub() -> str:
    """Return the whole stub of ``adapters``."""
    lines = [HEAD]
    for domain in DOMAINS.values():
        title = domain.name.capitalize()
        lines += [*classes(domain), f"Persist{title}Adapter: Persist{title}Utils", ""]
    lines += ["class Registry(Bindings):", *of_registry(), "", "default_registry: Registry", ""]
    lines += named(sorted(f"Persist{domain.name.capitalize()}{kind}" for domain in DOMAINS.values() for kind in ("Adapter", "Instance")))
    return "\n".join(lines) + "\n"


def aio_stub() -> str:
    """Return the whole stub of ``aio``."""
    titles = [domain.name.capitalize() for domain in DOMAINS.values()]
    lines = [AIO_HEAD]
    for domain in DOMAINS.values():
        lines.append(awaited("\n".join(classes(domain))))
    adapters = [f"Persist{title}Adapter: Persist{title}Utils" for title in titles]
    faces = {f"_sync.Persist{title}{kind}": f"Persist{title}{kind}" for title in titles for kind in ("Utils", "Instance")}
    faces |= {"DomainIds": "AsyncIds", "_sync.Registry": "AsyncRegistry"}
    lines += ["class AsyncRegistry(Face):", *of_registry(), "    def __getattr__(self, name: str) -> Any: ...", ""]
    for sync_name, async_name in faces.items():
        lines += ["@overload", f"def face(sync: {sync_name}) -> {async_name}: ..."]
    lines += ["", *adapters]
    for name in kit.__all__:
        if not name.startswith("Persist"):
            value = getattr(kit, name)
            lines.append(f"{name} = _function(_kit.{name})" if isroutine(value) and name not in PLAIN else f"{name} = _kit.{name}")
    lines += ["", *named(sorted([*kit.__all__, "face"]))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for target, text in ((TARGET, stub()), (AIO_TARGET, aio_stub())):
        target.write_text(text)
        print(f"{target.name}: {len(DOMAINS)} domains")
