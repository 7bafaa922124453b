# Generated from config.py by tools/generate_contracts.py (make generate). Do not edit.
"""The settings as ``setup`` and ``set_config`` take them, for type checkers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Literal, TypedDict

from .contract_names import DomainName
from .mode_defaults import Kind, LookAhead

__all__ = ["Settings"]


class Settings(TypedDict, total=False):
    """Settings by name, for ``setup`` and ``set_config``; ``Config`` describes them."""

    CC_MONGO_CONNECTION_STRING: str | PathLike[str] | None
    CC_REDIS_HOST: str | PathLike[str] | None
    CC_REDIS_PORT: int | str | None
    CC_REDIS_USER: str | PathLike[str] | None
    CC_REDIS_PASSWORD: str | PathLike[str] | None
    CC_REDIS_URL: str | PathLike[str] | None
    CC_REDIS_DB: int | str | None
    CC_REDIS_TLS: bool | Literal[0, 1] | str | None
    CC_REDIS_SENTINEL: str | PathLike[str] | None
    CC_REDIS_CLUSTER: bool | Literal[0, 1] | str | None
    CC_REDIS_PREFIX: str | PathLike[str] | None
    CC_REDIS_TIMEOUT_MS: int | str | None
    CC_REDIS_IDS: Literal["keyed", "all"] | Literal[""] | None
    CC_MODE: Literal["", "backtest", "live", "paper"] | Literal[""] | None
    CC_PAPER_DATABASE: str | PathLike[str] | None
    CC_STORES: Mapping[DomainName, Kind] | str | None
    CC_DURABILITY: Literal["journal", "memory"] | Literal[""] | None
    CC_LOOK_AHEAD: LookAhead | Literal[""] | None
    CC_HISTORY: Iterable[DomainName] | str | None
    CC_HISTORY_LIMIT: int | str | None
    CC_HISTORY_DAYS: int | str | None
    CC_DUMP_DIR: str | PathLike[str] | None
    CC_LOG_ROTATE_MB: int | str | None
    CC_PROCESS_IDS: int | str | None
    CC_CANDLE_MEMORY_MB: int | str | None
    CC_CANDLE_FORMAT: Literal["items", "packed"] | Literal[""] | None
    CC_WIRE_LANE: bool | Literal[0, 1] | str | None
    CC_TICK_SECONDS: float | str | None
    CC_SCHEDULE_AWAIT_MINUTES: float | str | None
    CC_EMBEDDED: bool | Literal[0, 1] | str | None
    CC_EMBEDDED_DIR: str | PathLike[str] | None
