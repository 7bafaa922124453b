"""Parameters of a strategy file: the file declares names and defaults, a sweep or the command line may set other values."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from ...arguments import plain_scalar
from ...errors import InvalidTypeError, InvalidValueError
from ..registrations import check_name

__all__ = ["Scalar", "check_parameters", "given_parameters", "parameter", "parameters_in_effect"]

Scalar = bool | int | float | str
"""The types that a parameter can have."""

T = TypeVar("T", bool, int, float, str)

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class _Scope(msgspec.Struct):
    given: Mapping[str, object]
    declared: dict[str, Scalar]
    positions: dict[str, str]


# Per process, like the registered strategies: to load strategy files in parallel, use processes.
_scopes: list[_Scope] = []


def parameter(name: str, default: T) -> T:
    """Return the value of a parameter of a strategy file: the one from a sweep or the command line, or else its default.

    Call this at the top level of the file, or of a module that the file imports, so that a sweep knows all parameters before its first
    run. A name declared twice needs the same default both times.

    Args:
        name: the name of the parameter
        default: its value if nothing else is given; it decides the type: bool, int, float or str

    Raises:
        InvalidTypeError: ``default`` has another type, or the name is not text without "="
        InvalidValueError: the name was declared with another default, or a given value is not of the type

    Examples:
        >>> from backtest_kit_mongo.runner import parameter
        >>> FAST = parameter("FAST", 12)
        >>> FAST
        12
    """
    name = check_name("the name of a parameter", name)
    if not isinstance(default, Scalar) or "=" in name:
        raise InvalidTypeError(f"parameter {name!r} needs a name without '=' and a bool, int, float or str as its default, got {default!r}")
    if not _scopes:
        return default
    scope, caller = _scopes[-1], sys._getframe(1)
    position = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    first_default, first_position = scope.declared.setdefault(name, default), scope.positions.setdefault(name, position)
    if (type(first_default), first_default) != (type(default), default):
        raise InvalidValueError(f"parameter {name!r} has the default {default!r} at {position}, but {first_default!r} at {first_position}")
    return type(default)(_converted(name, scope.given[name], default)) if name in scope.given else default


@contextmanager
def given_parameters(given: Mapping[str, object]) -> Iterator[Mapping[str, Scalar]]:
    """Let ``parameter`` return these values (text is converted) while a strategy file is loaded and run.

    Yields the parameters declared so far, with their defaults; pass them to ``check_parameters`` after loading.
    """
    scope = _Scope(given, {}, {})
    _scopes.append(scope)
    try:
        yield scope.declared
    finally:
        _scopes.remove(scope)


def parameters_in_effect() -> dict[str, Scalar]:
    """Return the parameters declared so far, with the values that ``parameter`` returned; empty outside a sweep or the command line."""
    if not _scopes:
        return {}
    scope = _scopes[-1]
    return {name: _converted(name, scope.given.get(name, default), default) for name, default in scope.declared.items()}


def check_parameters(given: Mapping[str, object], declared: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return ``given`` converted to the types of ``declared`` (names and defaults).

    Raises InvalidValueError, which lists the known names, for any other name.
    """
    for name in given:
        if name not in declared:
            near = difflib.get_close_matches(name, declared, n=1, cutoff=0.6)
            listed = ", ".join(f"{declared_name}={default!r}" for declared_name, default in declared.items())
            hint = (f"did you mean {near[0]}? " if near else "") + (
                f"Known: {listed}" if listed else 'none are declared; declare one in the strategy file: FAST = parameter("FAST", 12)'
            )
            raise InvalidValueError(f"the strategy file has no parameter {name!r}", hint=hint)
    return {name: _converted(name, value, declared[name]) for name, value in given.items()}


def _converted(name: str, value: object, default: Scalar) -> Scalar:
    """Return ``value`` converted to the type of ``default``. Text, as from a command line, is parsed; numbers are not truncated."""
    kind = type(default)
    value = plain_scalar(value)
    converted: object = value
    if isinstance(value, str) and kind is not str:
        converted = _read(value.strip(), kind)
    elif kind is float and type(value) is int:
        converted = float(value)
    if type(converted) is not kind or (isinstance(converted, float) and not math.isfinite(converted)):
        raise InvalidValueError(f"parameter {name!r} must be of type {kind.__name__}, like its default {default!r}; got {value!r}")
    return converted


def _read(text: str, kind: type) -> object:
    if kind is bool:
        lowered = text.lower()
        return True if lowered in _YES else False if lowered in _NO else None
    try:
        return kind(text)
    except ValueError:
        return None
