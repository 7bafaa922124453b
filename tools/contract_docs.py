"""The docstrings of the generated contract classes: summary, arguments, result, errors, and an example that a test runs."""

from __future__ import annotations

import textwrap

from backtest_kit_mongo.domains import Call, Domain

WIDTH = 130

CONTENTS = {
    "candle": "The closed candles of a symbol, written once and never changed",
    "signal": "The open position of a strategy on a symbol; None if there is none",
    "schedule": "The signal of a strategy that waits for its price; None if there is none",
    "strategy": "The deferred work of a strategy: queued closes, partial closes, moves of stop and target",
    "risk": "The positions that a risk profile counts as open",
    "partial": "The levels of profit and loss that a signal has reached, by signal id",
    "breakeven": "Whether a signal has reached the price at which its stop may move to the entry, by signal id",
    "storage": "The signals of backtests or of live runs, opened, scheduled, closed and cancelled",
    "notification": "The notifications of backtests or of live runs",
    "log": "The log entries of strategies",
    "measure": "Results that a strategy caches, by bucket and key",
    "interval": "Markers of what was done once per interval, by bucket and key",
    "memory": "What a strategy remembers about a signal, by bucket and id",
    "recent": "The last signal of a strategy on a symbol",
    "state": "A value that a strategy keeps for a signal, by bucket",
    "session": "A value that a strategy keeps for a run on a symbol",
    "dictionary": "A dictionary that a strategy keeps for a signal, by name",
}
"""What each contract stores."""

ARGUMENTS = {
    "symbol": 'the traded pair, such as "BTCUSDT"',
    "strategy_name": "the name of the strategy",
    "exchange_name": "the name of the exchange",
    "frame_name": 'the name of the frame; "" in live mode',
    "backtest": "True for the records of backtests, False for live and paper runs",
    "risk_name": "the name of the risk profile",
    "signal_id": "the id of the signal",
    "bucket": "the name of the bucket",
    "bucket_name": "the name of the bucket",
    "dictionary_name": "the name of the dictionary",
    "memory_id": "the id of the memory",
    "key": "the key of the entry in its bucket",
    "interval": 'the length of a candle, such as "1m" or "4h"',
    "limit": "the number of candles",
    "since_timestamp": "the open time of the first candle, in ms since 1970 (UTC), on the grid of the interval",
    "until_timestamp": "not used: the end follows from since_timestamp and limit",
    "when": "the simulation time: an aware datetime, or ms since 1970 (UTC)",
    "row": "the row: a dict, dataclass or Struct",
    "data": "the value: a dict, dataclass or Struct",
    "positions": "the open positions: [key, position] pairs, or a mapping",
    "rows": 'the rows, each a dict, dataclass or Struct with an "id"',
    "entries": 'the entries, each a dict, dataclass or Struct with an "id"',
    "candles": (
        "the candles in any order: dicts, dataclasses, Structs, or an array (n,) of CANDLE_DTYPE; open times in ms, prices in the quote "
        "currency, volume in the base asset"
    ),
}
NULLABLE = "; None removes it"

VALUES = {
    "symbol": '"BTCUSDT"',
    "strategy_name": '"sma"',
    "exchange_name": '"binance"',
    "frame_name": '"march"',
    "backtest": "True",
    "risk_name": '"all"',
    "signal_id": '"s1"',
    "bucket": '"trend"',
    "bucket_name": '"levels"',
    "dictionary_name": '"words"',
    "memory_id": '"m1"',
    "key": '"2024-01-01"',
    "interval": '"1m"',
    "limit": "60",
    "since_timestamp": "1704067200000",
    "until_timestamp": "1704070800000",
    "when": "1704067200000",
    "candles": "synthetic_market(7, 60, 1704067200000)",
}
"""The arguments of the examples, as source."""

BODIES = {
    "strategy": "{'pendingSignalId': 's1', 'commitQueue': []}",
    "risk": "[['sma_binance_BTCUSDT', {'priceOpen': 42000.0}]]",
    "partial": "{'s1': {'profitLevels': [10, 20], 'lossLevels': []}}",
    "breakeven": "{'s1': {'reached': True}}",
    "storage": "[{'id': 's1', 'status': 'opened'}]",
    "notification": "[{'id': 'n1', 'type': 'signal.opened'}]",
    "log": "[{'id': 'e1', 'topic': 'start'}]",
    "measure": "{'id': '2024-01-01', 'data': 0.7, 'removed': False}",
    "interval": "{'id': '2024-01-01', 'data': 1, 'removed': False}",
    "memory": "{'index': 'support', 'data': 41800.0}",
    "session": "{'id': 'BTCUSDT:sma:binance:march:backtest', 'data': 3}",
    "state": "{'id': 's1_levels', 'data': 3}",
    "dictionary": "{'id': 'words', 'data': {'trend': 'up'}}",
}
"""The bodies of the examples, as Python shows them; the others hold a signal."""
SIGNAL = "{'id': 's1', 'priceOpen': 42000.0}"

WRITE_ERRORS = (
    ("InvalidTypeError", "an argument or the value has a type that cannot be stored; nothing is written then"),
    ("InvalidValueError", "an argument or the value has a value that cannot be stored; nothing is written then"),
)
READ_ERRORS = (
    ("InvalidTypeError", "an argument has the wrong type"),
    ("InvalidValueError", "an argument has a value that is not allowed"),
)
DECODE_ERRORS = (
    ("InvalidTypeError", "an argument has the wrong type, or msgspec cannot decode into ``type``"),
    ("InvalidValueError", "an argument has a value that is not allowed, or a record does not fit ``type``"),
)
SERVER_ERRORS = (
    ("ServerUnavailableError", "a server cannot be reached"),
    ("ServerTimeoutError", "a server does not answer in time"),
)
SYNC = '    """The synchronous object that does the work."""'
EVERY_CALL = (
    "Every method can also raise NotConfiguredError (before ``setup``), DatabaseError (MongoDB rejected the command) and, with the domain "
    "on files, StorageError."
)


def paragraph(text: str, indent: str, hanging: str = "") -> list[str]:
    """Return a text wrapped to the width of a docstring."""
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent + hanging, break_long_words=False)


def items(title: str, described: list[tuple[str, str]], pad: str) -> list[str]:
    """Return a section of named items, empty if there are none."""
    lines = ["", f"{pad}{title}:"] if described else []
    for name, text in described:
        lines += paragraph(f"{name}: {text}", pad + "    ", "    ")
    return lines


def summary(domain: Domain, call: Call) -> str:
    """Return the first sentences of a method's docstring."""
    rule = domain.listing
    match call.operation:
        case "read":
            return f"Read a record; return {domain.empty()!r} if nothing is stored."
        case "has":
            return "Return whether a record exists and is not removed."
        case "write":
            return "Write a record. When this returns, it is acknowledged, and every reader sees it."
        case "remove":
            return "Remove a record softly; do nothing if there is none. A later write restores it."
        case "keys":
            return "Iterate over the keys of the bucket that are not removed, newest write first."
        case "records":
            return "Iterate over the memories that are not removed, newest write first."
        case "rows":
            order = ", returned oldest first" if rule.oldest_first else ", newest first"
            return f"Read the newest rows{order}."
        case "put_rows":
            wins = "first" if domain.write == "insert_once" else "last"
            return f"Write rows by their id with one command; the {wins} write of an id wins. Other stored rows stay."
        case "candles":
            return "Read consecutive candles as dicts; return None if one is missing."
        case "array":
            return "Read consecutive candles as a structured array; return None if one is missing."
        case _:
            return "Store those candles that have closed and are not stored yet. Stored candles never change."


def details(domain: Domain, call: Call) -> str:
    """Return more about a method, if there is more."""
    match call.operation:
        case "read" if "when" in call.arguments:
            return 'With look_ahead="hide" or "raise", a record that was written later than when is hidden or raises LookAheadError.'
        case _:
            return ""


def result(domain: Domain, call: Call) -> str:
    """Return what a method returns, in words; "" if it returns nothing."""
    empty = {dict: "an empty dict", list: "an empty list"}.get(domain.empty, "None")
    match call.operation:
        case "read" if domain.empty is list:
            return f"the [key, position] pairs, or {empty} if nothing is stored"
        case "read":
            return f"the body as a dict, or as a ``type`` if given; {empty} if nothing is stored"
        case "has":
            return "True if a read would find the record"
        case "keys":
            return "an iterator of keys, which reads them page by page"
        case "records":
            return "an iterator of dicts {memoryId, data}, which reads them page by page; data is a ``type`` if given"
        case "rows":
            return "the rows as dicts, or as ``type`` if given"
        case "candles":
            return "``limit`` dicts {timestamp, open, high, low, close, volume} in order of time, or None if one of them is not stored"
        case "array":
            return (
                "a read-only array of shape (limit,) and CANDLE_DTYPE in order of time: timestamp (int64, ms), open, high, low, close, "
                "volume (float64); None if a candle is not stored. It may be a view of cached "
                "candles. See to_pandas, to_polars and to_arrow"
            )
        case _:
            return ""


def errors(domain: Domain, call: Call) -> tuple[tuple[str, str], ...]:
    """Return the errors of a method, each with when it is raised."""
    if call.operation in ("write", "put_rows", "put_candles"):
        return (*WRITE_ERRORS, *SERVER_ERRORS)
    found = DECODE_ERRORS if call.operation in ("read", "records", "rows", "candles") else READ_ERRORS
    if call.operation in ("candles", "array"):
        found += (("LookAheadError", 'a candle closes after the simulation time, with look_ahead="raise"'),)
        return (*found, ("DamagedCandlesError", "an archived block of candles cannot be read"), *SERVER_ERRORS)
    if domain.when and call.operation != "remove":
        found += (("LookAheadError", 'a record was written later than the simulation time, with look_ahead="raise"'),)
    return (*found, *SERVER_ERRORS)


def body_of(domain: Domain) -> str:
    """Return the body of a domain's examples."""
    return BODIES.get(domain.name, SIGNAL)


def shown(domain: Domain, call: Call, names: tuple[str, ...], receiver: str) -> str:
    """Return a call of a method as source, with the arguments of the examples."""
    body = call.arguments[0] if call.operation in ("write", "put_rows") else None
    values = [body_of(domain).replace("'", '"') if name == body else VALUES[name] for name in names]
    return f"{receiver}.{call.name}({', '.join(values)})"


def example(domain: Domain, call: Call, *, instance: bool, awaitable: bool) -> list[str]:
    """Return the lines of a method's example: what it does, and a read that shows it."""
    title = f"Persist{domain.name.capitalize()}"
    public = f"{title}{'Instance' if instance else 'Adapter'}"
    lines = [f">>> from backtest_kit_mongo{'.aio' if awaitable else ''} import {public}"]
    if domain.name == "candle":
        lines.append(">>> from backtest_kit_mongo.runner import synthetic_market")
    receiver = public
    if instance:
        receiver = domain.name
        lines.append(f">>> {receiver} = {public}({', '.join(VALUES[name] for name in domain.context)})")

    def calling(operation: str) -> str:
        found = domain.call(operation)
        names = tuple(name for name in found.arguments if not (instance and name in domain.context))
        return shown(domain, found, names, receiver)

    wait = "await " if awaitable else ""
    operations = {each.operation for each in domain.calls}
    lines.append(f">>> {wait}{calling(next(name for name in ('write', 'put_rows', 'put_candles') if name in operations))}")
    if domain.name == "candle":
        if call.operation == "array":
            return [
                *lines,
                f">>> array = {wait}{calling('array')}",
                ">>> array.shape, array['timestamp'][0].item()",
                "((60,), 1704067200000)",
            ]
        return [*lines, f">>> rows = {wait}{calling('candles')}", ">>> len(rows), rows[0]['timestamp']", "(60, 1704067200000)"]
    if call.operation == "remove":
        return [*lines, f">>> {wait}{calling('remove')}", f">>> {wait}{calling('read')} is None", "True"]
    if call.operation == "has":
        return [*lines, f">>> {wait}{calling('has')}", "True"]
    if call.operation in ("keys", "records"):
        listed = calling(call.operation)
        lines.append(f">>> [item async for item in {listed}]" if awaitable else f">>> list({listed})")
        key = VALUES[domain.call("read").arguments[-1]].replace('"', "'")
        return [*lines, f"[{key}]" if call.operation == "keys" else f"[{{'memoryId': {key}, 'data': {body_of(domain)}}}]"]
    return [*lines, f">>> {wait}{calling('rows' if 'rows' in operations else 'read')}", body_of(domain)]


def docstring(
    domain: Domain, call: Call, names: tuple[str, ...], options: dict[str, str], *, instance: bool, awaitable: bool = False
) -> list[str]:
    """Return the lines of a method's docstring. ``options`` are its keyword-only parameters, each with its meaning."""
    pad = " " * 8
    lines = paragraph(summary(domain, call), pad)
    lines[0] = f'{pad}"""{lines[0].strip()}'
    if more := details(domain, call):
        lines += ["", *paragraph(more, pad)]
    described = [(name, ARGUMENTS[name] + (NULLABLE if name == "row" and domain.nullable else "")) for name in names]
    lines += items("Args", described + list(options.items()), pad)
    if returned := result(domain, call):
        lines += ["", f"{pad}Returns:", *paragraph(returned, pad + "    ", "    ")]
    lines += items("Raises", list(errors(domain, call)), pad)
    lines += ["", f"{pad}Examples:"]
    lines += [f"{pad}    {line}" for line in example(domain, call, instance=instance, awaitable=awaitable)]
    return [*lines, f'{pad}"""']


def class_docstring(domain: Domain, *, instance: bool, awaitable: bool = False) -> list[str]:
    """Return the lines of the docstring of an adapter or an instance."""
    pad = " " * 4
    how = "with its context given once" if instance else "with its context in every call"
    lines = [f'{pad}"""The {domain.name} contract, {how}{", awaitable" if awaitable else ""}.', ""]
    lines += paragraph(f"{CONTENTS[domain.name]}. {EVERY_CALL}", pad)
    if instance:
        lines += items("Args", [(name, ARGUMENTS[name]) for name in domain.context], pad)
    elif awaitable:
        lines += items("Args", [("sync", "the synchronous adapter")], pad)
    else:
        lines += items("Args", [("registry", "the registry that creates the adapter and binds the domain to a store")], pad)
    return [*lines, f'{pad}"""']


def use_class_docstring(domain: Domain, *, awaitable: bool = False) -> list[str]:
    """Return the lines of the docstring of ``use_persist_*_adapter``."""
    title = f"Persist{domain.name.capitalize()}"
    pad = " " * 8
    wait, methods = ("await ", "synchronous methods") if awaitable else ("", "methods")
    return [
        f'{pad}"""Serve the {domain.name} contract through a class of yours: one instance per context.',
        *items(
            "Args",
            [("cls", f"a class with the {methods} of ``{title}Instance``, created with the same arguments; usually a subclass of it")],
            pad,
        ),
        *items("Raises", [("InvalidTypeError", "``cls`` is not a class, or lacks a method of the contract")], pad),
        "",
        f"{pad}Examples:",
        f"{pad}    >>> from backtest_kit_mongo import {title}Instance",
        f"{pad}    >>> from backtest_kit_mongo{'.aio' if awaitable else ''} import {title}Adapter",
        f"{pad}    >>> class Mine({title}Instance): ...  # override what you want to see or change",
        f"{pad}    >>> {wait}{title}Adapter.use_persist_{domain.name}_adapter(Mine)",
        f'{pad}"""',
    ]


def block(text: str, indent: int) -> list[str]:
    """Return a docstring as lines."""
    return textwrap.indent(f'"""{text}"""', " " * indent).split("\n")


def use_jsonl_docstring(*, awaitable: bool = False) -> list[str]:
    """Return the lines of the docstring of ``use_jsonl``."""
    text = """Serve the log from a file of JSON lines below ``CC_DUMP_DIR``.

Examples:
    >>> from backtest_kit_mongo{room} import PersistLogAdapter
    >>> {wait}PersistLogAdapter.use_jsonl()
"""
    return block(text.format(room=".aio" if awaitable else "", wait="await " if awaitable else ""), 8)


def adapter_docstring(*, awaitable: bool = False) -> list[str]:
    """Return the lines of the docstring of ``Registry.adapter``."""
    text = """Return the adapter of a domain.

Args:
    name: the name of the domain, such as "signal"

Returns:
    ``PersistSignalAdapter`` for "signal", and so on

Raises:
    KeyError: there is no such domain

Examples:
    >>> import backtest_kit_mongo as kit
{lines}
"""
    plain = "    >>> kit.Registry().adapter('signal')\n    <PersistSignalAdapter over MongoStore>"
    face = (
        "    >>> from backtest_kit_mongo.aio import face\n"
        "    >>> face(kit.Registry()).adapter('signal')\n"
        "    <async <PersistSignalAdapter over MongoStore>>"
    )
    return block(text.format(lines=face if awaitable else plain), 8)


REGISTRY = """Settings, stores, counters and contracts of one run, independent of other registries in the same process.

It has the functions and the ``Persist*`` names of the package as attributes: ``registry.setup(mode="live")``,
``registry.PersistSignalAdapter``, ``registry.PersistSignalInstance``. The package's own names belong to a default registry.

A registry pickles by its settings, so that functions that use it, its adapters or instances can run in other processes.
Passwords are not in the pickle: the other process takes each setting that contains one (of ``CC_MONGO_CONNECTION_STRING``,
``CC_REDIS_URL``, ``CC_REDIS_PASSWORD`` and ``CC_REDIS_SENTINEL``) from its own environment, where it must be the same apart
from the password. Otherwise the first call raises NotConfiguredError. All pickles with the same settings become one registry
there, with one set of connections. Stores in memory start empty; files are in the same absolute folder, and embedded servers
are those of the first process. The default registry pickles by name: each process calls ``setup`` for its own. A copy of a
registry is the registry itself.

Examples:
    >>> import backtest_kit_mongo as kit
    >>> paper = kit.Registry()
    >>> paper.setup(mode="paper", stores={"signal": "memory"})
    >>> paper.PersistSignalAdapter.write_signal_data({"id": "s1", "priceOpen": 42000.0}, "BTCUSDT", "sma", "binance")
    >>> paper.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance")
    {'id': 's1', 'priceOpen': 42000.0}
    >>> paper.close()
"""

ASYNC_REGISTRY = """The awaitable version of a registry: its adapters and functions, by the same names. ``face`` creates it.

Args:
    sync: the registry that does the work; it stays usable

Examples:
    >>> import backtest_kit_mongo as kit
    >>> from backtest_kit_mongo.aio import face
    >>> registry = face(kit.Registry())
    >>> await registry.setup(stores={"signal": "memory"})
    >>> await registry.PersistSignalAdapter.read_signal_data("BTCUSDT", "sma", "binance") is None
    True
    >>> await registry.close()
"""

FACE = """Return the awaitable version of an object of this library: the same names, awaitable.

Args:
    sync: a registry, an adapter, an instance or an id cache

Returns:
    an object of this module (``AsyncRegistry``, ``PersistSignalAdapter``, ...) over ``sync``

Raises:
    InvalidTypeError: ``sync`` is something else

Examples:
    >>> import backtest_kit_mongo as kit
    >>> from backtest_kit_mongo.aio import face
    >>> await face(kit.PersistSignalAdapter).read_signal_data("BTCUSDT", "sma", "binance") is None
    True
"""
