from typing import Any

import numpy as np
import numpy.typing as npt

def decode_candles(batches: list[Any], target: npt.NDArray[np.int8], since: int, step: int, limit: int) -> int: ...
def numbers(batches: list[Any], name: str) -> list[float]: ...
