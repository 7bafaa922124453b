"""Memory: what a strategy learned while a signal was open, to read and to search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from ...arguments import text, whole_number
from ...errors import InvalidTypeError
from ..registrations import check_name
from .run_scope import is_known, signal_of, stamp, this_run, wall_ms
from .text_search import scores

__all__ = ["Memory", "Remembered"]


class Remembered(msgspec.Struct, frozen=True):
    """One memory."""

    memory_id: str
    """Its id in the bucket."""
    content: dict[str, Any]
    """What was stored."""
    description: str
    """The text that ``search`` looks at."""
    when_ms: int
    """The simulation time of the write, in ms."""
    score: float | None = None
    """Its score in a search (BM25, above 0); None from ``list``."""


Memories: TypeAlias = list[Remembered]


class Memory:
    """The memories of the current signal in one bucket of the Memory contract.

    Memories of a later time, and in a backtest those of an earlier run, are hidden: you cannot read them, and they do not count in
    the statistics of a search. Every method raises OutsideRunError without a run and, without ``signal_id``, NoSignalError without a
    position or scheduled signal.

    Args:
        bucket: the name of the bucket
        signal_id: another signal; None is the current one

    Raises:
        InvalidTypeError: an argument has the wrong type

    Examples:
        >>> from backtest_kit_mongo import runner
        >>> report = runner.import_candles(runner.synthetic_market(7, 90, 1704067200000), "BTCUSDT")
        >>> notes = runner.Memory("notes")
        >>> def opened(event):
        ...     notes.write("entry", {"price": event.price}, "bought at the support line")
        ...     print([found.memory_id for found in notes.search("support", min_score=0)])
        >>> signal = {"position": "long", "priceTakeProfit": 1e6, "priceStopLoss": 1.0, "minuteEstimatedTime": 60}
        >>> asked = runner.add_strategy("buys", "1h", get_signal=lambda *_: signal, on_open=opened)
        >>> result = runner.run_backtest("BTCUSDT")
        ['entry']
    """

    def __init__(self, bucket: str, *, signal_id: str | None = None) -> None:
        bucket = check_name("bucket", bucket)
        self._bucket = bucket
        self._signal_id = signal_id

    def write(self, memory_id: str, content: Mapping[str, Any], description: str) -> None:
        """Store or replace a memory.

        Args:
            memory_id: its id in the bucket
            content: the value: a mapping that can be stored
            description: the text that ``search`` looks at

        Raises:
            InvalidTypeError: an argument has the wrong type; nothing is written then
            InvalidValueError: ``content`` has a value that cannot be stored; nothing is written then
        """
        if not isinstance(content, Mapping):
            raise InvalidTypeError(f"Memory.write: content must be a dict, got {type(content).__name__}")
        if not isinstance(description, str):
            raise InvalidTypeError(f"Memory.write: description must be a str, got {type(description).__name__}")
        run, now = this_run("Memory.write")
        signal_id = signal_of("Memory.write", run, self._signal_id)
        row = {"priority": wall_ms(), "data": content, "removed": False, "index": description, "when": now, **stamp(run)}
        run.registry.PersistMemoryAdapter.write_memory_data(row, signal_id, self._bucket, memory_id, now)

    def read(self, memory_id: str) -> dict[str, Any] | None:
        """Return the content of the memory ``memory_id``, or None if it does not exist."""
        run, now = this_run("Memory.read")
        signal_id = signal_of("Memory.read", run, self._signal_id)
        row = run.registry.PersistMemoryAdapter.read_memory_data(signal_id, self._bucket, memory_id)
        return row["data"] if row is not None and is_known(row, "when", run, now) else None

    def has(self, memory_id: str) -> bool:
        """Return whether the memory ``memory_id`` exists."""
        return self.read(memory_id) is not None

    def remove(self, memory_id: str) -> None:
        """Remove the memory ``memory_id``; do nothing if it does not exist."""
        run, _ = this_run("Memory.remove")
        signal_id = signal_of("Memory.remove", run, self._signal_id)
        run.registry.PersistMemoryAdapter.remove_memory_data(signal_id, self._bucket, memory_id)

    def list(self) -> Memories:
        """Return all memories, oldest first; those of the same time are in order of their ids."""
        run, now = this_run("Memory.list")
        signal_id = signal_of("Memory.list", run, self._signal_id)
        memories = (
            Remembered(record["memoryId"], row["data"], row["index"], int(row["when"]))
            for record in run.registry.PersistMemoryAdapter.list_memory_data(signal_id, self._bucket)
            if is_known(row := record["data"], "when", run, now)
        )
        return sorted(memories, key=lambda memory: (memory.when_ms, memory.memory_id))

    def search(self, query: str, *, limit: int | None = 10, min_score: float = 0.5) -> Memories:
        """Return the memories that match a query best, best first and newer before older at the same score.

        The score is Okapi BM25 over the descriptions (k1 1.5, b 0.75). A word that occurs in most of a few memories has little weight, so
        a match of one word among one or two memories may score below 0.5: ``min_score=0`` includes it.

        Args:
            query: the words to look for
            limit: the most memories to return; None means all
            min_score: the lowest score to return

        Raises:
            InvalidTypeError: an argument has the wrong type
            InvalidValueError: ``limit`` is negative
        """
        query = text("Memory.search: query", query)
        if limit is not None:
            limit = whole_number("Memory.search: limit", limit, least=0)
        memories = self.list()
        marks = scores(query, [memory.description for memory in memories])
        matches = [
            msgspec.structs.replace(memory, score=mark)
            for memory, mark in zip(memories, marks, strict=True)
            if mark > 0 and mark >= min_score
        ]
        matches.reverse()
        matches.sort(key=lambda memory: -(memory.score or 0.0))
        return matches[:limit]
