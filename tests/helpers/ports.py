"""Free ports of this machine."""

from __future__ import annotations

import contextlib
import socket


def free_port(beside: int = 0) -> int:
    """Return a free TCP port; with ``beside``, ``port + beside`` is free as well."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        if not beside:
            return port
        with contextlib.suppress(OSError, OverflowError), socket.create_server(("127.0.0.1", port + beside)):
            return port
