"""``config/setup.py`` and ``config/loader.py``: what a project does before its strategy file is loaded."""

from __future__ import annotations

import asyncio
import inspect
import runpy
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from ...errors import InvalidValueError
from ..error_text import describe, where
from ..strategy import StrategyError

__all__ = ["ConfigFiles", "load_config_files"]


class ConfigFiles(msgspec.Struct, frozen=True):
    """The config files that exist and were run; None: the file does not exist."""

    setup: str | None
    """It decides the settings: if it exists, those of the mode are not applied."""
    loader: str | None


def load_config_files(folder: str | PathLike[str] = ".") -> ConfigFiles:
    """Run ``config/setup.py`` of a project's folder, then the function of its ``config/loader.py``. Both files are optional.

    ``setup.py`` is run for its side effects, such as ``setup(CC_REDIS_HOST="redis")`` or ``PersistLogAdapter.use_json()``. In
    ``loader.py`` the function ``default``, or else ``loader``, is called without arguments, and awaited if it is async. The
    ``config`` folder becomes the first entry of ``sys.path``, and stays there. Raises StrategyError, which names file and line, if
    anything in the files fails.
    """
    config = Path(folder).resolve() / "config"
    files = {name: config / f"{name}.py" for name in ("setup", "loader")}
    existing = {name: str(file) if file.is_file() else None for name, file in files.items()}
    if any(existing.values()) and str(config) not in sys.path:
        sys.path.insert(0, str(config))
    if existing["setup"] is not None:
        _run(files["setup"])
    if existing["loader"] is not None:
        _load(files["loader"])
    return ConfigFiles(**existing)


def _run(file: Path) -> dict[str, Any]:
    with _failing(f"{file.parent.name}/{file.name}", file):
        return runpy.run_path(str(file), run_name=f"backtest_kit_config_{file.stem}")


def _load(file: Path) -> None:
    names = _run(file)
    function: Callable[[], Any] | None = next((names[name] for name in ("default", "loader") if callable(names.get(name))), None)
    if function is None:
        raise InvalidValueError(f"{file} defines neither default() nor loader()", hint="define a function: def loader(): ...")
    with _failing("the loader of config/loader.py", file):
        result = function()
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))


async def _awaited(result: Awaitable[object]) -> None:
    await result


@contextmanager
def _failing(what: str, file: Path) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        raise StrategyError(f"{what} failed at {where(error, str(file))}: {describe(error)}") from error
