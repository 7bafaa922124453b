"""Write the generated parts of the manual: mkdocs-gen-files runs this for each build.

The pages of ``docs/reference/`` have comments such as ``<!-- generated: settings -->``; each is replaced by what the function of that
name below returns. Nothing generated is committed, so the manual cannot differ from the code. The pages of the API are listed in
``API``: mkdocstrings fills them with signatures and docstrings.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from backtest_kit_mongo import errors as kit_errors
from backtest_kit_mongo import runner
from backtest_kit_mongo.config import Config
from backtest_kit_mongo.contracts.registry import Registry
from backtest_kit_mongo.domains import DOMAINS, Domain, DomainName
from backtest_kit_mongo.metrics import Metrics
from backtest_kit_mongo.payloads import notifications, records, signals
from backtest_kit_mongo.payloads.base import Int
from backtest_kit_mongo.runner.strategy import _RequiredOfSignal

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
KIT: Final = "backtest_kit_mongo"

API: Final = {
    "setup": ("Setting up", "Settings, servers and registries; every program begins here.", KIT, """
        setup Settings wait_for_init close Registry get_config set_config install get_mongo get_redis set_logger
        simulated_time discard_versions
    """),
    "data": ("Querying and measuring", "Records as rows or tables, trades of other engines, and what reads and writes cost.", KIT, """
        records read_trades write_trades to_pandas to_polars to_arrow stats reset_stats profile Report
    """),
    "strategies": ("Strategies", "What a strategy file registers, and what its functions may call.", f"{KIT}.runner", """
        add_strategy find_strategy list_strategies clear_strategies load_strategy_file parameter Strategy Callbacks
        Event SignalDict BadSignalError StrategyError OutsideRunError NoSignalError get_candles get_raw_candles
        CandleDict get_average_price create_signal close_pending cancel_scheduled activate_scheduled close_partial
        average_buy trailing_stop trailing_take pause resume stop State Memory Remembered Session Measure Interval
        NestedCallError Log Notification Recent Storage add_risk list_risks clear_risks Risk RiskRequest add_frame
        find_frame list_frames clear_frames Frame
    """),
    "runs": ("Runs and results", "Backtests, paper and live runs, sweeps, and what they return.", f"{KIT}.runner", """
        run_backtest run_backtests Backtest Live RunHandle RunOptions Costs BacktestResult Trade OpenTrade Totals
        BuyAndHold TakenOverError sweep SweepResult SweepRun cluster_executor keep_run load_run list_runs KeptRun
        trades_frame result_json profile_json write_html
    """),
    "candles": ("Candles", "Import, read, compare, replace and pack candles.", f"{KIT}.runner", """
        import_candles ImportReport imported_spans read_candles CandleGapError read_candle_files read_klines CandleFiles
        list_candles CandleSeries remove_candles refresh_candles CandleConflict CandleConflictError pack_candles
        unpack_candles verify_candles PackedSeries fetch_missing find_gaps Gap synthetic_market CANDLE_DTYPE
    """),
    "exchanges": ("Exchanges and brokers", "Where candles come from, and where orders go.", f"{KIT}.runner", """
        add_exchange add_ccxt_exchange add_file_exchange find_exchange list_exchanges clear_exchanges Exchange
        ExchangeError ExchangeRefusedError ExchangeUnavailableError add_broker find_broker list_brokers clear_brokers
        Broker Order Fill OrderFailedError OrderRejected CcxtBroker
    """),
    "servers": ("Servers", "Real servers as objects, for tests and for trying out a fail-over.", f"{KIT}.servers", """
        MongoServer RedisServer ReplicaSet Server mongo_uri
    """),
}  # fmt: skip


def api_pages() -> dict[str, str]:
    """Return the text of each page of the API, by its name."""
    pages = {}
    for page, (title, summary, module, names) in API.items():
        blocks = [_public(module, name) for name in names.split()]
        pages[page] = f"# {title}\n\n{summary} Import the names from `{module}`.\n\n" + "\n".join(blocks)
    pages["contracts"] = _contract_api()
    return pages


def _public(module: str, name: str) -> str:
    """Return the block of a public name. Functions of the default registry are documented as methods of ``Registry``."""
    method = getattr(Registry, name, None) if module == KIT else None
    if method is None:
        return f"::: {module}.{name}\n"
    home = f"{method.__module__}.{method.__qualname__}"
    return f"[](){{#{module}.{name}}}\n\n::: {home}\n    options:\n      heading: {name}\n"


def _contract_api() -> str:
    lines = ["# Contracts", "", "`Persist*Adapter` takes the context in every call, `Persist*Instance` takes it once. Import them from"]
    lines += [f"`{KIT}`; `{KIT}.aio` has the same names, awaitable. What each contract stores: [Contracts](../contracts.md).", ""]
    for domain in DOMAINS.values():
        home = f"{KIT}.contracts.generated.{domain.name}"
        name = domain.name.capitalize()
        lines += [f"## {name}", ""]
        for kind in ("Adapter", "Instance"):
            inside = f"Persist{name}{'Utils' if kind == 'Adapter' else kind}"
            lines += [f"[](){{#{KIT}.Persist{name}{kind}}}", "", f"::: {home}.{inside}", "    options:", "      heading_level: 3"]
            lines += [f"      heading: Persist{name}{kind}", "      inherited_members: true", ""]
    return "\n".join(lines)


# --- tables ---


def settings() -> str:
    """The table of settings, described by the docstrings below their fields."""
    rows = []
    for field in msgspec.structs.fields(Config):
        default = "each on `mongo`" if field.name == "CC_STORES" else f"`{field.default!r}`"
        rows.append((f"`{field.name}`", _type(field.type), default, _field_text(Config, field.name)))
    return _table(("Name", "Type", "Default", "Meaning"), rows)


def contracts() -> str:
    """The table of contracts."""
    rows = []
    for domain in DOMAINS.values():
        methods = "<br>".join(f"`{call.name}({', '.join(call.arguments)})`" for call in domain.calls)
        lists = any(call.operation == "rows" for call in domain.calls)
        empty = "[]" if lists else repr(domain.empty())
        rows.append((domain.name.capitalize(), methods, _payload_link(domain), f"`{empty}`", "yes" if domain.when else ""))
    return _table(("Contract", "Methods", "Stores", "Nothing stored", "`when`"), rows)


def collections() -> str:
    """The table of collections, indexes and Redis keys."""
    rows = []
    for domain in DOMAINS.values():
        body = {None: "the fields of the candle"}.get(domain.body, f"`{domain.body}`")
        more = [name for name, there in (("when", domain.when), ("removed", domain.soft_delete)) if there]
        others = "<br>".join(", ".join(f"`{name}` {order:+d}" for name, order in index) for index in domain.indexes)
        key = ":".join([domain.prefix, *(f"{{{name}}}" for name in domain.cache)])
        fields = ", ".join([body, *(f"`{name}`" for name in more)])
        rows.append((f"`{domain.collection}`", ", ".join(f"`{name}`" for name in domain.key), fields, others, f"`{key}`"))
    return _table(("Collection", "Unique index", "Other fields", "Other indexes", "Redis key"), rows)


def errors() -> str:
    """The errors of the persistence layer, with their docstrings."""
    names = [name for name in kit_errors.__all__ if name.endswith("Error")]
    names.sort(key=lambda name: name != "BacktestKitError")
    return "\n".join(f"::: {KIT}.{name}\n    options:\n      heading_level: 3\n" for name in names)


def run_errors() -> str:
    """Links to the errors of runs, exchanges and brokers, and the builtin that each derives from."""
    rows = []
    for name in sorted(runner.__all__):
        value = getattr(runner, name)
        if inspect.isclass(value) and issubclass(value, Exception):
            plain = [
                base.__name__ for base in value.__mro__ if base.__module__ == "builtins" and base not in (Exception, BaseException, object)
            ]
            rows.append((f"[`{name}`][{KIT}.runner.{name}]", ", ".join(f"`{base}`" for base in plain)))
    return _table(("Error", "Also a"), rows)


def counts() -> str:
    """The table of what ``stats()`` counts, from the docstring of ``Metrics.snapshot``."""
    found = re.findall(r"- ((?:``\w+``(?:, )?)+): (.*(?:\n  .*)*)", inspect.getdoc(Metrics.snapshot) or "")
    return _table(("Name", "Meaning"), [(names.replace("``", "`"), re.sub(r"\s+", " ", text).replace("``", "`")) for names, text in found])


def signal() -> str:
    """The table of the fields of a signal that a strategy returns."""
    types = typing.get_type_hints(runner.SignalDict)
    texts = {name: text for base in (_RequiredOfSignal, runner.SignalDict) for name, text in _field_docs(base).items()}
    required = runner.SignalDict.__required_keys__
    rows = [(f"`{name}`", _type(types[name]), "required" if name in required else "optional", text) for name, text in texts.items()]
    return _table(("Field", "Type", "", "Meaning"), rows)


def metrics() -> str:
    """The table of what Prometheus is given."""
    from backtest_kit_mongo.prometheus import StatsCollector

    registry = Registry()
    registry.setup(stores=dict.fromkeys(DOMAINS, "memory"))  # asks no server
    registry.PersistStateAdapter.write_state_data({}, "signal", "bucket", 0)  # a call whose duration has labels
    rows = []
    for family in StatsCollector(registry).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels) or {"server": None}
        rows.append((f"`{name}`", family.type, ", ".join(f"`{label}`" for label in labels), family.documentation))
    registry.close()
    return _table(("Metric", "Type", "Labels", "Meaning"), rows)


def commands() -> str:
    """Every command with its options, as ``--help`` has them."""
    import click
    from typer.cli import get_docs_for_click
    from typer.main import get_command

    from backtest_kit_mongo.cli.app import app

    command = get_command(app)
    text = get_docs_for_click(obj=command, ctx=click.Context(command, info_name="backtest-kit-mongo"), name="backtest-kit-mongo")  # type: ignore[arg-type]
    return text.replace("**Usage**:\n\n```console", "**Usage**:\n\n```text").partition("**Usage**")[2].join(("**Usage**", ""))


# --- payloads ---


def payload_tables() -> str:
    """A table of the fields of each payload that a contract stores, and of those inside."""
    parts = []
    for title, module in (("Signals", signals), ("Other records", records), ("Notifications", notifications)):
        parts.append(f"## {title}\n")
        structs = dict.fromkeys(getattr(module, name) for name in module.__all__)  # an alias is the same class
        parts += [_payload(struct) for struct in structs if inspect.isclass(struct) and issubclass(struct, msgspec.Struct)]
    return "\n".join(parts)


def _payload(struct: type[msgspec.Struct]) -> str:
    text = "\n\n".join(paragraph.replace("\n", " ") for paragraph in (inspect.getdoc(struct) or "").split("\n\n")).replace("``", "`")
    return f"### {struct.__name__}\n\n{text}\n\n{_fields(struct)}"


def _fields(struct: type[msgspec.Struct]) -> str:
    rows = []
    for field in msgspec.structs.fields(struct):
        default = "required" if field.required else "absent" if field.default is msgspec.UNSET else f"`{field.default!r}`"
        rows.append((f"`{field.encode_name}`", f"`{field.name}`", _type(field.type), default, _field_text(struct, field.name)))
    return _table(("Stored", "Attribute", "Type", "Default", "Meaning"), rows) if rows else ""


def _field_text(struct: type, name: str) -> str:
    """Return the docstring below a field, in the class that declares it."""
    for base in struct.__mro__:
        if name in _field_docs(base):
            return _field_docs(base)[name]
    return ""


@cache
def _field_docs(struct: type) -> dict[str, str]:
    if struct.__module__.partition(".")[0] != KIT:
        return {}
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""$', inspect.getsource(struct), re.MULTILINE | re.DOTALL)
    return {name: re.sub(r"\s+", " ", text).replace("``", "`") for name, text in found}


def _payload_link(domain: Domain) -> str:
    names = list(dict.fromkeys(_structs(domain.payload)))
    if len(names) > 3:
        return "[notifications](payloads.md#notifications)"
    return ", ".join(f"[{name}](payloads.md#{name.lower()})" for name in names)


def _structs(value: Any) -> Iterator[str]:
    """Yield the names of the Structs that a type consists of."""
    if inspect.isclass(value) and issubclass(value, msgspec.Struct):
        yield value.__name__
    for part in typing.get_args(value):
        yield from _structs(part)


def _type(value: Any) -> str:
    """Return a type as a reader would write it."""
    return f"`{_plain_type(value)}`"


def _plain_type(value: Any) -> str:
    if value is Int:
        return "int"
    if value is DomainName:
        return "domain"
    if value is Ellipsis:
        return "..."
    origin, arguments = typing.get_origin(value), typing.get_args(value)
    if origin in (typing.Union, types.UnionType):
        parts = [_plain_type(part) for part in arguments if part is not msgspec.UnsetType]
        return " or ".join(dict.fromkeys("int" if "int" in parts and part == "float" else part for part in parts))
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin is typing.Annotated:
        return _plain_type(arguments[0])
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_plain_type, arguments))}]"
    return {type(None): "None"}.get(value, getattr(value, "__name__", str(value)))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"


PARTS: Final = {
    "settings": settings,
    "contracts": contracts,
    "collections": collections,
    "errors": errors,
    "run_errors": run_errors,
    "counts": counts,
    "signal": signal,
    "metrics": metrics,
    "commands": commands,
    "payloads": payload_tables,
}


def pages() -> Iterator[tuple[str, str]]:
    """Yield path and text of each page that is generated, has a generated part, or is kept in another folder."""
    for name, text in api_pages().items():
        yield f"reference/api/{name}.md", text
    for path in sorted((DOCS / "reference").glob("*.md")):
        text = path.read_text()
        filled = re.sub(r"<!-- generated: (\w+) -->\n", lambda match: PARTS[match[1]](), text)
        if filled != text:
            yield str(path.relative_to(DOCS)), filled
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        yield f"notebooks/{path.name}", path.read_text()


def write() -> None:
    """Write the pages into the build of MkDocs."""
    import mkdocs_gen_files

    for path, text in pages():
        with mkdocs_gen_files.open(path, "w") as file:
            file.write(text)


if __name__ == "__main__":  # to look at one part
    print(PARTS[sys.argv[1]]() if len(sys.argv) == 2 else "usage: manual_reference.py PART\nparts: " + " ".join(PARTS))
elif __name__ == "<run_path>":  # mkdocs-gen-files
    write()
