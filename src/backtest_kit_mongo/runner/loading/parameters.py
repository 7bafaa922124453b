"""Parameters of a strategy file: a name and a default there, another value from a sweep or from the command line."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from ...errors import InvalidTypeError, InvalidValueError
from ..registrations import check_name

__all__ = ["Scalar", "check_parameters", "given_parameters", "parameter"]

Scalar = bool | int | float | str
"""What a parameter can be."""

T = TypeVar("T", bool, int, float, str)

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class _Scope(msgspec.Struct):
    given: Mapping[str, object]
    known: dict[str, Scalar]
    places: dict[str, str]


# Of the process, like the registered strategies: whoever loads strategy files side by side uses processes.
_scopes: list[_Scope] = []


def parameter(name: str, default: T) -> T:
    """The value of a parameter of a strategy file: what a sweep or the command line gives, or else ``default``.

        FAST = parameter("FAST", 12)

    The default decides the type: bool, int, float or str. Call it at the top level of the file, or of a module that the file
    imports, so that a sweep knows all parameters before its first run. One name declared twice needs the same default.
    """
    check_name("the name of a parameter", name)
    if not isinstance(default, Scalar) or "=" in name:
        raise InvalidTypeError(f"parameter {name!r} needs a name without '=' and a default of bool, int, float or str, not {default!r}")
    if not _scopes:
        return default
    scope, caller = _scopes[-1], sys._getframe(1)
    place = f"{caller.f_code.co_filename}:{caller.f_lineno}"
    known, first = scope.known.setdefault(name, default), scope.places.setdefault(name, place)
    if (type(known), known) != (type(default), default):
        raise InvalidValueError(f"parameter {name!r} has the default {default!r} at {place}, but {known!r} at {first}")
    return type(default)(_converted(name, scope.given[name], default)) if name in scope.given else default


@contextmanager
def given_parameters(given: Mapping[str, object]) -> Iterator[Mapping[str, Scalar]]:
    """Let ``parameter`` give these values (text is converted) while a strategy file is loaded and run.

    The value has what was declared so far, with the defaults; hand it to ``check_parameters`` after loading.
    """
    scope = _Scope(given, {}, {})
    _scopes.append(scope)
    try:
        yield scope.known
    finally:
        _scopes.remove(scope)


def check_parameters(given: Mapping[str, object], known: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """``given`` in the types of ``known`` (names and defaults); InvalidValueError, with the known ones, for any other name."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            listed = ", ".join(f"{known_name}={default!r}" for known_name, default in known.items())
            hint = (f"did you mean {near[0]}? " if near else "") + (
                f"Known: {listed}" if listed else 'none are declared; in the strategy file: FAST = parameter("FAST", 12)'
            )
            raise InvalidValueError(f"the strategy file has no parameter {name!r}", hint=hint)
    return {name: _converted(name, value, known[name]) for name, value in given.items()}


def _converted(name: str, value: object, default: Scalar) -> Scalar:
    """``value`` as the type of ``default``. Text, as a command line gives it, is read; numbers are not cut."""
    kind = type(default)
    found: object = value
    if isinstance(value, str) and kind is not str:
        found = _read(value.strip(), kind)
    elif kind is float and type(value) is int:
        found = float(value)
    if type(found) is not kind or (isinstance(found, float) and not math.isfinite(found)):
        raise InvalidValueError(f"parameter {name!r} must be of type {kind.__name__}, as its default {default!r}; got {value!r}")
    return found


def _read(text: str, kind: type) -> object:
    if kind is bool:
        lowered = text.lower()
        return True if lowered in _YES else False if lowered in _NO else None
    try:
        return kind(text)
    except ValueError:
        return None
