"""Defaults of each mode: the store of each domain, durability and look-ahead.

The stores follow a table in the docker project of the TypeScript package. For a backtest it lists Session, Memory and State as
"local files", Storage, Recent and Notification as "in memory", and the log as JSON lines; everything else is in MongoDB.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args

__all__ = ["KINDS", "PROFILES", "Kind", "LookAhead", "Mode", "Profile"]

Kind = Literal["mongo", "file", "memory", "jsonl", "dummy"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
LookAhead = Literal["off", "hide", "raise"]
Mode = Literal["backtest", "paper", "live"]


class Profile(NamedTuple):
    """What a mode sets unless you set it yourself. Domains missing from ``stores`` are in MongoDB."""

    stores: Mapping[str, Kind]
    durability: Literal["journal", "memory"]
    look_ahead: LookAhead


_BACKTEST: Final[Mapping[str, Kind]] = {
    "session": "file", "memory": "file", "state": "file",
    "storage": "memory", "recent": "memory", "notification": "memory",
    "log": "jsonl",
}  # fmt: skip

# A run that trades must find its records after the machine crashes; a backtest can be run again.
PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "": Profile({}, "journal", "off"),
        "backtest": Profile(_BACKTEST, "memory", "hide"),
        "paper": Profile({"log": "jsonl"}, "journal", "off"),
        "live": Profile({"log": "jsonl"}, "journal", "off"),
    }
)
"""Defaults by mode. The empty mode is that of ``setup()`` without a mode."""
