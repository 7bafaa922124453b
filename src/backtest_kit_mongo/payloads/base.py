"""What all payload Structs share: names on the wire, numbers, absent fields."""

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

# JavaScript has one number type: BSON gets an int32 where the value fits and a double otherwise, so every millisecond arrives
# as 1700000000000.0, which msgspec refuses for an int. Whole doubles are let in here and become int in __post_init__: whoever
# holds a Struct holds ints, which is what a type checker is told.
_WHOLE = Annotated[float, Meta(multiple_of=1)]
if TYPE_CHECKING:
    Int: TypeAlias = int
else:
    Int = int | _WHOLE

# "May be absent" in TypeScript is stored in two ways: JSON drops the key, BSON keeps it as null.
Maybe: TypeAlias = T | UnsetType | None

# A naive date would be read as local time by one side and as UTC by the other.
AwareDatetime: TypeAlias = Annotated[datetime, Meta(tz=True)]

PositionSide: TypeAlias = Literal["long", "short"]
"""Direction of a position."""

OrderType: TypeAlias = Literal["schedule", "active"]
"""The order of a scheduled entry, or of a position."""

StorageStatus: TypeAlias = Literal["opened", "scheduled", "closed", "cancelled"]
"""State of a row in the Storage contract."""


@cache
def int_fields(cls: type[Struct]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls) if _WHOLE in get_args(f.type))


def to_int(value: Any) -> Any:
    # A fraction gets here only from a caller who ignores the type checker: truncating it would hide the mistake.
    return int(value) if value.__class__ is float and value.is_integer() else value


class Payload(Struct, kw_only=True, rename="camel"):
    """Base of all payloads: camelCase on the wire, whole doubles become int."""

    def __post_init__(self) -> None:
        for name in int_fields(self.__class__):
            value = getattr(self, name)
            if value.__class__ is float:  # an assignment costs more than the test, and most values are int already
                setattr(self, name, to_int(value))
