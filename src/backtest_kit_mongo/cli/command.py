"""What all commands share: options that say where the servers are, how errors are shown, and how a command ends."""

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
    """The options that every command has: where the servers are, and how much to say about a failure."""

    mongo: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            show_default=False,
            help="MongoDB as a connection string, mongodb://host:port/database. Default: CC_MONGO_CONNECTION_STRING. "
            "A password is better kept in the environment, where other users of the machine do not see it.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    redis_host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            show_default=False,
            help="Redis: host name, or path of a Unix socket. Default: CC_REDIS_HOST.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    redis_port: Annotated[
        int | None,
        typer.Option(metavar="PORT", show_default=False, min=1, max=65535, help="Default: CC_REDIS_PORT.", rich_help_panel=_PANEL),
    ] = None
    embedded: Annotated[
        bool | None,
        typer.Option(
            "--embedded",
            show_default=False,
            help="Start a MongoDB and a Redis of our own for this command, or use those that another process runs on the same "
            "folder. The data stays. Default: CC_EMBEDDED.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    embedded_dir: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            show_default=False,
            help="Where the embedded servers keep their data. Default: CC_EMBEDDED_DIR, or backtest-kit-mongo in the user's data folder.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="How long to wait for the servers to answer.", rich_help_panel=_PANEL)
    ] = 15.0
    debug: Annotated[bool, typer.Option("--debug", help="Show the Python traceback of an error.")] = False

    def settings(self, **others: Any) -> dict[str, Any]:
        """The settings that were given, as ``setup`` takes them; what was not given comes from the environment."""
        given: dict[str, Any] = {
            "CC_MONGO_CONNECTION_STRING": self.mongo,
            "CC_REDIS_HOST": self.redis_host,
            "CC_REDIS_PORT": self.redis_port,
            "CC_EMBEDDED_DIR": self.embedded_dir,
        }
        elsewhere = bool(self.mongo or self.redis_host or self.redis_port)
        if self.embedded or self.embedded_dir:
            if elsewhere:
                raise typer.BadParameter("it goes with no other servers", param_hint="--embedded")
            given["CC_EMBEDDED"] = True
        elif elsewhere:
            given["CC_EMBEDDED"] = False  # what was typed counts more than CC_EMBEDDED in the environment
        given["CC_DUMP_DIR"] = _dump_dir(others.get("CC_MODE") or os.environ.get("CC_MODE", ""))
        return {**given, **others}

    def config(self, **others: Any) -> Config:
        """All settings that would be in force. Contacts nobody."""
        return load_config(self.settings(**others))

    def connect(self, **others: Any) -> None:
        """``setup`` with these settings; embedded servers are started, others are contacted at the first use."""
        settings = self.settings(**others)
        if load_config(settings).CC_EMBEDDED:
            with errors.status("Starting MongoDB and Redis"):
                setup(settings)
        else:
            setup(settings)


def _dump_dir(mode: str) -> str | None:
    """Where files go that nobody has chosen a folder for: not into the working directory, unless earlier runs did.

    It is a folder for each working directory: two projects may have a strategy of the same name.
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
    """Make ``function(link, ...)`` the command ``name``: with the options of ServerOptions.

    An error is one line, and connections are closed at the end.

    A function without a ServerOptions parameter asks no server: its command has only --debug of those options. Any other parameter
    whose type is a Struct adds the fields of that Struct as options, so that commands can share them.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    links = [parameter.name for parameter in own if parameter.annotation is ServerOptions]
    own = [parameter for parameter in own if parameter.name not in links]
    groups: dict[str, type[msgspec.Struct]] = {parameter.name: parameter.annotation for parameter in own if _is_group(parameter)}
    fields = {name: list(inspect.signature(group, eval_str=True).parameters.values()) for name, group in groups.items()}
    shared = [
        parameter for parameter in inspect.signature(ServerOptions, eval_str=True).parameters.values() if links or parameter.name == "debug"
    ]

    def command(**values: Any) -> None:
        link = ServerOptions(**{parameter.name: values.pop(parameter.name) for parameter in shared})
        chosen = {name: group(**{field.name: values.pop(field.name) for field in fields[name]}) for name, group in groups.items()}
        with _ending(link.debug):
            function(**dict.fromkeys(links, link), **chosen, **values)

    expanded = [field for parameter in own for field in fields.get(parameter.name, [parameter])]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*expanded, *shared)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(name, help=unwrapped(inspect.getdoc(function) or ""))(command)


def _is_group(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.annotation, type) and issubclass(parameter.annotation, msgspec.Struct)


def pairs(texts: Sequence[str], option: str, form: str) -> dict[str, str]:
    """The values of an option that is repeated as ``NAME=VALUE``, by name; ``form`` is what it looks like."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals or name in found:
            raise typer.BadParameter(f"{text!r} {'is given twice' if name in found else f'is not {form}'}", param_hint=option)
        found[name] = value
    return found


def parse_time(text: str) -> int:
    """A point in time in ms, from ISO text (UTC if it names no zone) or ms."""
    if text.lstrip("-").isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is neither a time in ISO format nor whole milliseconds") from None
    return milliseconds("time", moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def unwrapped(text: str) -> str:
    """A help text with each paragraph on one line, so that it is wrapped for the terminal; indented ones (examples) stay."""
    paragraphs = text.rstrip().split("\n\n")
    return "\n\n".join(part if part.startswith(" ") else " ".join(part.split()) for part in paragraphs)


@contextmanager
def _ending(debug: bool) -> Iterator[None]:
    """However a command ends: connections closed, servers of our own stopped, an error in words and as exit code."""
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
        say_error("interrupted; what is stored stays stored")
        raise typer.Exit(130) from None
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as error:  # noqa: BLE001 - nobody behind us could say it better
        if debug:
            errors.print("".join(traceback.format_exception(error)), soft_wrap=True, markup=False)
        say_error(error_text(error, debug))
        raise typer.Exit(1) from None
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def error_text(error: Exception, debug: bool = False) -> str:
    """What to print of an error: its text, its notes, and what to do next."""
    if not isinstance(error, BacktestKitError):
        return f"unexpected {type(error).__name__}: {error}" + ("" if debug else "\n  hint: --debug shows where it comes from")
    text = with_notes(error)
    if isinstance(error, ServerUnavailableError) and error.hint is None and "hint:" not in text:
        text += "\n  hint: `backtest-kit-mongo doctor` says which server answers, and where each was looked for"
    return text
