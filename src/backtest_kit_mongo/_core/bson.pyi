from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

def encode(document: dict[str, Any], fallback: Callable[[Any], Any]) -> bytes: ...
def decode_candles(batches: list[bytes], target: npt.NDArray[np.int8], since: int, step: int, limit: int) -> int: ...
