from collections.abc import Callable
from typing import Any, final

from .bson import RecordReader
from .counters import Counters
from .ids import IdTable
from .wire import MongoLinks

@final
class Hits:
    def __init__(
        self,
        ids: IdTable,
        reader: RecordReader,
        counters: Counters,
        names: tuple[str, ...],
        kinds: tuple[type, ...],
        counts: tuple[int, int, int, int],
        translated: Callable[[Any], Exception],
    ) -> None: ...
    def connect(self, links: MongoLinks | None, head: bytes, tail: bytes) -> None: ...
    def __call__(self, key: tuple[Any, ...]) -> tuple[Any, int | None, bool] | None: ...
