"""Servers that may not be running: check local ports before the first call, and log a warning during a long wait."""

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
"""Seconds to allow for a server that is just being started. After that, a refused connection is an error, and a wait logs a warning."""


def check_listening(uri: str) -> None:
    """Raise ServerUnavailableError after two seconds if ``uri`` names only ports of this machine and all of them refuse connections.

    pymongo would keep trying until its server selection timeout. If ``uri`` sets that timeout (or timeoutMS), this checks nothing.
    """
    if uri.startswith("mongodb+srv://"):
        return
    options = {name.lower() for name, _ in parse_qsl(uri.partition("?")[2], keep_blank_values=True)}
    addresses = parse_uri(uri, warn=False)["nodelist"]
    if options & {"serverselectiontimeoutms", "timeoutms"} or not all(host in _HERE and port for host, port in addresses):
        return
    deadline = time.monotonic() + PATIENCE
    while all(_refused(host, port) for host, port in addresses):
        if time.monotonic() > deadline:
            names = ", ".join(f"{host}:{port}" for host, port in addresses)
            raise ServerUnavailableError(
                f"MongoDB does not answer: nothing is listening on {names}",
                hint=f"is it running? wait_for_init() waits for a server that is still starting; {OWN_SERVERS}",
            )
        time.sleep(0.1)


@contextmanager
def saying_what_is_waited_for(config: Config, timeout: float) -> Iterator[dict[str, str]]:
    """Log a warning if the block takes long: the servers may be starting, or nobody may have started them.

    Yields the addresses of the servers by name. The block removes each server that has answered; the warning names the others.
    """
    addresses = {"MongoDB": redacted(config.CC_MONGO_CONNECTION_STRING), "Redis": str(redis_address(config))}

    def say() -> None:
        servers = " and ".join(f"{name} at {address}" for name, address in list(addresses.items()))
        log("warning", f"waiting up to {timeout:.0f} s for {servers}" + ("" if config.CC_EMBEDDED else f"; {OWN_SERVERS}"))

    timer = threading.Timer(PATIENCE, say)
    timer.daemon = True
    if timeout > PATIENCE:
        timer.start()
    try:
        yield addresses
    finally:
        timer.cancel()


def _refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # pymongo reports any other error better
        return False
    return False
