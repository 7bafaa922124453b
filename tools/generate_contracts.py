"""Write the classes of the contracts from the table of domains (``make generate``); a test compares them with what is checked in.

``contracts/generated/NAME.py`` has the adapter and the instance of a domain, ``contracts/adapters.py`` all public names, and
``contracts/registry.py`` the class that holds them. ``aio`` has the same, awaitable. ``setting_types.py`` has the types of the settings.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from backtest_kit_mongo import contract_names, domains
from backtest_kit_mongo.config import Config
from backtest_kit_mongo.contracts import default_registry
from backtest_kit_mongo.domains import Call, Domain

sys.path.append(str(Path(__file__).parent))  # a test loads this file by its path
import contract_docs as docs

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "backtest_kit_mongo"
NOTE = "# Generated from domains.py by tools/generate_contracts.py (make generate). Do not edit.\n"

TYPES = {
    "when": "When",
    "backtest": "bool",
    "interval": "CandleInterval",
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


def options(domain: Domain, call: Call) -> dict[str, tuple[str, str, str]]:
    """Return the keyword-only parameters: name -> (type, default, meaning)."""
    found = {}
    if call.operation == "rows":
        limit = domain.listing.limit
        found["limit"] = ("int | None", "DEFAULT_LIMIT", f"the most rows to read, {limit} by default; None means all")
    if call.operation in ("read", "records", "rows", "candles"):
        found["type"] = ("Any", "None", "a msgspec type to decode into instead of a dict, see payloads")
    return found


def meanings(domain: Domain, call: Call) -> dict[str, str]:
    """Return the keyword-only parameters, each with its meaning."""
    return {name: text for name, (_, _, text) in options(domain, call).items()}


def returns(domain: Domain, call: Call) -> tuple[str, str | None]:
    """Return the annotation of the result, and that with ``type=T``; None if the method takes no type."""
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


def members(items: tuple[str, ...]) -> str:
    """Return a tuple as source."""
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def operation(domain: Domain, call: Call, values: dict[str, str]) -> str:
    """Return the call of the Contract's operation; ``values`` maps key fields to expressions."""
    key = members(tuple(values[name] for name in domain.key if name in values))
    body = call.arguments[0] if call.arguments else ""
    when = "when" if "when" in call.arguments else "NO_TIME"
    match call.operation:
        case "read":
            return f"self._read({key}, {when}, type)"
        case "write":
            return f"self._write({body}, {key}, {when})"
        case "records":
            return f"self._records({key}, type)"
        case "rows":
            return f"self._rows({key}, limit, type)"
        case "put_rows":
            return f"self._put_rows({body}, {key})"
        case "candles":
            return f"self._candles({key}, limit, since_timestamp, until_timestamp, type)"
        case "array":
            return f"self._array({key}, limit, since_timestamp)"
        case "put_candles":
            return f"self._put_candles({body}, {key})"
        case _:
            return f"self._{call.operation}({key})"


def signature(domain: Domain, call: Call, names: tuple[str, ...], *, kind: str | None = None, result: str) -> str:
    """Return the head of a method; ``kind`` is the annotation of ``type`` in an overload."""
    parts = ["self"]
    for name in names:
        annotation = "Any | None" if name == "row" and domain.nullable else TYPES.get(name, "str")
        parts.append(f"{name}: {annotation}")
    keyword = options(domain, call)
    if keyword:
        parts.append("*")
    for name, (annotation, default, _) in keyword.items():
        if name == "type" and kind is not None:
            parts.append(f"type: {kind}" + (" = None" if kind == "None" else ""))
        else:
            parts.append(f"{name}: {annotation} = {default if kind is None else '...'}")
    return f"    def {call.name}({', '.join(parts)}) -> {result}:"


def method(domain: Domain, call: Call, *, instance: bool) -> list[str]:
    """Return the source of a method."""
    names = tuple(name for name in call.arguments if not (instance and name in domain.context))
    plain, decoded = returns(domain, call)
    lines = []
    if decoded is not None:
        lines += ["    @overload", signature(domain, call, names, kind="None", result=plain) + " ..."]
        lines += ["    @overload", signature(domain, call, names, kind="type[T]", result=decoded) + " ..."]
    lines.append(signature(domain, call, names, result="Any" if decoded is not None else plain))
    lines += docs.docstring(domain, call, names, meanings(domain, call), instance=instance)
    values = {domains.field_name(name): name for name in names}
    give = "" if plain == "None" and call.operation not in ("read",) else "return "
    if instance:
        values |= {domains.field_name(name): f"self.{name}" for name in domain.context}
    else:
        rest = tuple(name for name in call.arguments if name not in domain.context)
        passed = "".join(f", {name}={name}" for name in options(domain, call))
        custom = f'self._custom(binding, "{call.operation}", {members(domain.context)}, "{call.name}", {members(rest)}{passed})'
        lines += ["        binding = self._slot.binding", "        if binding.custom is not None:"]
        lines.append(f"            return {custom}")
    lines.append(f"        {give}{operation(domain, call, values)}")
    return [*lines, ""]


def order_of(domain: Domain, call: Call) -> str:
    """Return the itemgetter that takes the key out of the arguments of a call."""
    names = [domains.field_name(argument) for argument in call.arguments]
    return f"itemgetter({', '.join(str(names.index(name)) for name in domain.key)})"


def module(domain: Domain) -> str:
    """Return the source of a domain's module."""
    title = f"Persist{domain.name.capitalize()}"
    base = "KeyedAdapterBase" if domain.keyed else "AdapterBase"
    lines = [NOTE + f'"""The {domain.name} contract."""', ""]
    lines += ["from __future__ import annotations", "", "from collections.abc import Iterable, Iterator, Mapping"]
    lines += ["from operator import itemgetter", "from typing import Any, TypeVar, overload", ""]
    lines += ["import numpy as np", "import numpy.typing as npt", ""]
    lines += [
        "from ...candles import CandleInterval",
        "from ...domains import DOMAINS",
        "from ..adapter_base import AdapterBase, InstanceBase, KeyedAdapterBase, Row, When",
    ]
    lines += ["from ..contract import DEFAULT_LIMIT, NO_TIME", "", f'__all__ = ["{title}Instance", "{title}Utils"]', ""]
    lines += ['T = TypeVar("T")', f'_DOMAIN = DOMAINS["{domain.name}"]', "", ""]
    lines += [f"class {title}Instance(InstanceBase):", *docs.class_docstring(domain, instance=True), ""]
    lines += ["    _domain = _DOMAIN", ""]
    parameters = ", ".join(["self", *(f"{name}: {TYPES.get(name, 'str')}" for name in domain.context)])
    lines += [f"    def __init__({parameters}) -> None:", "        super().__init__()"]
    lines += [*(f"        self.{name}: {TYPES.get(name, 'str')} = {name}" for name in domain.context), ""]
    for call in domain.calls:
        lines += method(domain, call, instance=True)
    lines += ["", f"class {title}Utils({base}):", *docs.class_docstring(domain, instance=False), ""]
    lines.append("    _domain = _DOMAIN")
    for call in domain.calls:
        if call.operation in ("read", "write") and domain.keyed:
            lines.append(f'    _{call.operation}_call = _DOMAIN.call("{call.operation}")')
            lines.append(f"    _{call.operation}_order = {order_of(domain, call)}")
    lines.append("")
    for call in domain.calls:
        lines += method(domain, call, instance=False)
    lines += [f"    def use_persist_{domain.name}_adapter(self, cls: type[Any]) -> None:"]
    lines += docs.use_class_docstring(domain)
    lines += ["        self._use_class(cls)", ""]
    if domain.name == "log":
        lines += ["    def use_jsonl(self) -> None:", *docs.use_jsonl_docstring()]
        lines += ["        self._use_jsonl()", ""]
    return "\n".join(lines)


def registry() -> str:
    """Return the source of the class that holds all contracts."""
    names = list(domains.DOMAINS)
    lines = [NOTE + '"""The registry: settings, stores and counters of a program or run, and the contracts over them."""', ""]
    lines += ["from __future__ import annotations", "", "from typing import TypeVar", "", "from ..domains import DOMAINS, DomainName"]
    lines += ["from .adapter_base import AdapterBase, InstanceBase", "from .bindings import Bindings"]
    lines += [
        f"from .generated import {', '.join(names)}",
        "",
        '__all__ = ["Registry"]',
        "",
        'Instance = TypeVar("Instance", bound=InstanceBase)',
        "",
        '_PUBLIC_NAMES = f"{__package__}.adapters"',
        "",
        "",
    ]
    lines += ["class Registry(Bindings):", *docs.block(docs.REGISTRY, 4)]
    lines += ["", "    def __init__(self) -> None:", "        super().__init__()"]
    for name in names:
        title = f"Persist{name.capitalize()}"
        lines.append(f"        self.{title}Adapter: {name}.{title}Utils = {name}.{title}Utils(self)")
        lines.append(f"        self.{title}Instance: type[{name}.{title}Instance] = self._own({name}.{title}Instance)")
    lines += [
        "",
        "    def _own(self, cls: type[Instance]) -> type[Instance]:",
        '        """Return the class of an instance for this registry."""',
    ]
    lines += ["        # In this module pickle finds the classes of the default registry."]
    lines += ['        members = {"_registry": self, "__module__": _PUBLIC_NAMES, "__doc__": cls.__doc__}']
    lines += ["        return type(cls.__name__, (cls,), members)", "", "    def adapter(self, name: DomainName) -> AdapterBase:"]
    lines += docs.adapter_docstring()
    lines += [
        '        adapter: AdapterBase = getattr(self, f"Persist{DOMAINS[name].name.capitalize()}Adapter")',
        "        return adapter",
        "",
    ]
    return "\n".join(lines)


def adapters() -> str:
    """Return the source of the module with the public names."""
    titles = [f"Persist{name.capitalize()}" for name in domains.DOMAINS]
    lines = [NOTE + '"""The public names of the contracts: ``Persist*Adapter`` and ``Persist*Instance`` of the default registry."""', ""]
    lines += ["from __future__ import annotations", "", "from typing import TYPE_CHECKING, Final", "", "from ..domains import Domain"]
    lines += ["from .adapter_base import AdapterBase", "from .default_registry import default_registry", ""]
    public = [f"{title}{kind}" for title in titles for kind in ("Adapter", "Instance")]
    lines += ["__all__ = [", *(f'    "{name}",' for name in sorted(public)), "]", ""]
    lines += ["if TYPE_CHECKING:"]
    lines += [f"    from .generated.{name} import Persist{name.capitalize()}Instance" for name in domains.DOMAINS]
    lines += ["else:", *(f"    {title}Instance = default_registry.{title}Instance" for title in titles), ""]
    lines += [f"{title}Adapter: Final = default_registry.{title}Adapter" for title in titles]
    lines += ["", "", "def adapter_of(domain: Domain) -> AdapterBase:", '    """Return the adapter of a domain in the default registry."""']
    lines += ["    return default_registry.adapter(domain.name)", ""]
    return "\n".join(lines)


def awaitable(domain: Domain, call: Call, *, instance: bool) -> list[str]:
    """Return the source of the awaitable version of a method."""
    names = tuple(name for name in call.arguments if not (instance and name in domain.context))
    plain, decoded = returns(domain, call)
    lists = call.operation in ("keys", "records")
    plain, decoded = (
        kind and kind.replace("Iterator[", "AsyncGenerator[").replace("]", ", None]") if lists else kind for kind in (plain, decoded)
    )
    head = "" if lists else "async "
    lines = []

    def signed(**options: Any) -> str:
        return signature(domain, call, names, **options).replace("    def ", f"    {head}def ", 1)

    if decoded is not None:
        lines += ["    @overload", signed(kind="None", result=plain) + " ..."]
        lines += ["    @overload", signed(kind="type[T]", result=decoded) + " ..."]
    lines.append(signed(result="Any" if decoded is not None and not lists else plain))
    lines += docs.docstring(domain, call, names, meanings(domain, call), instance=instance, awaitable=True)
    passed = "".join(f", {name}={name}" for name in options(domain, call))
    given = "".join(f", {name}" for name in names) + passed
    if lists:
        lines.append(f"        return self._pages(self.sync.{call.name}{given})")
    elif call.operation in ("candles", "array"):
        lines.append(f'        return await self._candles("{call.name}"{given})')
    else:
        lines.append(f"        return await self._data(self.sync.{call.name}{given})")
    return [*lines, ""]


def aio_module(domain: Domain) -> str:
    """Return the source of a domain's awaitable module."""
    title = f"Persist{domain.name.capitalize()}"
    base = "AsyncKeyedAdapter" if domain.keyed else "AsyncAdapter"
    lines = [NOTE + f'"""The {domain.name} contract, awaitable."""', "", "from __future__ import annotations", ""]
    lines += ["from collections.abc import AsyncGenerator, Iterable, Mapping", "from typing import Any, TypeVar, overload", ""]
    lines += ["import numpy as np", "import numpy.typing as npt", ""]
    lines += [
        "from ...candles import CandleInterval",
        "from ...contracts.adapter_base import Row, When",
        "from ...contracts.contract import DEFAULT_LIMIT",
    ]
    lines += ["from ...contracts.adapters import " + f"{title}Instance as _Instance"]
    lines += [f"from ...contracts.generated import {domain.name} as _sync"]
    lines += ["from ..base import AsyncAdapter, AsyncInstance, AsyncKeyedAdapter", ""]
    lines += [f'__all__ = ["{title}Instance", "{title}Utils"]', "", 'T = TypeVar("T")', "", ""]
    lines += [f"class {title}Instance(AsyncInstance):", *docs.class_docstring(domain, instance=True, awaitable=True), ""]
    lines += ["    __slots__ = ()", "", f"    sync: _sync.{title}Instance", docs.SYNC, "    _sync_class = _Instance", ""]
    lines += [f"    {name}: {TYPES.get(name, 'str')}" for name in domain.context]
    parameters = ", ".join(["self", *(f"{name}: {TYPES.get(name, 'str')}" for name in domain.context)])
    lines += ["", f"    def __init__({parameters}) -> None:", f"        self.sync = self._sync_class({', '.join(domain.context)})", ""]
    for call in domain.calls:
        lines += awaitable(domain, call, instance=True)
    lines += ["", f"class {title}Utils({base}):", *docs.class_docstring(domain, instance=False, awaitable=True), ""]
    lines += ["    __slots__ = ()", "", f"    sync: _sync.{title}Utils", docs.SYNC, ""]
    lines += [f"    def __init__(self, sync: _sync.{title}Utils) -> None:", "        self.sync = sync", ""]
    for call in domain.calls:
        lines += awaitable(domain, call, instance=False)
    lines += [f"    async def use_persist_{domain.name}_adapter(self, cls: type[Any]) -> None:"]
    lines += docs.use_class_docstring(domain, awaitable=True)
    lines += [f"        await self._wait(self.sync.use_persist_{domain.name}_adapter, cls)", ""]
    if domain.name == "log":
        lines += ["    async def use_jsonl(self) -> None:", *docs.use_jsonl_docstring(awaitable=True)]
        lines += ["        await self._wait(self.sync.use_jsonl)", ""]
    return "\n".join(lines)


def aio_registry() -> str:
    """Return the source of the awaitable registry, and of ``face``."""
    names = list(domains.DOMAINS)
    titles = {name: f"Persist{name.capitalize()}" for name in names}
    lines = [NOTE + '"""The awaitable registry, and ``face``: the awaitable version of any registry, adapter, instance or id cache."""', ""]
    lines += ["from __future__ import annotations", ""]
    lines += ["from inspect import isroutine", "from typing import TYPE_CHECKING, Any, Final, TypeVar, overload", ""]
    lines += ["from ..contracts.adapter_base import AdapterBase, InstanceBase"]
    lines += [
        "from ..contracts.registry import Registry",
        "from ..domains import DOMAINS, DomainName",
        "from ..errors import InvalidTypeError",
        "from ..stores.mongo.redis_ids import DomainIds",
    ]
    lines += [f"from ..contracts.generated import {name} as _{name}" for name in names]
    lines += ["from ..contract_names import PLAIN", "from .base import AsyncAdapter, AsyncFace, AsyncIds, AsyncInstance, in_threads"]
    lines += [f"from .generated import {', '.join(names)}", "", '__all__ = ["AsyncRegistry", "face"]', ""]
    lines += ['Instance = TypeVar("Instance", bound=AsyncInstance)', "", "_ADAPTERS: dict[str, Any] = {"]
    lines += [*(f'    "{name}": {name}.{titles[name]}Utils,' for name in names), "}", "_INSTANCES: dict[str, type[AsyncInstance]] = {"]
    lines += [*(f'    "{name}": {name}.{titles[name]}Instance,' for name in names), "}", "", ""]
    lines += ["class AsyncRegistry(AsyncFace):", *docs.block(docs.ASYNC_REGISTRY, 4), ""]
    lines += ["    sync: Registry", docs.SYNC, "", "    def __init__(self, sync: Registry) -> None:", "        self.sync = sync"]
    for name in names:
        utils, instance = f"{name}.{titles[name]}Utils", f"{name}.{titles[name]}Instance"
        lines.append(f"        self.{titles[name]}Adapter: {utils} = {utils}(sync.{titles[name]}Adapter)")
        lines.append(f"        self.{titles[name]}Instance: type[{instance}] = _of({instance}, sync.{titles[name]}Instance)")
    for name in default_registry.__all__:
        if name in contract_names.PLAIN:
            lines.append(f"        self.{name}: Final = sync.{name}")
        elif name != "default_registry":
            lines.append(f"        self.{name}: Final = in_threads(sync.{name})")
    lines += ["", "    if not TYPE_CHECKING:  # as in AsyncFace", "", "        def __getattr__(self, name: str) -> Any:"]
    lines += ["            value = super().__getattr__(name)"]
    lines += ["            return in_threads(value) if isroutine(value) and name not in PLAIN else value", ""]
    lines += ["    def adapter(self, name: DomainName) -> AsyncAdapter:", *docs.adapter_docstring(awaitable=True)]
    lines += [
        '        adapter: AsyncAdapter = getattr(self, f"Persist{DOMAINS[name].name.capitalize()}Adapter")',
        "        return adapter",
        "",
        "",
    ]
    lines += ["def _of(cls: type[Instance], sync_class: type[InstanceBase]) -> type[Instance]:"]
    lines += ['    """Return the class whose instances are those of ``sync_class``, awaitable."""']
    lines += ['    members = {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__, "_sync_class": sync_class}']
    lines += ["    return type(cls.__name__, (cls,), members)", "", ""]
    for name in names:
        for kind in ("Utils", "Instance"):
            lines += ["@overload", f"def face(sync: _{name}.{titles[name]}{kind}) -> {name}.{titles[name]}{kind}: ..."]
    lines += ["@overload", "def face(sync: DomainIds) -> AsyncIds: ...", "@overload", "def face(sync: Registry) -> AsyncRegistry: ..."]
    lines += ["def face(sync: Any) -> Any:"]
    lines += docs.block(docs.FACE, 4)
    lines += ["    if isinstance(sync, Registry):", "        return AsyncRegistry(sync)", "    if isinstance(sync, AdapterBase):"]
    lines += ["        return _ADAPTERS[sync._domain.name](sync)", "    if isinstance(sync, InstanceBase):"]
    lines += ["        instance = object.__new__(_INSTANCES[sync._domain.name])", "        instance.sync = sync", "        return instance"]
    lines += ["    if isinstance(sync, DomainIds):", "        return AsyncIds(sync)"]
    lines += [
        '    raise InvalidTypeError(f"expected a registry, an adapter, an instance or an id cache, got {type(sync).__name__}")',
        "",
    ]
    return "\n".join(lines)


def aio_names() -> str:
    """Return the source of ``aio/__init__.py``."""
    import backtest_kit_mongo as kit

    names = list(domains.DOMAINS)
    doc = (PACKAGE / "aio" / "base.py").read_text().split('\n"""\n')[0].partition("\n\n")[2]
    lines = [
        NOTE + '"""The same names, awaitable: ``await PersistSignalAdapter.read_signal_data(...)``, ``async for key in ...``.',
        "",
    ]
    lines += [doc, '"""', "", "from __future__ import annotations", "", "from typing import Final", "", "import backtest_kit_mongo as _kit"]
    same = [name for name in kit.__all__ if name not in contract_names.PUBLIC and (name in contract_names.PLAIN or name[0].isupper())]
    functions = [name for name in kit.__all__ if name not in contract_names.PUBLIC and name not in same]
    lines += [f"from backtest_kit_mongo import {', '.join(same)}", ""]
    lines += [
        "from .base import in_threads",
        f"from .generated import {', '.join(names)}",
        "from .registry import AsyncRegistry, face",
        "",
    ]
    lines += ["__all__ = [", *(f'    "{name}",' for name in sorted([*kit.__all__, "AsyncRegistry", "face"])), "]", ""]
    for name in names:
        title = f"Persist{name.capitalize()}"
        lines += [f"{title}Adapter: Final = {name}.{title}Utils(_kit.{title}Adapter)", f"{title}Instance = {name}.{title}Instance"]
    lines += [f"{name}: Final = in_threads(_kit.{name})" for name in functions]
    return "\n".join(lines) + "\n"


# What a setting of each type may be given as: any value may also be text, as in the environment, and None means not given.
SETTING_TYPES = {
    "str": "str | PathLike[str] | None",
    "int": "int | str | None",
    "float": "float | str | None",
    "bool": "bool | Literal[0, 1] | str | None",
    "dict[str, Kind]": "Mapping[DomainName, Kind] | str | None",
    "tuple[DomainName, ...]": "Iterable[DomainName] | str | None",
}


def setting_types() -> str:
    """Return the source of the module with the types of the settings. A Literal stays as it is, or is empty for not given."""
    lines = [
        NOTE.replace("domains.py", "config.py") + '"""The settings as ``setup`` and ``set_config`` take them, for type checkers."""',
        "",
    ]
    lines += ["from __future__ import annotations", "", "from collections.abc import Iterable, Mapping", "from os import PathLike"]
    lines += ["from typing import Literal, TypedDict", "", "from .contract_names import DomainName"]
    lines += ["from .mode_defaults import Kind, LookAhead", "", '__all__ = ["Settings"]', "", ""]
    lines += [
        "class Settings(TypedDict, total=False):",
        '    """Settings by name, for ``setup`` and ``set_config``."""',
        "",
    ]
    described = dict(re.findall(r'^    (CC_\w+): .*\n    (""".*""")$', inspect.getsource(Config), re.MULTILINE))
    for name, annotation in Config.__annotations__.items():
        given = SETTING_TYPES.get(annotation, annotation + ' | Literal[""] | None')
        lines += [f"    {name}: {given}", f"    {described[name]}"]
    return "\n".join(lines) + "\n"


def formatted(source: str, path: Path) -> str:
    """Return a source as ruff formats it, without imports that are not used."""
    ruff = [sys.executable, "-m", "ruff"]
    name = ["--stdin-filename", str(path), "-"]
    fixed = subprocess.run(
        [*ruff, "check", "--quiet", "--select", "F401,I", "--fix-only", *name], input=source, text=True, check=True, capture_output=True
    )
    return subprocess.run([*ruff, "format", "--quiet", *name], input=fixed.stdout, text=True, check=True, capture_output=True).stdout


def sources() -> dict[Path, str]:
    """Return all generated files: path -> source."""
    contracts = PACKAGE / "contracts"
    found = {contracts / "generated" / f"{name}.py": module(domain) for name, domain in domains.DOMAINS.items()}
    found[contracts / "generated" / "__init__.py"] = NOTE + '"""The classes of the contracts, a module for each domain."""\n'
    found[contracts / "registry.py"] = registry()
    found[contracts / "adapters.py"] = adapters()
    aio = PACKAGE / "aio"
    found |= {aio / "generated" / f"{name}.py": aio_module(domain) for name, domain in domains.DOMAINS.items()}
    found[aio / "generated" / "__init__.py"] = NOTE + '"""The awaitable classes of the contracts, a module for each domain."""\n'
    found[aio / "registry.py"] = aio_registry()
    found[aio / "__init__.py"] = aio_names()
    found[PACKAGE / "setting_types.py"] = setting_types()
    return {path: formatted(source, path) for path, source in found.items()}


if __name__ == "__main__":
    for path, source in sources().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    print(f"{len(domains.DOMAINS)} domains")
