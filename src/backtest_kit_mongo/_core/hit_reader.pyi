from collections.abc import Callable
from typing import Any, Final, final

from .bson import RecordReader
from .counters import Counters
from .ids import IdTable
from .op_msg import MongoSocketPool

FALLBACK: Final[Any]
EMPTY: Final[Any]
UNASKED: Final[Any]

def restore_infinity(body: Any, field: str, unless_below: str) -> None: ...
def parse_id(value: object) -> bytes | None: ...
def bodies(records: list[Any], empty: Callable[[], Any], infinite: tuple[str, str] | None) -> list[Any]: ...

@final
class HitReader:
    def __init__(
        self,
        domain: Any,
        ids: IdTable,
        reader: RecordReader[Any],
        counters: Counters,
        counts: tuple[int, int, int, int, int, int],
        get_command: Callable[[tuple[Any, ...]], bytes],
        take_connection: Callable[[], Any],
        give_connection_back: Callable[[Any], None],
        redis_timed_out: Callable[[Exception, float], None],
        translated: Callable[[Any], Exception],
    ) -> None: ...
    connected: bool
    def connect(self, pool: MongoSocketPool, head: bytes, tail: bytes) -> None: ...
    def disconnect(self) -> None: ...
    def take_learned(self, key: tuple[Any, ...]) -> tuple[bytes | None, Any]: ...
    def __call__(self, key: tuple[Any, ...], moment: int | None = None) -> Any: ...
