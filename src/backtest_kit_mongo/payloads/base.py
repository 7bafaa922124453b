"""What all payload Structs share: stored names, whole numbers, optional fields."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from msgspec import Meta, Struct, UnsetType
from msgspec.structs import fields

__all__ = [
    "OrderType",
    "PositionSide",
    "StorageStatus",
]


T = TypeVar("T")

# JavaScript has one number type. In BSON it becomes an int32 if the value fits and a double otherwise, so every timestamp arrives as
# 1700000000000.0, which msgspec rejects for an int. Int accepts whole doubles too, and __post_init__ converts them: a Struct always
# holds ints, which is what type checkers see.
_WHOLE = Annotated[float, Meta(multiple_of=1)]
if TYPE_CHECKING:
    Int: TypeAlias = int
else:
    Int = int | _WHOLE

# An optional field of TypeScript is stored in two ways: JSON drops the key, BSON keeps it as null.
Maybe: TypeAlias = T | UnsetType | None

# One side would read a naive datetime as local time, the other as UTC.
AwareDatetime: TypeAlias = Annotated[datetime, Meta(tz=True)]

PositionSide: TypeAlias = Literal["long", "short"]
"""Direction of a position."""

OrderType: TypeAlias = Literal["schedule", "active"]
"""What an order is for: a scheduled entry or a position."""

StorageStatus: TypeAlias = Literal["opened", "scheduled", "closed", "cancelled"]
"""State of a row in the Storage contract."""


@cache
def int_fields(cls: type[Struct]) -> tuple[str, ...]:
    """Return the names of the fields that hold whole numbers."""
    return tuple(f.name for f in fields(cls) if _WHOLE in get_args(f.type))


def to_int(value: Any) -> Any:
    """Return a whole double as an int, and any other value unchanged."""
    # Only a caller who ignores the type checker passes a fraction; truncating it would hide the mistake.
    return int(value) if value.__class__ is float and value.is_integer() else value


class Payload(Struct, kw_only=True, rename="camel"):
    """Base of all payloads: fields are stored in camelCase, and whole doubles become ints."""

    def __post_init__(self) -> None:
        for name in int_fields(self.__class__):
            value = getattr(self, name)
            if value.__class__ is float:  # most values are ints already, and this check is cheaper than an assignment
                setattr(self, name, to_int(value))
