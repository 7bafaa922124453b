"""The rule for arguments, once for all functions: scalars of NumPy and pandas are taken as the Python values that they stand for."""

from __future__ import annotations

import math
import operator
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from .errors import InvalidTypeError, InvalidValueError

__all__ = ["is_missing", "kind_of", "none_for_missing", "number", "plain_scalar", "positive_number", "text", "whole_number"]


def plain_scalar(value: Any) -> Any:
    """Return a scalar of NumPy, or of a subclass of str, as the Python value; anything else as it is."""
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    return value.item() if isinstance(value, (np.bool_, np.integer, np.floating)) else value


def is_missing(value: Any) -> bool:
    """Return whether a value says that there is none: None, NaN, and the NaT and NA of pandas."""
    if value is None or type(value).__name__ in ("NaTType", "NAType"):
        return True
    return isinstance(value, (float, np.floating, np.datetime64)) and bool(value != value)


def none_for_missing(value: Any) -> Any:
    """Return None for NaT and NA, which in a column of pandas say that there is none; anything else, also NaN, as it is."""
    return None if is_missing(value) and not isinstance(value, (float, np.floating)) else value


def kind_of(value: Any) -> str:
    """Return what a value is, for the message of an error: its type, or the name of a missing value."""
    if is_missing(value) and value is not None:
        return str(value)
    return f"numpy.{type(value).__name__}" if isinstance(value, np.generic) else type(value).__name__


def text(name: str, value: Any) -> str:
    """Return a str or numpy.str_ as a str. Raises InvalidTypeError, naming ``name``."""
    if not isinstance(value, str):
        raise InvalidTypeError(f"{name} must be a str, got {kind_of(value)}", hint=_hint(value))
    return value if type(value) is str else str.__str__(value)


def whole_number(name: str, value: Any, *, least: int | None = None) -> int:
    """Return an int, or what stands for one as the integers of NumPy do, as an int.

    Raises InvalidTypeError or InvalidValueError, naming ``name``.
    """
    try:
        whole = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None:
        raise InvalidTypeError(f"{name} must be an int, got {kind_of(value)}", hint=_hint(value))
    if least is not None and whole < least:
        raise InvalidValueError(f"{name} is {whole}; it must be at least {least}")
    return whole


def number(name: str, value: Any) -> float:
    """Return a number - int, float, Fraction, Decimal, or one of NumPy - as a float. Raises InvalidTypeError, naming ``name``."""
    if type(value) is float:
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, Decimal)):
        raise InvalidTypeError(f"{name} must be a number, got {kind_of(value)}", hint=_hint(value))
    try:
        return float(value)
    except (OverflowError, ValueError):
        raise InvalidValueError(f"{name} is {str(value)[:40]}, which is too large for a double") from None


def positive_number(name: str, value: Any) -> float:
    """Return a finite number above 0 as a float. Raises InvalidTypeError or InvalidValueError, naming ``name``."""
    checked = number(name, value)
    if not (math.isfinite(checked) and checked > 0):
        raise InvalidValueError(f"{name} is {checked}; it must be a finite number above 0")
    return checked


def _hint(value: Any) -> str | None:
    if hasattr(value, "__len__") and not isinstance(value, (str, bytes, dict)):  # a Series, an array, a list
        return "pass one value, such as series.iloc[-1]"
    return None
