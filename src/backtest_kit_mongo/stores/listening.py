"""Whether anything listens where MongoDB is looked for, asked before the first call to a server of this machine."""

from __future__ import annotations

import socket
import time
from typing import Final
from urllib.parse import parse_qsl

from pymongo.uri_parser import parse_uri

from ..errors import OWN_SERVERS, ServerUnavailableError

__all__ = ["check_listening"]

_HERE: Final = ("localhost", "127.0.0.1", "::1")
PATIENCE: Final = 2.0
"""For how many seconds a refusal may be that of a server which is being started."""


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


def _refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    except OSError:  # whatever that is, pymongo says it better
        return False
    return False
