"""The identity of a call: the name of its function, and a value that is unique to its arguments."""

from __future__ import annotations

import dataclasses
import enum
import inspect
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np

from ...errors import InvalidTypeError, InvalidValueError
from ..registrations import check_name

__all__ = ["bucket_of", "key_function", "name_of"]

_AS_THEY_ARE: Final = (type(None), bool, float, str, bytes)
_REPR: Final = (date, timedelta, Decimal, UUID)


def name_of(caller: str, function: Callable[..., Any]) -> str:
    """Return the name of a decorated function for messages. Raises InvalidTypeError if it cannot be decorated."""
    if not callable(function):
        raise InvalidTypeError(f"{caller} decorates a function, got {type(function).__name__}")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidTypeError(f"{caller}: {name} is a generator, and its values cannot be stored", hint="return a list")
    return str(name)


def bucket_of(caller: str, function: Callable[..., Any], interval: str | None, bucket: str | None) -> str:
    """Return ``bucket``, or by default ``file.function_interval``: the same in every process, regardless of other decorated functions."""
    if bucket is not None:
        return check_name("bucket", bucket)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None or code.co_name == "<lambda>":
        raise InvalidValueError(f"{caller}: {function!r} has no name of its own", hint='bucket="..." names its records')
    # Not the module name: for a strategy file it contains the name of the folder, which may change.
    name = f"{Path(code.co_filename).stem}.{function.__qualname__}"
    return name if interval is None else f"{name}_{interval}"


def key_function(caller: str, function: Callable[..., Any], key: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return a function that maps the arguments of a call to its key: made from all arguments, or from the result of ``key`` for them."""
    if key is not None:
        if not callable(key):
            raise InvalidTypeError(f"{caller}: key must be a function of the arguments, got {type(key).__name__}")
        return lambda *args, **kwargs: _canonical(caller, "the result of key=", key(*args, **kwargs))
    signature = inspect.signature(function)

    def of_arguments(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)  # f(1) and f(x=1) are one call
        bound.apply_defaults()
        return tuple((name, _canonical(caller, f"argument {name}", value)) for name, value in bound.arguments.items())

    return of_arguments


def _canonical(caller: str, what: str, value: Any) -> Any:
    try:
        return _plain(value)
    except TypeError as error:
        raise InvalidTypeError(
            f"{caller}: {what} cannot be part of a key: {error}", hint="key=lambda ...: ... can return a value that tells calls apart"
        ) from None
    except RecursionError:
        raise InvalidValueError(f"{caller}: {what} is nested too deeply or contains itself") from None


def _plain(value: Any) -> Any:
    """Return ``value`` as text, numbers and tuples of them, unique to its type and value. Raises TypeError if it has no such form."""
    kind = type(value)
    if kind in _AS_THEY_ARE:
        return value
    name = kind.__qualname__
    if kind is int:
        return value if -(2**63) <= value < 2**63 else (name, hex(value))  # Python limits the decimal digits of an int as text
    if kind is list or kind is tuple:
        return (name, *map(_plain, value))
    if kind is dict:
        return (name, *sorted(((_plain(key), _plain(member)) for key, member in value.items()), key=repr))
    if kind is set or kind is frozenset:
        return (name, *sorted(map(_plain, value), key=repr))
    if kind is datetime or kind is time:
        return (name, value.isoformat(), value.fold)  # its repr includes the repr of the time zone, which can be anything
    if kind in _REPR:
        return (name, repr(value))
    name = f"{kind.__module__}.{name}"
    if isinstance(value, enum.Enum):
        return (name, _plain(value.value))
    if isinstance(value, PurePath):
        return (name, str(value))
    if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        return (name, repr(np.lib.format.dtype_to_descr(value.dtype)), value.shape, value.tobytes())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return (name, *map(_plain, value))
    if isinstance(value, msgspec.Struct):
        fields = value.__struct_fields__
    elif dataclasses.is_dataclass(kind):
        fields = tuple(field.name for field in dataclasses.fields(value))
    else:
        raise TypeError(f"a {name} has no form that is the same in every process")
    return (name, *((field, _plain(getattr(value, field))) for field in fields))
