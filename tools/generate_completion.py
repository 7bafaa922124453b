"""Write what shell completion offers, ``cli/commands.json``, from the commands themselves (``make generate``); a test compares them.

Loading the commands takes a second, which is too long for a press of Tab, so completion reads this file instead.
"""

from __future__ import annotations

import inspect
import json
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

from backtest_kit_mongo.cli.app import app

TARGET = Path(__file__).parents[1] / "src" / "backtest_kit_mongo" / "cli" / "commands.json"

# What the values of an argument or option are; ``cli/completion.py`` knows how to find them.
KINDS = {
    "broker": "broker",
    "domain": "domain",
    "domains": "domains",
    "file": "file",
    "grid": "parameter",
    "param": "parameter",
    "run_id": "run",
    "stores": "stores",
    "strategy": "strategy",
    "strategy_file": "strategy file",
}
FILES = ("FILE", "FOLDER", ".json", ".csv", ".html", ".png")


def literals(annotation: Any) -> tuple[str, ...]:
    """Return the choices of a Literal, also of an optional one."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(choice for part in get_args(annotation) for choice in literals(part))
    return ()


def values_of(name: str, annotation: Any, info: ArgumentInfo | OptionInfo, command: str) -> str | list[str]:
    """Return the choices of a parameter, or the kind of its values; empty text if nothing is known about them."""
    if choices := literals(annotation):
        return list(choices)
    if name in KINDS and not (command == "copy" and name == "strategy"):  # there it selects stored records
        return KINDS[name]
    return "file" if any(form in (info.metavar or "") for form in FILES) else ""


def first_sentence(text: str) -> str:
    """Return the first sentence of a help text, without Markdown."""
    return " ".join(text.split()).partition(". ")[0].rstrip(".").replace("`", "")


def command_of(function: Any, name: str) -> dict[str, Any]:
    """Return the options and arguments of a command."""
    options, arguments = [], []
    for parameter in inspect.signature(function).parameters.values():
        annotation, info = get_args(parameter.annotation)[0], parameter.annotation.__metadata__[0]
        values = values_of(parameter.name, annotation, info, name)
        many = get_origin(annotation) is list or any(get_origin(part) is list for part in get_args(annotation))
        if isinstance(info, ArgumentInfo):
            arguments.append({"values": values, "many": many})
            continue
        flag = annotation is bool or bool in get_args(annotation)
        for option in info.param_decls or (f"--{parameter.name.replace('_', '-')}",):
            options.append({"name": option, "help": first_sentence(info.help or ""), "values": None if flag else values, "many": many})
    options.append({"name": "--help", "help": "Show this message and exit", "values": None, "many": False})
    return {"options": options, "arguments": arguments}


def group_of(group: typer.Typer) -> dict[str, Any]:
    """Return the commands of a group, with those of its groups."""
    commands = {}
    for registered in group.registered_commands:
        commands[registered.name] = {"help": first_sentence(registered.help or ""), **command_of(registered.callback, registered.name)}
    for nested in group.registered_groups:
        commands[nested.name] = {"help": first_sentence(nested.typer_instance.info.help or ""), **group_of(nested.typer_instance)}
    options = [{"name": "--help", "help": "Show this message and exit", "values": None, "many": False}]
    if group is app:
        options.append({"name": "--version", "help": "Show the version and exit", "values": None, "many": False})
    return {"commands": commands, "options": options}


def source() -> str:
    """Return the content of the file."""
    return json.dumps(group_of(app), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(source())
    print(f"{TARGET.name}: {len(TARGET.read_bytes()):,} bytes")
