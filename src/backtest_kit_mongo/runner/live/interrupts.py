"""Ctrl+C and SIGTERM: the first lets a run finish its current minute, the second does not wait for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from ...errors import InvalidValueError
from ...logs import log

__all__ = ["stopping"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """Inside the block, let the first SIGINT or SIGTERM set ``stop`` and log that; the second raises KeyboardInterrupt.

    The previous handlers are restored at the end of the block and at the second signal, so a third signal goes to them. Python handles
    signals only in the main thread: raises InvalidValueError in any other.
    """
    if threading.current_thread() is not threading.main_thread():
        raise InvalidValueError(
            "signals can be handled only in the main thread", hint="set the stop event of the run from this thread instead"
        )
    reader, writer = os.pipe()
    asked = False

    def watch() -> None:
        if os.read(reader, 1):
            stop.set()
            log("warning", "finishing the minute; press Ctrl+C again to stop at once")

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            restore()
            raise KeyboardInterrupt
        asked = True
        # A handler may interrupt the main thread while it holds the lock of the event or of the log. A pipe has no lock.
        os.write(writer, b"s")

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    watcher = threading.Thread(target=watch, name="stopping", daemon=True)
    watcher.start()
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    try:
        for number in _SIGNALS:
            signal.signal(number, handle)
        yield
    finally:
        restore()
        os.close(writer)
        watcher.join()
        os.close(reader)
