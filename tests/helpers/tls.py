"""Servers with TLS, and certificates from an authority of the tests."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from urllib.parse import quote

import trustme
from ports import free_port
from proxy import accepted, connected, listening

from backtest_kit_mongo.servers import MongoServer


class Authority:
    """A certificate authority, with a file of its certificate and a file of a server's certificate and key, for ``localhost`` only."""

    def __init__(self, folder):
        authority = trustme.CA()
        self.file, self.server_file = folder / "ca.pem", folder / "server.pem"
        self._certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(str(self.file))
        self._certificate.private_key_and_cert_chain_pem.write_to_path(str(self.server_file))

    def server_context(self):
        """Return an SSL context for a server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._certificate.configure_cert(context)
        return context


class TlsMongo(MongoServer):
    """A mongod that speaks TLS on a local port. Its Unix socket, which shows that it is ready, needs no TLS."""

    __test__ = False

    def __init__(self, folder, authority):
        super().__init__(folder, port=free_port())
        self._authority = authority

    def _arguments(self):
        files = ("--tlsCertificateKeyFile", str(self._authority.server_file), "--tlsCAFile", str(self._authority.file))
        return [*super()._arguments(), "--tlsMode", "preferTLS", *files, "--tlsAllowConnectionsWithoutCertificates"]

    def tls_uri(self, database, options="", *, port=None):
        """Return a connection string that uses TLS."""
        place = f"localhost:{self.port if port is None else port}"
        return f"mongodb://{place}/{database}?tls=true&tlsCAFile={quote(str(self._authority.file), safe='')}{options}"


class TlsProxy:
    """A TLS listener on a local port in front of a server (``host:port`` or the path of a Unix socket) without TLS.

    ``cut`` ends all its connections; ``hold`` blocks all data until ``release``.
    """

    def __init__(self, target, authority):
        self._target = target
        self._context = authority.server_context()
        self._listener = listening("127.0.0.1:0")
        self.port = self._listener.getsockname()[1]
        self.handshakes = 0
        self._open = set()
        self._free = threading.Event()
        self._free.set()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self):
        """End all connections without a TLS shutdown."""
        for one in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def hold(self):
        """Block all data until ``release``."""
        self._free.clear()

    def release(self):
        """Let everything through again."""
        self._free.set()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                raw = accepted(self._listener)
                threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw):
        with contextlib.suppress(OSError), self._context.wrap_socket(raw, server_side=True) as ours, connected(self._target) as theirs:
            self.handshakes += 1
            self._open |= {ours, theirs}
            back = threading.Thread(target=self._pass, args=(theirs, ours), daemon=True)
            back.start()
            self._pass(ours, theirs)
            back.join()
            self._open -= {ours, theirs}

    def _pass(self, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._free.wait()
                target.sendall(data)
        with contextlib.suppress(OSError):
            socket.socket.shutdown(target, socket.SHUT_RDWR)
