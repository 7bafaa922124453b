"""Whether two records are the same: the same values of the same types."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

from msgspec import inspect

from ..domains import DOMAINS, Domain
from ..stores.base import Record
from ..stores.files.extended_json import plain_form

__all__ = ["Same", "same_records"]

Same = Callable[[Domain, Record, Record], bool]


def same_records(*, as_json: bool) -> Same:
    """Return a function that compares a source record with the target's of the same key: body, ``when`` and ``removed``.

    Values must have the same type: 1 differs from 1.0, a date from its text, Decimal("1.0") from Decimal("1.00"). NaN equals NaN, and
    dicts are compared regardless of order. In the framework's own fields 1 equals 1.0, because JavaScript has one type of number.

    Args:
        as_json: True if one of the stores holds files of JSON. Then the framework's own fields are compared in their plain form (its
            dates as ISO text, its infinite lifetimes as null), and ``when`` is ignored if the source record has none

    Examples:
        >>> from backtest_kit_mongo.data.transfer import same_records
        >>> from backtest_kit_mongo.domains import DOMAINS
        >>> from backtest_kit_mongo.stores.base import Record
        >>> key = ("BTCUSDT", "sma", "binance")
        >>> same_records(as_json=False)(DOMAINS["signal"], Record(key, {"own": 1}), Record(key, {"own": 1.0}))
        False
    """

    def same(domain: Domain, one: Record, other: Record) -> bool:
        timeless = not domain.when or (as_json and one.when is None)
        if not (timeless or one.when == other.when) or (domain.soft_delete and one.removed != other.removed):
            return False
        bodies = (plain_form(domain, one.body), plain_form(domain, other.body)) if as_json else (one.body, other.body)
        return _equal(*bodies, _own_fields(domain.name))

    return same


def _equal(one: Any, other: Any, own: frozenset[str] | None) -> bool:
    """Compare two bodies. ``own`` are the members that are the framework's own; None: the whole body is."""
    if own is not None and isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return False
        pairs = [(member, other[name], name in own) for name, member in one.items()]
    else:
        pairs = [(one, other, own is None)]
    while pairs:  # instead of recursion: files may hold any depth
        one, other, numbers = pairs.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pairs += [(member, other[name], numbers) for name, member in one.items()]
        elif isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            pairs += [(*members, numbers) for members in zip(one, other, strict=True)]
        elif not _equal_values(one, other, numbers):
            return False
    return True


def _equal_values(one: Any, other: Any, numbers: bool) -> bool:
    """Compare two values that are not both dicts or both lists; with ``numbers``, int and float are one type."""
    kinds = {type(one), type(other)}
    if len(kinds) > 1 and not (numbers and kinds == {int, float}):
        return False
    if isinstance(one, Decimal):  # a signalling NaN cannot be compared, and 1.0 equals 1.00
        return str(one) == str(other)
    return bool(one == other) or (one != one and other != other)


# --- which fields are the framework's own ---


@cache
def _own_fields(name: str) -> frozenset[str] | None:
    """Return the members of a domain's bodies that its payload type declares, but for a user's own data; None: all members."""
    payload = inspect.type_info(DOMAINS[name].payload)
    structs = [
        kind for kind in (payload.types if isinstance(payload, inspect.UnionType) else [payload]) if isinstance(kind, inspect.StructType)
    ]
    if not structs:
        return None
    users = {field.encode_name for struct in structs for field in struct.fields if _is_users(field.type)}
    return frozenset(field.encode_name for struct in structs for field in struct.fields) - users


def _is_users(kind: inspect.Type) -> bool:
    """Return whether values of a type are up to the user, at any depth."""
    match kind:
        case inspect.AnyType():
            return True
        case inspect.UnionType(types=kinds) | inspect.TupleType(item_types=kinds):
            return any(map(_is_users, kinds))
        case inspect.CollectionType(item_type=item):
            return _is_users(item)
        case inspect.DictType(key_type=key, value_type=value):
            return _is_users(key) or _is_users(value)
        case inspect.StructType(fields=fields):
            return any(_is_users(field.type) for field in fields)
    return False
