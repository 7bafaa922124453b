"""What all commands share: the server options, how errors are shown, and how a command ends."""

from __future__ import annotations

import hashlib
import inspect
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.logging import RichHandler

from .. import close, setup
from ..config import Config, load_config
from ..errors import BacktestKitError, ServerUnavailableError, with_notes
from ..servers.embedded import default_data_dir
from ..simulation import milliseconds
from .output import errors, say_error

__all__ = ["ServerOptions", "add", "error_text", "pairs", "parse_time", "unwrapped"]

_PANEL = "Servers"


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of every command: where the servers are, and whether to show the traceback of an error."""

    mongo: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            show_default=False,
            help="MongoDB connection string, mongodb://host:port/database. Default: CC_MONGO_CONNECTION_STRING. "
            "Keep a password in the environment, where other users of the machine cannot see it.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    redis_host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            show_default=False,
            help="Redis host name, or path of a Unix socket. Default: CC_REDIS_HOST.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    redis_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT", show_default=False, min=1, max=65535, help="Redis port. Default: CC_REDIS_PORT.", rich_help_panel=_PANEL
        ),
    ] = None
    embedded: Annotated[
        bool | None,
        typer.Option(
            "--embedded",
            show_default=False,
            help="Start a MongoDB and a Redis for this command, or use those that another process runs on the same "
            "folder. The data stays. Default: CC_EMBEDDED.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    embedded_dir: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Data folder of the embedded servers. Default: CC_EMBEDDED_DIR, or backtest-kit-mongo in the user's data folder.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How long to wait for the servers to answer.", rich_help_panel=_PANEL)
    ] = 15.0
    debug: Annotated[bool, typer.Option("--debug", help="Show the Python traceback of an error.")] = False

    def settings(self, **others: Any) -> dict[str, Any]:
        """Return the settings that the options set, as ``setup`` takes them; all others come from the environment."""
        given: dict[str, Any] = {
            "CC_MONGO_CONNECTION_STRING": self.mongo,
            "CC_REDIS_HOST": self.redis_host,
            "CC_REDIS_PORT": self.redis_port,
            "CC_EMBEDDED_DIR": self.embedded_dir,
        }
        named = bool(self.mongo or self.redis_host or self.redis_port)
        if self.embedded or self.embedded_dir:
            if named:
                raise typer.BadParameter("cannot be combined with other servers", param_hint="--embedded")
            given["CC_EMBEDDED"] = True
        elif named:
            given["CC_EMBEDDED"] = False  # a typed option overrides CC_EMBEDDED in the environment
        given["CC_DUMP_DIR"] = _dump_dir(others.get("CC_MODE") or os.environ.get("CC_MODE", ""))
        return {**given, **others}

    def config(self, **others: Any) -> Config:
        """Return all settings that would be in force. Contacts no server."""
        return load_config(self.settings(**others))

    def connect(self, **others: Any) -> None:
        """Call ``setup`` with these settings. Embedded servers are started; others are contacted on first use."""
        settings = self.settings(**others)
        if load_config(settings).CC_EMBEDDED:
            with errors.status("Starting MongoDB and Redis"):
                setup(settings)
        else:
            setup(settings)


def _dump_dir(mode: str) -> str | None:
    """Return a folder for files outside the working directory; None if CC_DUMP_DIR or a folder of earlier runs there decides.

    Each working directory gets its own folder, since two projects may have a strategy of the same name.
    """
    name = "dump-paper" if mode == "paper" else "dump"
    if os.environ.get("CC_DUMP_DIR") or Path(name).is_dir():
        return None
    try:
        here = Path.cwd()
        return str(default_data_dir() / name / f"{here.name}-{hashlib.sha256(os.fsencode(here)).hexdigest()[:8]}")
    except (RuntimeError, OSError):  # no home folder, or a working directory that is gone
        return None


def add(app: typer.Typer, name: str, function: Callable[..., None]) -> None:
    """Register ``function`` as the command ``name``, with the options of ServerOptions.

    The command shows an error as text instead of a traceback, and closes all connections at the end.

    A function without a ServerOptions parameter needs no server: of those options, its command has only --debug. Any other parameter
    annotated with a Struct adds the fields of that Struct as options, so that commands can share them.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    option_names = [parameter.name for parameter in own if parameter.annotation is ServerOptions]
    own = [parameter for parameter in own if parameter.name not in option_names]
    groups: dict[str, type[msgspec.Struct]] = {parameter.name: parameter.annotation for parameter in own if _is_group(parameter)}
    fields = {name: list(inspect.signature(group, eval_str=True).parameters.values()) for name, group in groups.items()}
    shared = [
        parameter
        for parameter in inspect.signature(ServerOptions, eval_str=True).parameters.values()
        if option_names or parameter.name == "debug"
    ]

    def command(**values: Any) -> None:
        servers = ServerOptions(**{parameter.name: values.pop(parameter.name) for parameter in shared})
        chosen = {name: group(**{field.name: values.pop(field.name) for field in fields[name]}) for name, group in groups.items()}
        with _ending(servers.debug):
            function(**dict.fromkeys(option_names, servers), **chosen, **values)

    expanded = [field for parameter in own for field in fields.get(parameter.name, [parameter])]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*expanded, *shared)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, help=unwrapped(inspect.getdoc(function) or ""))(command)


def _is_group(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, type) and issubclass(parameter.annotation, msgspec.Struct)


def pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """Return the ``NAME=VALUE`` texts of a repeated option as a dict; an error about one of them names the expected ``form``."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals or name in values:
            raise typer.BadParameter(f"{text!r} {'is given twice' if name in values else f'is not {form}'}", param_hint=option)
        values[name] = value
    return values


def parse_time(text: str) -> int:
    """Return a time in ms, given as ISO text (UTC if it has no time zone) or in ms."""
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is neither a time in ISO format nor whole milliseconds") from None
    return milliseconds("time", moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def unwrapped(text: str) -> str:
    """Return a help text with one line per paragraph, so that the terminal can wrap it; indented paragraphs (examples) stay."""
    paragraphs = text.rstrip().split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else " ".join(part.split()) for part in paragraphs)


@contextmanager
def _ending(debug: bool) -> Iterator[None]:
    """End a command: close connections, stop embedded servers, turn an error into a message and an exit code."""
    logger = logging.getLogger("backtest_kit_mongo")
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        try:
            yield
        finally:
            close()
    except KeyboardInterrupt:
        say_error("interrupted; stored records are kept")
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - the last chance to turn it into a message
        if debug:
            errors.print("".join(traceback.format_exception(error)), soft_wrap=True, markup=False)
        say_error(error_text(error, debug))
        raise typer.Exit(1) from None
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def error_text(error: Exception, debug: bool = False) -> str:
    """Return what to print for an error: its text, its notes, and what to do next."""
    if not isinstance(error, BacktestKitError):
        return f"unexpected {type(error).__name__}: {error}" + ("" if debug else "\n  hint: --debug shows the traceback")
    text = with_notes(error)
    if isinstance(error, ServerUnavailableError) and error.hint is None and "hint:" not in text:
        text += "\n  hint: `backtest-kit-mongo doctor` shows the address of each server and whether it answers"
    return text
