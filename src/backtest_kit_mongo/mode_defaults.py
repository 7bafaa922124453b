"""Which store serves which domain in which mode, and what else a mode decides. The source is the table of the original's docker project.

There the backtest's Session, Memory and State are called "local files", Storage, Recent and Notification "in memory", the log is
JSON lines, and everything that is not listed is on MongoDB.
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
    """What a mode sets where nobody says otherwise. Domains that ``stores`` does not name are on MongoDB."""

    stores: Mapping[str, Kind]
    durability: Literal["journal", "memory"]
    look_ahead: LookAhead


_BACKTEST: Final[Mapping[str, Kind]] = {
    "session": "file", "memory": "file", "state": "file",
    "storage": "memory", "recent": "memory", "notification": "memory",
    "log": "jsonl",
}  # fmt: skip

# A run that trades must find its records after a crash of the machine; a backtest is run again.
PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "": Profile({}, "journal", "off"),
        "backtest": Profile(_BACKTEST, "memory", "hide"),
        "paper": Profile({"log": "jsonl"}, "journal", "off"),
        "live": Profile({"log": "jsonl"}, "journal", "off"),
    }
)
"""By mode; the empty mode is what ``setup()`` without one gives."""
