"""Build the manual in a process that cannot reach the network."""

from __future__ import annotations

import socket
import sys


def build():
    """Run MkDocs with the arguments of the command line."""

    def refused(self, address):
        raise AssertionError(f"the build of the manual connects to {address}")

    socket.socket.connect = refused
    from mkdocs.__main__ import cli

    sys.exit(cli.main(sys.argv[1:], standalone_mode=False))
