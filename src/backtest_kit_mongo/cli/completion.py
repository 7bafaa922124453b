"""Shell completion: what may follow on the command line.

A press of Tab starts a process, so this module imports little: not the commands (``commands.json`` describes them), no driver, and no
code of the user. A strategy file is parsed, not run. Nothing is connected, started or written.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, get_args

from ..contract_names import DomainName
from ..mode_defaults import KINDS

__all__ = ["VARIABLE", "answer", "complete"]

VARIABLE: Final = "_BACKTEST_KIT_MONGO_COMPLETE"
"""Environment variable in which a completion script says which shell asks."""

FILES: Final = ":files"
"""Asks the shell to complete names of files; a suffix may follow."""

Item = tuple[str, str]
"""What may be typed, and its help text."""

_REGISTERED_BY: Final = {"strategy": "add_strategy", "broker": "add_broker", "parameter": "parameter"}


def answer(shell: str, arguments: Sequence[str]) -> None:
    """Print what a completion script asks for: a line per item, with its help text after a tab. Print nothing if anything is wrong.

    zsh and fish pass the words after the command, up to the cursor. bash passes the line up to the cursor, because it splits words at
    ``=`` and ``:``; it replaces only what follows the last of those, so that the items are cut there.
    """
    try:
        cut = 0
        if shell == "bash":
            words = _split(arguments[0])[1:]
            cut = max((words[-1].rfind(sign) + 1 for sign in "=:" if sign in os.environ.get("COMP_WORDBREAKS", "=:")), default=0)
        else:
            words = list(arguments)
        lines = [f"{value if value.startswith(FILES) else value[cut:]}\t{text}" for value, text in complete(words)]
    except Exception:  # noqa: BLE001 - an error in the middle of a prompt helps nobody
        return
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _split(line: str) -> list[str]:
    """Return the words of a command line, the last one being the unfinished one. It may have an open quote."""
    for closing in ("", '"', "'"):
        try:
            return shlex.split(f"{line}{closing}") + ([""] if not closing and (not line or line[-1].isspace()) else [])
        except ValueError:
            continue
    return line.split(" ")


def complete(words: Sequence[str]) -> list[Item]:
    """Return what may stand in place of the last of ``words``, which may be empty; the others come before it."""
    *before, word = words
    node = json.loads(Path(__file__).with_name("commands.json").read_text(encoding="utf-8"))
    given: list[str] = []
    used: set[str] = set()
    wants: dict[str, Any] | None = None  # the option whose value comes next
    plain = False  # after --
    for earlier in before:
        if wants is not None:
            wants = None
        elif plain or not earlier.startswith("-"):
            if "commands" in node:
                if earlier not in node["commands"]:
                    return []
                node = node["commands"][earlier]
            else:
                given.append(earlier)
        elif earlier == "--":
            plain = True
        else:
            name, equals, _ = earlier.partition("=")
            option = _option(node, name)
            used.add(name)
            wants = option if option is not None and option["values"] is not None and not equals else None
    if wants is not None:
        return _matching(_values(wants["values"], word, node, given), word)
    if word.startswith("-") and not plain:
        name, equals, value = word.partition("=")
        if equals:
            option = _option(node, name)
            items = [] if option is None or option["values"] is None else _values(option["values"], value, node, given)
            return [(f"{name}={item}", text) for item, text in _matching(items, value) if not item.startswith(FILES)]
        return _matching(
            ((option["name"], option["help"]) for option in node["options"] if option["many"] or option["name"] not in used), word
        )
    if "commands" in node:
        return _matching(((name, command["help"]) for name, command in node["commands"].items()), word)
    arguments = node["arguments"]
    if len(given) < len(arguments) or (arguments and arguments[-1]["many"]):
        return _matching(_values(arguments[min(len(given), len(arguments) - 1)]["values"], word, node, given), word)
    return []


def _option(node: dict[str, Any], name: str) -> dict[str, Any] | None:
    return next((option for option in node["options"] if option["name"] == name), None)


def _matching(items: Iterable[Item], word: str) -> list[Item]:
    return [item for item in items if item[0].startswith((word, FILES))]


def _values(kind: str | list[str], word: str, node: dict[str, Any], given: Sequence[str]) -> Iterator[Item]:
    """Yield the values of an argument or option."""
    if not isinstance(kind, str):
        yield from ((choice, "") for choice in kind)
        return
    match kind:
        case "file":
            yield FILES, ""
        case "strategy file":
            yield f"{FILES} .py", ""
        case "domain":
            yield from ((name, "") for name in get_args(DomainName))
        case "domains":
            head = word[: word.rfind(",") + 1]
            yield from ((head + name, "") for name in get_args(DomainName) if name not in head.split(","))
        case "stores":
            yield from ((value, "") for value in _stores(word))
        case "run":
            yield from ((name, "") for name in _runs())
        case "strategy" | "broker" | "parameter":
            names = _registered(_REGISTERED_BY[kind], node, given)
            if kind == "parameter":
                yield from ((f"{name}=", f"default {default}") for name, default in names)
            else:
                yield from ((name, "") for name in chain((name for name, _ in names), ("ccxt",) if kind == "broker" else ()))


def _stores(word: str) -> Iterator[str]:
    """Yield one store for all domains, or DOMAIN=STORE pairs."""
    head = word[: word.rfind(",") + 1]
    name, equals, _ = word[len(head) :].partition("=")
    if equals:
        yield from (f"{head}{name}={store}" for store in KINDS if store != "jsonl" or name == "log")
        return
    if not head:
        yield from (store for store in KINDS if store != "jsonl")
    yield from (f"{head}{domain}=" for domain in get_args(DomainName) if f"{domain}=" not in head)


def _runs() -> list[str]:
    """Return the ids of the kept runs, newest first (``runner.backtest.kept_runs`` keeps them)."""
    home = os.environ.get("XDG_DATA_HOME", "")
    folder = (Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share") / "backtest-kit-mongo" / "runs"
    return sorted((path.stem for path in folder.glob("*.json") if re.fullmatch(r"[\d-]+", path.stem)), reverse=True)


def _registered(function: str, node: dict[str, Any], given: Sequence[str]) -> list[Item]:
    """Return the names that the strategy file on the command line passes to ``function`` as text, and the source of its next argument."""
    if not given or not node["arguments"] or node["arguments"][0]["values"] != "strategy file":
        return []
    tree = ast.parse(Path(given[0]).expanduser().read_bytes())
    registered = {}
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
        first = call.args[0]
        if called == function and isinstance(first, ast.Constant) and isinstance(first.value, str):
            registered[first.value] = ast.unparse(call.args[1]) if len(call.args) > 1 else ""
    return list(registered.items())
