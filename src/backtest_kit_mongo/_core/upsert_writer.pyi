from collections.abc import Callable
from typing import Any, final

from .counters import Counters
from .ids import IdTable
from .op_msg import MongoSocketPool

@final
class UpsertWriter:
    def __init__(
        self,
        domain: Any,
        ids: IdTable,
        counters: Counters,
        counts: tuple[int, int, int, int],
        most: int,
        plain: Callable[[Any], Any],
        was_new: Callable[[], None],
        by_driver: Callable[[tuple[Any, ...], Any, int | None, bool, Any], tuple[bytes | None, bool]],
        translated: Callable[[Any], Exception],
        set_command: Callable[[tuple[Any, ...], bytes], bytes],
        take_connection: Callable[[], Any],
        give_connection_back: Callable[[Any], None],
        redis_timed_out: Callable[[Exception, float], None],
        put_id: Callable[[tuple[Any, ...], bytes], None],
    ) -> None: ...
    connected: bool
    def connect(self, pool: MongoSocketPool, head: bytes, tail: bytes, sessions: Any) -> None: ...
    def disconnect(self) -> None: ...
    def trust_indexes(self, seconds: float) -> None: ...
    def __call__(self, key: tuple[Any, ...], body: Any, when: int | None) -> bool: ...
