"""How signatures accept a dict that a type checker knows nothing about, and still have the names of a dict literal checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, final

__all__ = ["UnknownNameOrWrongType", "Untyped"]


@final
class UnknownNameOrWrongType:
    """No value has this type. Its name is what a checker says about a member of a dict literal that does not belong there."""


class Untyped(Protocol):
    """A mapping with values of type Any, such as ``dict[str, Any]``: Any fits everywhere, so it fits ``__getitem__`` below.

    ``Mapping[str, Any]`` would accept any dict literal as well. With ``Settings | Untyped`` a literal must be a ``Settings``.
    """

    def keys(self) -> Iterable[str]:
        """Return the names."""

    def __getitem__(self, name: str, /) -> UnknownNameOrWrongType: ...
