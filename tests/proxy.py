"""A proxy in front of MongoDB or Redis that delays, cuts, repeats and garbles replies. Two parts:

- ``relay`` and ``delayed``: bytes pass with a delay, whatever they mean; an own process, so that it takes no time from the one measured::

      python tests/proxy.py TARGET LISTEN --delay-ms 1

- ``Proxy``: threads in this process that know where a request and a reply begin, and let a fault come over the next ones of a command.

A place is the path of a Unix socket, or ``host:port``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import select
import socket
import subprocess
import sys
import threading
import time

CHUNK = 1 << 18
HELD = 1 << 26  # bytes of one direction that may be under way; no more is read while there are
HEADER = 16  # of an OP_MSG: length, requestID, responseTo, opcode


def connected(place):
    """A socket that is connected to ``place``."""
    if place.startswith("/"):
        found = socket.socket(socket.AF_UNIX)
        found.connect(place)
        return found
    host, _, port = place.rpartition(":")
    found = socket.create_connection((host, int(port)))
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


def listening(place):
    """A socket that accepts connections at ``place``."""
    if place.startswith("/"):
        found = socket.socket(socket.AF_UNIX)
        found.bind(place)
    else:
        host, _, port = place.rpartition(":")
        found = socket.create_server((host, int(port)))
    found.listen(128)
    return found


def accepted(listener):
    """The next connection."""
    found = listener.accept()[0]
    if found.family == socket.AF_INET:
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return found


# --- a delay and nothing else ---


class Way:
    """One direction of a connection: what was read waits here until it is due."""

    def __init__(self, source, sink, delay):
        self.source, self.sink, self.delay = source, sink, delay
        self.queue = collections.deque()
        self.held = 0
        self.open = True  # the source may say more
        self.done = False  # and all of it was handed on

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
    """Hand bytes on for ever, each reply ``delay`` seconds after it came.

    The delay is that of the round trip: requests go through at once. Latency only: everything that is under way waits at the same time,
    in its order, so the throughput of pipelined requests and of many connections stays. ``select`` waits to the microsecond, epoll does not.
    """
    ways = {}  # the two directions of a connection, by each of its sockets
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
                    continue  # closed in this round
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
    """A process that runs ``relay``; ``delay`` in seconds. Ready when this gives ``listen``."""
    command = [sys.executable, __file__, target, listen, "--delay-ms", str(delay * 1000)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield listen
        finally:
            process.kill()


def main():
    parser = argparse.ArgumentParser(description="Hand bytes on with a delay of each reply; a place is a socket path or host:port.")
    parser.add_argument("target", help="where the server is")
    parser.add_argument("listen", help="where to listen")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="added to each round trip, in ms")
    given = parser.parse_args()
    with listening(given.listen) as listener:
        threading.Thread(target=relay, args=(listener, given.target, given.delay_ms / 1000), daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()  # whoever started this holds the other end: end of file says that it is gone


if __name__ == "__main__":
    main()
