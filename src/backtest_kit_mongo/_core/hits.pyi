from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

from .bson import RecordReader
from .counters import Counters
from .ids import IdTable
from .wire import MongoLinks

R = TypeVar("R", bound=tuple[Any, ...])

@final
class Hits(Generic[R]):
    def __init__(
        self,
        ids: IdTable,
        reader: RecordReader[R],
        counters: Counters,
        names: tuple[str, ...],
        kinds: tuple[type, ...],
        counts: tuple[int, int, int, int],
        translated: Callable[[Any], Exception],
    ) -> None: ...
    connected: bool
    def connect(self, links: MongoLinks, head: bytes, tail: bytes) -> None: ...
    def disconnect(self) -> None: ...
    def __call__(self, key: tuple[Any, ...]) -> R | None: ...
