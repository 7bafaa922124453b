"""Loading a strategy file: a Python file that registers strategies when it is imported."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from ...errors import InvalidTypeError, InvalidValueError
from ..engine.broker import list_brokers, restore_brokers
from ..engine.risk import list_risks, restore_risks
from ..error_text import describe, where
from ..market.exchange import list_exchanges, restore_exchanges
from ..market.frame import list_frames, restore_frames
from ..strategy import Strategy, StrategyError, list_strategies, restore_strategies

__all__ = ["load_strategy_file", "nothing_registered", "registrations_restored"]

_REGISTERED: Final[tuple[tuple[Callable[[], tuple[Any, ...]], Callable[[Any], None]], ...]] = (
    (list_strategies, restore_strategies),
    (list_exchanges, restore_exchanges),
    (list_frames, restore_frames),
    (list_risks, restore_risks),
    (list_brokers, restore_brokers),
)


@contextmanager
def registrations_restored() -> Iterator[None]:
    """Restore strategies, exchanges, frames, risks and brokers after the block as they were before it."""
    before = [(list_items(), restore) for list_items, restore in _REGISTERED]
    try:
        yield
    finally:
        for items, restore in before:
            restore(items)


@contextmanager
def nothing_registered() -> Iterator[None]:
    """Begin the block with nothing registered, for example to load a file; restore the previous registrations after it."""
    with registrations_restored():
        for _, restore in _REGISTERED:
            restore(())
        yield


def load_strategy_file(path: str | PathLike[str]) -> tuple[Strategy, ...]:
    """Import a strategy file and return the strategies that it registered.

    Its folder becomes the first entry of ``sys.path``, and stays there, so that helper modules next to it can be imported, even later
    from inside a strategy. Loading the same file again replaces what it registered before. After an error the registrations are as they
    were before.

    Args:
        path: the path of the file

    Raises:
        StrategyError: something went wrong inside the file; the message names file and line
        InvalidTypeError: ``path`` is not a path
        InvalidValueError: the file cannot be read, or registers nothing

    Examples:
        >>> from pathlib import Path
        >>> from backtest_kit_mongo.runner import load_strategy_file
        >>> size = Path("idle.py").write_text('''
        ... from backtest_kit_mongo.runner import add_strategy
        ... add_strategy("idle", "1h", get_signal=lambda symbol, when: None)
        ... ''')
        >>> [strategy.name for strategy in load_strategy_file("idle.py")]
        ['idle']
    """
    if not isinstance(path, (str, PathLike)):
        raise InvalidTypeError(f"path must be a str or a path, got {type(path).__name__}")
    file = Path(fspath(path)).resolve()
    if not file.is_file():
        raise InvalidValueError(
            f"the strategy file {fspath(path)} does not exist" if not file.exists() else f"{fspath(path)} is not a file"
        )
    before = [(list_items(), restore) for list_items, restore in _REGISTERED]
    kept = [(tuple(item for item in items if item.file != str(file)), restore) for items, restore in before]
    # Named after its path: two files of the same name, or one named like an installed module, do not replace each other.
    name = f"backtest_kit_strategy_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InvalidValueError(f"{file} is not a Python file", hint="a strategy file ends in .py")
    module = importlib.util.module_from_spec(spec)
    folder = str(file.parent)
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    replaced = sys.modules.get(name)
    sys.modules[name] = module  # before it runs, like the import statement: dataclasses and pickle look it up there
    for items, restore in kept:
        restore(items)

    def undo() -> None:
        for items, restore in before:
            restore(items)
        if replaced is None:
            sys.modules.pop(name, None)
        else:
            sys.modules[name] = replaced
        if added and folder in sys.path:
            sys.path.remove(folder)

    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        undo()
        # A script that was not written to be imported may raise SystemExit. Ctrl+C comes from the user and passes through.
        if isinstance(error, (Exception, SystemExit)):
            raise StrategyError(f"the strategy file failed at {where(error, str(file))}: {describe(error)}") from error
        raise
    registered = tuple(strategy for strategy in list_strategies() if strategy not in kept[0][0])
    if not registered:
        undo()
        raise InvalidValueError(
            f"{file} registers no strategy", hint='from backtest_kit_mongo.runner import add_strategy; @add_strategy("name", interval="5m")'
        )
    return registered
