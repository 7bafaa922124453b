"""A proxy in front of MongoDB or Redis that delays, cuts, repeats and garbles replies. Two parts:

- ``relay`` and ``delayed`` pass bytes on with a delay, without parsing them, in a separate process that takes no time from the measured
  one::

      python tests/helpers/proxy.py TARGET LISTEN --delay-ms 1

- ``Proxy`` runs threads in this process. It parses requests and replies, and applies faults to the next ones of a command.

An address (``place``) is the path of a Unix socket or ``host:port``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

CHUNK = 1 << 18
HELD = 1 << 26  # bytes of one direction that may be in flight; above that, reading pauses
HEADER = 16  # of an OP_MSG: length, requestID, responseTo, opcode


def connected(place):
    """Return a socket connected to ``place``."""
    if place.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(place)
        return connection
    host, _, port = place.rpartition(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def listening(place):
    """Return a socket that listens at ``place``."""
    if place.startswith("/"):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place)
    else:
        host, _, port = place.rpartition(":")
        listener = socket.create_server((host, int(port)))
    listener.listen(128)
    return listener


def accepted(listener):
    """Accept the next connection."""
    connection = listener.accept()[0]
    if connection.family == socket.AF_INET:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


# --- delay only ---


class Way:
    """One direction of a connection; received bytes wait here until they are due."""

    def __init__(self, source, sink, delay):
        self.source, self.sink, self.delay = source, sink, delay
        self.queue = collections.deque()
        self.held = 0
        self.open = True  # the source may send more
        self.done = False  # everything was passed on

    def read(self):
        data = self.source.recv(CHUNK)
        self.open = bool(data)
        self.held += len(data)
        self.queue.append((time.monotonic() + self.delay, memoryview(data)))

    def write(self):
        due, data = self.queue[0]
        if not data:
            self.done = True
            self.queue.clear()
            self.sink.shutdown(socket.SHUT_WR)
            return
        sent = self.sink.send(data)
        self.held -= sent
        if sent == len(data):
            self.queue.popleft()
        else:
            self.queue[0] = (due, data[sent:])


def relay(listener, target, delay):
    """Pass bytes on forever, each reply ``delay`` seconds after it arrived.

    The delay is that of a round trip: requests pass at once. It adds latency only: all bytes in flight wait at the same time and keep their
    order, so the throughput of pipelined requests and of many connections is unchanged. ``select`` waits with microsecond precision; epoll
    does not.
    """
    ways = {}  # both directions of a connection, by each of its sockets
    while True:
        now = time.monotonic()
        reading, writing, wait = [listener], [], None
        for source, (way, _) in ways.items():
            if way.open and way.held < HELD:
                reading.append(source)
            if way.queue:
                left = way.queue[0][0] - now
                if left <= 0:
                    writing.append(way.sink)
                elif wait is None or left < wait:
                    wait = left
        readable, writable, _ = select.select(reading, writing, [], wait)
        for ready, action in ((readable, Way.read), (writable, Way.write)):
            for one in ready:
                if one is listener:
                    client = accepted(listener)
                    try:
                        server = connected(target)
                    except OSError:
                        client.close()
                        continue
                    client.setblocking(False)
                    server.setblocking(False)
                    there, back = Way(client, server, 0), Way(server, client, delay)
                    ways[client], ways[server] = (there, back), (back, there)
                    continue
                if one not in ways:
                    continue  # closed earlier in this round
                way, other = ways[one]
                try:
                    action(way if action is Way.read else other)
                    ended = way.done and other.done
                except BlockingIOError:
                    continue
                except OSError:
                    ended = True
                if ended:
                    for end in (way.source, way.sink):
                        del ways[end]
                        end.close()


@contextlib.contextmanager
def delayed(target, listen, delay):
    """Run ``relay`` in a process, ``delay`` in seconds; yield ``listen`` when it is ready."""
    command = [sys.executable, __file__, target, listen, "--delay-ms", str(delay * 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield listen
        finally:
            process.kill()


# --- faults ---


class Fault(NamedTuple):
    """What happens to one request and its reply."""

    answer: Callable[[bytes, bytes], Iterable[bytes | float | None]]
    """From the reply and the last good one of the same command: bytes to send, seconds to wait, None to cut the connection."""
    reaches: bool = True
    """Whether the server sees the request; else the connection is cut before."""


LOST = Fault(lambda reply, earlier: (), reaches=False)
STALL = Fault(lambda reply, earlier: ())
TWICE = Fault(lambda reply, earlier: (reply, reply))
REPLAY = Fault(lambda reply, earlier: (earlier,))
DRIP = Fault(lambda reply, earlier: (reply[place : place + 1] for place in range(len(reply))))


def cut(place):
    """Send the first ``place`` bytes of the reply, then cut the connection."""
    return Fault(lambda reply, earlier: (reply[:place], None))


def late(seconds):
    """Send the reply ``seconds`` later."""
    return Fault(lambda reply, earlier: (seconds, reply))


def garbled(place, flip):
    """Send the reply with the bits of ``flip`` inverted in the byte at ``place``, if it is that long."""
    return Fault(lambda reply, earlier: (bytes((byte ^ flip) if index == place else byte for index, byte in enumerate(reply)),))


def read_mongo(stream):
    """Read one message; return its bytes, requestID, responseTo and its command in lower case, or None at the end."""
    message = stream.read(HEADER)
    if len(message) < HEADER:
        return None
    length, number, answers, opcode = struct.unpack("<iiii", message)
    message += stream.read(length - HEADER)
    if len(message) < length:
        return None
    name = message[26 : message.index(b"\0", 26)] if opcode == 2013 and length > 26 else b""  # flags, kind, length and type come before it
    return message, number, answers, name.decode(errors="replace").lower()


def read_redis(stream):
    """Read one command or reply; return its bytes, two zeros (RESP has no ids) and its command in lower case, or None at the end."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        return None
    message, name = line, ""
    if line[:1] == b"$" and (size := int(line[1:])) >= 0:
        message += stream.read(size + 2)
        if len(message) < len(line) + size + 2:
            return None
        name = message[len(line) : -2].decode(errors="replace").lower()
    if line[:1] == b"*":
        for index in range(int(line[1:])):
            part = read_redis(stream)
            if part is None:
                return None
            message += part[0]
            name = name if index else part[3]
    return message, 0, 0, name


class Proxy:
    """Listens at ``listen`` and passes messages on to ``target``; armed commands meet their fault, all others pass.

    ``kind`` is "mongo" or "redis". Commands are named in lower case. Compressed or encrypted messages have no command and pass.
    """

    def __init__(self, target, listen, kind):
        self.target, self.place = target, listen
        self._read = {"mongo": read_mongo, "redis": read_redis}[kind]
        self._armed = collections.defaultdict(collections.deque)
        self._lock = threading.Lock()
        self._open = set()
        self._closing = threading.Event()
        self.choose = None
        """Instead of ``arm``: from a command to its fault or None, asked for each request."""
        self.met = collections.Counter()
        """How many requests of each command met a fault."""
        self.seen = collections.Counter()
        """How many requests of each command came."""
        self.connections = 0
        """How many connections were made."""
        self.good = {}
        """The last reply of each command that met none."""
        self._listener = listening(listen)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def arm(self, command, fault, times=1):
        """Apply ``fault`` to the next ``times`` requests of ``command``."""
        with self._lock:
            self._armed[command].extend([fault] * times)

    def calm(self):
        """Let all requests pass from now on."""
        with self._lock:
            self._armed.clear()
            self.choose = None

    def close(self):
        """Cut all connections and accept no more."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        with self._lock:
            left = list(self._open)
        for thread, ends in left:
            _cut(ends)
            thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _accept(self):
        while True:
            try:
                client = accepted(self._listener)
            except OSError:
                return
            try:
                server = connected(self.target)
            except OSError:
                client.close()
                continue
            thread = threading.Thread(target=self._serve, args=(client, server), daemon=True)
            with self._lock:
                self.connections += 1
                self._open.add((thread, (client, server)))
            thread.start()

    def _fault(self, command):
        with self._lock:
            self.seen[command] += 1
            choose, armed = self.choose, self._armed[command]
            fault = choose(command) if choose is not None else armed.popleft() if armed else None
            if fault is not None:
                self.met[command] += 1
            return fault

    def _serve(self, client, server):
        """Pass on the requests of one connection; a second thread passes on its replies."""
        pending = collections.deque()
        replies = threading.Thread(target=self._replies, args=(client, server, pending), daemon=True)
        replies.start()
        with contextlib.suppress(OSError), client.makefile("rb") as stream:
            while (request := self._read(stream)) is not None:
                message, number, _, command = request
                fault = self._fault(command)
                if fault is not None and not fault.reaches:
                    break
                pending.append((number, command, fault))
                server.sendall(message)
        _cut((client, server))
        replies.join()
        for end in (client, server):
            end.close()
        with self._lock:
            self._open.discard((threading.current_thread(), (client, server)))

    def _replies(self, client, server, pending):
        with contextlib.suppress(OSError), server.makefile("rb") as stream:
            while (reply := self._read(stream)) is not None:
                message, _, answers, _ = reply
                # Both servers reply in the order of the requests; only a streaming hello sends replies without a request.
                number, command, fault = pending[0] if pending else (None, "", None)
                if number == answers:
                    pending.popleft()
                else:
                    command, fault = "", None
                if fault is None:
                    self.good[command] = message
                    client.sendall(message)
                    continue
                for part in fault.answer(message, self.good.get(command, b"")):
                    if part is None:
                        _cut((client, server))
                        return
                    if isinstance(part, float):
                        self._closing.wait(part)
                    else:
                        client.sendall(part)
        _cut((client, server))


def _cut(ends):
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def main():
    parser = argparse.ArgumentParser(description="Hand bytes on with a delay of each reply; a place is a socket path or host:port.")
    parser.add_argument("target", help="where the server is")
    parser.add_argument("listen", help="where to listen")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="added to each round trip, in ms")
    given = parser.parse_args()
    with listening(given.listen) as listener:
        threading.Thread(target=relay, args=(listener, given.target, given.delay_ms / 1000), daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()  # the parent holds the other end; end of file means that it is gone


if __name__ == "__main__":
    main()
