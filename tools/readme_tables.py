"""Print the tables that README shows of the contracts and of the settings; a test holds README to them."""

from __future__ import annotations

import inspect
import re

import msgspec

from backtest_kit_mongo.config import Config
from backtest_kit_mongo.domains import DOMAINS, Domain


def contract_row(domain: Domain) -> str:
    """One line: methods, unique index, Redis key, what a read gives where nothing is stored, simulation time."""
    methods = "<br>".join(f"`{call.name}({', '.join(call.arguments)})`" for call in domain.calls)
    cache = ":".join([domain.prefix, *(f"{{{name}}}" for name in domain.cache)])
    lists = any(call.operation == "rows" for call in domain.calls)
    empty = "[]" if lists else repr(domain.empty())
    return (
        f"| {domain.name.capitalize()} | {methods} | `{', '.join(domain.key)}` | `{cache}` | `{empty}` | {'yes' if domain.when else ''} |"
    )


def contracts() -> str:
    """The table of contracts."""
    head = ["| Contract | Methods | Unique index | Redis key | Nothing stored | `when` |", "|---|---|---|---|---|---|"]
    return "\n".join([*head, *map(contract_row, DOMAINS.values())]) + "\n"


def settings() -> str:
    """The table of settings, described by the docstrings below their fields."""
    described = dict(re.findall(r'^    (CC_\w+): .*\n    """(.*)"""$', inspect.getsource(Config), re.MULTILINE))
    lines = ["| Name | Default | Meaning |", "|---|---|---|"]
    for field in msgspec.structs.fields(Config):
        default = "each on mongo" if field.name == "CC_STORES" else f"`{field.default!r}`"
        lines.append(f"| `{field.name}` | {default} | {described[field.name]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(contracts())
    print(settings(), end="")
