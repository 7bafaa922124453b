"""A replica set of real mongods on this machine, and what can happen to one: a step-down, a kill, a pause, a partition, no replication.

For tests and for trying out what a fail-over does to one's own program. The members listen on 127.0.0.1 without access control.
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
_TRIES = 3  # a port that was free may be taken before mongod binds it


class _Member(MongoServer):
    """One mongod of a set, told by the set who belongs to it."""

    def _arguments(self) -> list[str]:
        # Fail points; and no wait for others to take over, who are about to end as well.
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
        """Where the other members and drivers find it."""
        return f"127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def admin(self, timeout: float = 10) -> Iterator[Any]:
        """The database ``admin`` of this very member, over its Unix socket."""
        with _client(self.socket, timeout) as client:
            yield client.admin


def _client(path: str, timeout: float) -> MongoClient[dict[str, Any]]:
    limits: dict[str, Any] = dict.fromkeys(("serverSelectionTimeoutMS", "connectTimeoutMS", "socketTimeoutMS"), int(timeout * 1000))
    return MongoClient(f"mongodb://{quote(path, safe='')}", directConnection=True, **limits)


class ReplicaSet:
    """Three mongods with one primary; ready when ``start`` returns, gone when this process is."""

    def __init__(self, data_dir: Path, *, name: str = "rs", size: int = 3, election_timeout: float = 1.0, cache_gb: float = 0.25) -> None:
        """``election_timeout``: seconds without a primary until the others elect one (MongoDB's own default is 10)."""
        self.data_dir = Path(data_dir)
        self.name = name
        self.election_timeout = election_timeout
        self._cache_gb = cache_gb
        self._size = size
        self.members: list[_Member] = []

    def start(self, timeout: float = 120) -> Self:
        """Start all members and return when one is primary and the others follow it; members that were killed are started again."""
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
            found = admin.client["local"]["system.replset"].find_one()
            if found is None:
                admin.command("replSetInitiate", {"_id": self.name, "members": hosts, "settings": settings})
            else:  # an earlier set in this folder; its ports may be others by now
                admin.command("replSetReconfig", {**found, "members": hosts, "version": found["version"] + 1}, force=True)

    def await_settled(self, timeout: float = 120) -> None:
        """Return when the members that run are one primary and its secondaries."""
        deadline = time.monotonic() + timeout
        while True:
            states = [self._state(member) for member in self.members if member.alive]
            if states.count("primary") == 1 and set(states) <= {"primary", "secondary"}:
                return
            if time.monotonic() > deadline:
                raise ServerStartError(f"the replica set {self.name} did not settle in time: its members are {', '.join(states)}")
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
        """The connection string of a database on this set."""
        hosts = ",".join(member.address for member in self.members)
        return f"mongodb://{hosts}/{quote(database, safe='')}?{urlencode({'replicaSet': self.name, **options})}"

    def await_primary(self, timeout: float = 120, *, other_than: MongoServer | None = None) -> _Member:
        """The member that is primary, as soon as there is one; ``other_than``: a former one that may not know yet that it is not."""
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
        """The member that is primary."""
        return self.await_primary()

    def step_down(self) -> _Member:
        """Let the primary give up its place to another, which is returned."""
        former = self.primary
        with former.admin() as admin, contextlib.suppress(AutoReconnect):
            admin.command("replSetStepDown", 60, secondaryCatchUpPeriodSecs=10, force=False)
        found = self.await_primary(other_than=former)
        with former.admin() as admin, contextlib.suppress(PyMongoError):
            admin.command("replSetFreeze", 0)  # it may be elected again
        return found

    def kill_primary(self) -> _Member:
        """Kill the primary as a crash would; which one it was. ``start`` of that member brings it back."""
        former = self.primary
        former.kill()
        return former

    def stop_replication(self) -> None:
        """Let the secondaries take nothing more from the primary, until ``restart_replication``; elections go on."""
        self._fail_point("stopReplProducer", "alwaysOn")

    def restart_replication(self) -> None:
        """Let them go on."""
        self._fail_point("stopReplProducer", "off")

    def _fail_point(self, name: str, mode: str, **data: Any) -> None:
        for member in self.members:
            if member.alive:
                with member.admin() as admin:
                    admin.command({"configureFailPoint": name, "mode": mode, **({"data": data} if data else {})})

    @contextlib.contextmanager
    def partition(self) -> Iterator[tuple[MongoServer, MongoServer]]:
        """Cut the primary off from the others, but not from its clients, and let these elect another; (former primary, new one).

        The former one goes on believing that it is primary, and answers reads, for the election time-out of the set, and follows the
        new one when the partition ends.
        """
        former = self.primary
        others = [member for member in self.members if member is not former and member.alive]
        refused = {"failInternalCommands": True, "closeConnection": True, "failCommands": list(_AMONG_MEMBERS)}
        with former.admin() as admin:
            self.stop_replication()
            try:
                admin.command({"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": refused})
                admin.command({"configureFailPoint": "networkInterfaceDiscardCommandsBeforeAcquireConn", "mode": "alwaysOn"})
                self._elect(others)
                found = self.await_primary(other_than=former)
                self.restart_replication()
                yield former, found
            finally:
                self.restart_replication()
                for name in ("failCommand", "networkInterfaceDiscardCommandsBeforeAcquireConn"):
                    admin.command({"configureFailPoint": name, "mode": "off"})

    @staticmethod
    def _elect(members: Sequence[_Member]) -> None:
        """Let one of some members become primary: one that has all that the others have, which only they know."""
        for number, member in enumerate(members, 1):
            try:
                with member.admin() as admin:
                    admin.command("replSetStepUp")
                return
            except OperationFailure:
                if number == len(members):
                    raise

    def stop(self) -> None:
        """End all members."""
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
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    random.shuffle(ports)
    return ports
