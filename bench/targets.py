"""What is measured and what must be reached: the rows of the table in order, each with the placement it is judged in."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = ["COSTS", "DATA", "PAYS", "TARGETS", "Target", "shortfall"]


class Target(NamedTuple):
    """One row. ``at_least``: minimum speed-up over a rival; ``at_most``: maximum multiple of a floor, or maximum amount."""

    placement: str
    at_least: Mapping[str, float] = MappingProxyType({})
    at_most: Mapping[str, float] = MappingProxyType({})

    def checks(self) -> dict[str, tuple[str, float]]:
        """Return direction and target value by what ours is compared with."""
        return {name: (">=", value) for name, value in self.at_least.items()} | {
            name: ("<=", value) for name, value in self.at_most.items()
        }


TARGETS: Final[Mapping[str, Target]] = MappingProxyType(
    {
        "single hit, L1 warm": Target("same", {"plain": 5}, {"floor": 1.25}),
        "single hit, L1 cold, Redis warm": Target("same", {"plain": 4}, {"floor": 1.25}),
        "single hit over TLS, L1 warm": Target("same", {"plain": 3, "direct": 2.5}, {"floor": 1.35}),
        "single write, insert": Target("apart", {"plain": 1.8}, {"floor": 1.2}),
        "single write, update": Target("apart", {"plain": 1.8}, {"floor": 1.2}),
        "single write and its id, insert": Target("same", {}, {"floor": 1.4}),
        "single write and its id, update": Target("same", {}, {"floor": 1.4}),
        "read_many of 1,000, L1 warm": Target("apart", {"plain": 90}, {"floor": 1.4}),
        "read_many of 1,000, L1 cold": Target("apart", {}, {"floor": 2.0}),
        "write_many of 1,000": Target("apart", {"plain": 13}, {"floor": 1.15}),
        "30,240 candles to NumPy, cold": Target("apart", {"pymongoarrow": 3}, {"floor": 1.25}),
        "30,240 candles to NumPy, cold, packed": Target("apart", {"pymongoarrow": 30}),
        "30,240 candles to NumPy, blocks warm": Target("apart", {"pymongoarrow": 10_000}),
        "1,000 candles to dicts, cold": Target("apart", {"pymongo": 1.7}),
        "1,000 candles to dicts, blocks warm": Target("apart", {"pymongo": 10}),
        "import of 30,240 fresh candles": Target("apart", {"pymongo": 1.4}),
        "re-import of the same": Target("apart", {"pymongo": 150}),
        "idle simulated minute, blocks warm": Target("apart", {"plain": 1000}),
        "idle simulated minute, cold": Target("apart", {"plain": 300}),
        "growth of hit p50, 10^3 to 10^6 documents": Target("same", {}, {"floor": 1.1}),
        "client CPU of a single hit": Target("same", {}, {"plain": 0.2}),
        "8 threads of 25 single hits each": Target("same", {"plain": 5}),
        "64 State writes with history": Target("apart", {}, {"without": 1.3}),
        "L1 entry, bytes each of 10^6 contexts": Target("same", {}, {"all kept": 64, "bound of 100,000": 64}),
    }
)

PAYS: Final = ("cold hit, MongoDB near", "cold hit, MongoDB 1 ms away", "cold hit, collection larger than MongoDB's memory")
"""Rows of the second table: what the Redis hop brings, without a target."""

COSTS: Final = (
    "a State write",
    "a State read",
    "1,000 State writes in a batch",
    "1,000 State writes in a batch, history",
    "100 hits, one after the other",
    "1,000 hits",
    "1,000 keys listed",
    "100 windows of 50 candles, blocks warm",
)
"""Rows of the third table: what stores, durability and the async face cost. ``ours`` is MongoDB, in its memory, synchronous."""

DATA: Final = MappingProxyType({**TARGETS, **dict.fromkeys(PAYS, Target("same")), **dict.fromkeys(COSTS, Target("apart"))})
"""All rows of all tables."""


def shortfall(direction: str, target: float, value: float) -> float:
    """Return by what share a target is missed; 0 or less means that it is met."""
    return (target - value if direction == ">=" else value - target) / target
