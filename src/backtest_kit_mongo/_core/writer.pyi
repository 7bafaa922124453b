from collections.abc import Callable
from typing import Any

def encode(document: dict[str, Any], fallback: Callable[[Any], Any]) -> bytes: ...
