"""A replica set of real mongods on this machine, with the faults that can hit one: step-down, kill, pause, partition, no replication.

Use it in tests, or to try out what a failover does to your program. The members listen on 127.0.0.1 without access control.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

from pymongo import MongoClient
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from ..errors import ServerStartError
from .processes import POLL, MongoServer

__all__ = ["ReplicaSet"]

_AMONG_MEMBERS = ("replSetHeartbeat", "replSetUpdatePosition", "replSetRequestVotes")
_TRIES = 3  # another process may take a free port before mongod binds it


class _Member(MongoServer):
    """One mongod of a set; ``ReplicaSet`` tells it who the other members are."""

    def _arguments(self) -> list[str]:
        # Allow fail points. Do not wait at shutdown until another member takes over: the others are about to end too.
        parameters = ("enableTestCommands=1", "shutdownTimeoutMillisForSignaledShutdown=100")
        return [*super()._arguments(), *(argument for parameter in parameters for argument in ("--setParameter", parameter))]

    def _answers(self, timeout: float) -> bool:
        try:
            with _client(self.socket, timeout) as client:
                return bool(client.admin.command("ping")["ok"])
        except PyMongoError:
            return False

    @property
    def address(self) -> str:
        """Host and port at which drivers and the other members reach it."""
        return f"127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def admin(self, timeout: float = 10) -> Iterator[Any]:
        """Open the database ``admin`` of this member itself, over its Unix socket."""
        with _client(self.socket, timeout) as client:
            yield client.admin


def _client(path: str, timeout: float) -> MongoClient[dict[str, Any]]:
    limits: dict[str, Any] = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), int(timeout * 1000))
    return MongoClient(f"mongodb://{quote(path, safe='')}", directConnection=True, **limits)


class ReplicaSet:
    """Mongods, three by default, with one primary; ready when ``start`` returns, gone when this process ends."""

    def __init__(self, data_dir: Path, *, name: str = "rs", size: int = 3, election_timeout: float = 1.0, cache_gb: float = 0.25) -> None:
        """``election_timeout``: seconds without a primary until the others elect one (MongoDB defaults to 10)."""
        self.data_dir: Path = Path(data_dir)
        self.name = name
        self.election_timeout = election_timeout
        self._cache_gb = cache_gb
        self._size = size
        self.members: list[_Member] = []

    def start(self, timeout: float = 120) -> Self:
        """Start all members, those that were killed too, and return when one is primary and the others follow it.

        Raises ServerStartError if that takes longer than ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        if any(member.alive for member in self.members):
            for member in self.members:
                member.start(deadline - time.monotonic())
            self.await_settled(deadline - time.monotonic())
            return self
        for attempt in range(_TRIES):
            self.members = [
                _Member(self.data_dir / f"member{number}", cache_gb=self._cache_gb, replica_set=self.name, port=port)
                for number, port in enumerate(_free_ports(self._size))
            ]
            try:
                for member in self.members:
                    member.launch(deadline)
                for member in self.members:
                    member.await_ready(deadline)
                break
            except ServerStartError as error:
                self.stop()
                if attempt == _TRIES - 1 or "in use" not in str(error):
                    raise
            except BaseException:
                self.stop()
                raise
        try:
            self._initiate()
            self.await_settled(deadline - time.monotonic())
        except BaseException:
            self.stop()
            raise
        return self

    def _initiate(self) -> None:
        settings = {"electionTimeoutMillis": int(self.election_timeout * 1000), "heartbeatIntervalMillis": 200}
        hosts = [{"_id": number, "host": member.address} for number, member in enumerate(self.members)]
        with self.members[0].admin() as admin:
            config = admin.client["local"]["system.replset"].find_one()
            if config is None:
                admin.command("replSetInitiate", {"_id": self.name, "members": hosts, "settings": settings})
            else:  # the folder has an earlier set, which may have had other ports
                admin.command("replSetReconfig", {**config, "members": hosts, "version": config["version"] + 1}, force=True)

    def await_settled(self, timeout: float = 120) -> None:
        """Wait until the running members are one primary and its secondaries. Raises ServerStartError after ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while True:
            states = [self._state(member) for member in self.members if member.alive]
            if states.count("primary") == 1 and set(states) <= {"primary", "secondary"}:
                return
            if time.monotonic() > deadline:
                raise ServerStartError(f"the replica set {self.name} was not ready in time: its members are {', '.join(states)}")
            time.sleep(POLL)

    @staticmethod
    def _state(member: _Member) -> str:
        try:
            with member.admin(2) as admin:
                hello = admin.command("hello")
        except PyMongoError:
            return "silent"
        return "primary" if hello["isWritablePrimary"] else "secondary" if hello.get("secondary") else "neither"

    def uri(self, database: str = "backtest-kit", **options: Any) -> str:
        """Return the connection string of a database on this set; ``options`` become its query parameters."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/{quote(database, safe='')}?{urlencode({'replicaSet': self.name, **options})}"

    def await_primary(self, timeout: float = 120, *, other_than: MongoServer | None = None) -> _Member:
        """Wait for a primary and return it. ``other_than`` is a former primary, which may still report that it is one.

        Raises ServerStartError after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            for member in self.members:
                if member is not other_than and member.alive and self._state(member) == "primary":
                    return member
            if time.monotonic() > deadline:
                raise ServerStartError(f"the replica set {self.name} elected no primary in time")
            time.sleep(POLL)

    @property
    def primary(self) -> _Member:
        """The member that is primary; waits until there is one."""
        return self.await_primary()

    def step_down(self) -> _Member:
        """Make the primary step down, and return the member that is elected instead."""
        former = self.primary
        with former.admin() as admin, contextlib.suppress(AutoReconnect):
            admin.command("replSetStepDown", 60, secondaryCatchUpPeriodSecs=10, force=False)
        elected = self.await_primary(other_than=former)
        with former.admin() as admin, contextlib.suppress(PyMongoError):
            admin.command("replSetFreeze", 0)  # it may be elected again
        return elected

    def kill_primary(self) -> _Member:
        """Kill the primary as a crash would, and return it. Its ``start`` brings it back."""
        former = self.primary
        former.kill()
        return former

    def stop_replication(self) -> None:
        """Stop the secondaries from replicating until ``restart_replication``; elections still work."""
        self._fail_point("stopReplProducer", "alwaysOn")

    def restart_replication(self) -> None:
        """Make the secondaries replicate again."""
        self._fail_point("stopReplProducer", "off")

    def _fail_point(self, name: str, mode: str, **data: Any) -> None:
        for member in self.members:
            if member.alive:
                with member.admin() as admin:
                    admin.command({"configureFailPoint": name, "mode": mode, **({"data": data} if data else {})})

    @contextlib.contextmanager
    def partition(self) -> Iterator[tuple[MongoServer, MongoServer]]:
        """Cut the primary off from the others, but not from its clients, and have the others elect a new one.

        Yields (former primary, new primary). For the election timeout of the set, the former primary still believes that it is primary
        and answers reads. It follows the new primary when the partition ends.
        """
        former = self.primary
        others = [member for member in self.members if member is not former and member.alive]
        failure = {"failInternalCommands": True, "closeConnection": True, "failCommands": list(_AMONG_MEMBERS)}
        with former.admin() as admin:
            self.stop_replication()
            try:
                admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": failure})
                admin.command({"configureFailPoint": "networkInterfaceDiscardCommandsBeforeAcquireConn", "mode": "alwaysOn"})
                self._elect(others)
                elected = self.await_primary(other_than=former)
                self.restart_replication()
                yield former, elected
            finally:
                self.restart_replication()
                for name in ("failCommand", "networkInterfaceDiscardCommandsBeforeAcquireConn"):
                    admin.command({"configureFailPoint": name, "mode": "off"})

    @staticmethod
    def _elect(members: Sequence[_Member]) -> None:
        """Make one of ``members`` primary. It must have all writes that the others have; only the members know which one has: try each."""
        for number, member in enumerate(members, 1):
            try:
                with member.admin() as admin:
                    admin.command("replSetStepUp")
                return
            except OperationFailure:
                if number == len(members):
                    raise

    def stop(self) -> None:
        """Stop all members."""
        for member in self.members:
            member.terminate()
        for member in self.members:
            member.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.members}>"


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        ports = [listener.getsockname()[1] for listener in sockets]
    random.shuffle(ports)
    return ports
