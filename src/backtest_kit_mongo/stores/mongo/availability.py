"""Servers that may not be there: a look at the ports of this machine before the first call, and what is said in a long wait."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import parse_qsl

from pymongo.uri_parser import parse_uri

from ...config import Config, redacted
from ...errors import OWN_SERVERS, ServerUnavailableError
from ...logs import log
from ...redis_address import redis_address

__all__ = ["check_listening", "saying_what_is_waited_for"]

_HERE: Final = ("localhost", "127.0.0.1", "::1")
PATIENCE: Final = 2.0
"""Seconds after which nobody is expected to be starting a server just now: a refusal counts, and a wait says what it waits for."""


def check_listening(uri: str) -> None:
    """ServerUnavailableError within two seconds if ``uri`` names ports of this machine only, and all of them refuse connections.

    pymongo would try again for the whole of its server selection time-out. Where the string names that time-out it is obeyed.
    """
    if uri.startswith("mongodb+srv://"):
        return
    given = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    places = parse_uri(uri, warn=False)["nodelist"]
    if given & {"serverselectiontimeoutms", "timeoutms"} or not all(host in _HERE and port for host, port in places):
        return
    deadline = time.monotonic() + PATIENCE
    while all(_refused(host, port) for host, port in places):
        if time.monotonic() > deadline:
            shown = ", ".join(f"{host}:{port}" for host, port in places)
            raise ServerUnavailableError(
                f"MongoDB does not answer: nothing listens on {shown}",
                hint=f"is it running? wait_for_init() waits for a server that is being started; {OWN_SERVERS}",
            )
        time.sleep(0.1)


@contextmanager
def saying_what_is_waited_for(config: Config, timeout: float) -> Iterator[dict[str, str]]:
    """Log a warning if the block takes long: servers may be starting, or nobody may have started any.

    Gives the places that are waited for, by server; the block takes out those that have answered.
    """
    places = {"MongoDB": redacted(config.CC_MONGO_CONNECTION_STRING), "Redis": str(redis_address(config))}

    def say() -> None:
        silent = " and ".join(f"{name} at {place}" for name, place in list(places.items()))
        log("warning", f"waiting up to {timeout:.0f} s for {silent}" + ("" if config.CC_EMBEDDED else f"; {OWN_SERVERS}"))

    timer = threading.Timer(PATIENCE, say)
    timer.daemon = True
    if timeout > PATIENCE:
        timer.start()
    try:
        yield places
    finally:
        timer.cancel()


def _refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # whatever that is, pymongo says it better
        return False
    return False
