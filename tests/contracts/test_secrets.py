"""Passwords on real servers that require them: no failure puts one into a log line, repr, error, traceback or statistic."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import time
import traceback
import warnings
from urllib.parse import quote

import pymongo
import pytest
import rich.console
import rich.pretty
from argument_mongo import ArgumentMongo

import backtest_kit_mongo as kit
from backtest_kit_mongo.config import load_config, redacted
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import BacktestKitError, ConfigError, DatabaseError, ServerUnavailableError
from backtest_kit_mongo.servers import MongoServer, RedisServer

pytestmark = pytest.mark.server

WHEN = 1_700_000_000_000
# With characters that a connection string must encode; neither form may appear.
MONGO_SECRET = "mongoS3cret/:@%ü"
MONGO_WRONG = "mongoWr0ng/:@%ü"
REDIS_SECRET = "redisS3cret'\"\\ x"
REDIS_WRONG = "redisWr0ng'\"\\ x"
SECRETS = [form for secret in (MONGO_SECRET, MONGO_WRONG, REDIS_SECRET, REDIS_WRONG) for form in (secret, quote(secret, safe=""))]
# What remains of a secret that was cut at one of its special characters.
TRACES = [*SECRETS, "S3cret", "Wr0ng"]


def assert_clean(*texts):
    for text in texts:
        for trace in TRACES:
            assert trace not in text, text


def all_of(error):
    """Return everything that an error report may show: text, traceback with and without causes, attributes."""
    texts = ["".join(traceback.format_exception(error)), "".join(traceback.format_exception(error, chain=False))]
    while error is not None:
        texts += [repr(error), str(error), repr(error.args), repr(vars(error))]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return texts


def state():
    """Return the text of all our objects that a person or a debugger may print."""
    store = default_registry.mongo_or_none
    console = rich.console.Console(file=io.StringIO(), width=1000)
    console.print(kit.get_config())
    shown = [
        console.file.getvalue(),
        rich.pretty.pretty_repr(kit.get_config()),
        repr(kit.get_config()),
        str(kit.get_config()),
        f"{kit.get_config()}",
        repr(kit.stats()),
        repr(default_registry),
        repr(vars(default_registry)),
        repr(kit.PersistSignalAdapter),
        repr(kit.PersistSignalInstance("S", "s", "e")),
    ]
    if store is not None:
        shown += [repr(kit.get_mongo()), repr(kit.get_redis()), repr(store), repr(vars(store)), repr(kit.PersistSignalAdapter.id_cache)]
        shown += [repr(vars(store.connection)), repr(vars(store.redis_ids))]
    return shown


@pytest.fixture(autouse=True)
def logged(caplog, capfd):
    """At the end of each test, every line of every logger, at every level, and both output streams are free of secrets."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caplog
    for record in caplog.records:
        assert_clean(record.getMessage(), repr(record.args), record.exc_text or "")
    assert_clean(*(str(warning.message) for warning in caught), *capfd.readouterr())


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A mongod and a redis-server that require passwords."""
    folder = tmp_path_factory.mktemp("locked")
    with MongoServer(folder / "mongo") as server, pymongo.MongoClient(server.uri()) as client:
        client.admin.command("createUser", "trader", pwd=MONGO_SECRET, roles=["readWriteAnyDatabase"])
        client.admin.command("createUser", "reader", pwd=MONGO_SECRET, roles=["readAnyDatabase"])
    with ArgumentMongo(folder / "mongo", "--auth") as mongo, RedisServer(folder / "redis", password=REDIS_SECRET) as cache:
        yield mongo, cache


def mongo_uri(host, user="trader", password=MONGO_SECRET, options="authSource=admin&serverSelectionTimeoutMS=1000"):
    return f"mongodb://{user}:{quote(password, safe='')}@{host}/secrets?{options}"


@pytest.fixture
def right(locked, settings):
    """Settings with the right passwords for both servers."""
    mongo, cache = locked
    return {
        **settings,
        "CC_MONGO_CONNECTION_STRING": mongo_uri(quote(mongo.socket, safe="")),
        "CC_REDIS_HOST": cache.socket,
        "CC_REDIS_PASSWORD": REDIS_SECRET,
    }


CALLS = [
    lambda: kit.wait_for_init(timeout=3),
    lambda: kit.PersistSignalAdapter.write_signal_data({"n": 1}, "S", "s", "e"),
    lambda: kit.PersistSignalAdapter.read_signal_data("S", "s", "e"),
    lambda: kit.PersistStateAdapter.write_many([({}, "s", f"{number}", WHEN) for number in range(3)]),
    lambda: kit.PersistStateAdapter.read_many([("s", f"{number}") for number in range(3)]),
    lambda: kit.PersistLogAdapter.write_log_data([{"id": "1"}]),
    lambda: kit.PersistLogAdapter.read_log_data(),
    lambda: kit.PersistCandleAdapter.read_candles_data("S", "1m", "e", 1, 0, 0),
    lambda: kit.PersistMemoryAdapter.remove_memory_data("s", "b", "m"),
    lambda: list(kit.PersistMemoryAdapter.list_memory_data("s", "b")),
    lambda: kit.PersistSignalAdapter.id_cache.get("S", "s", "e"),
    lambda: kit.PersistSignalAdapter.id_cache.size(),
    lambda: kit.PersistSignalAdapter.id_cache.clear(),
    lambda: default_registry.mongo.drop_cache(),
]


FEW = [CALLS[0], CALLS[1], CALLS[4], CALLS[9], CALLS[11], CALLS[13]]


def errors_of_all_calls(calls=CALLS):
    """Make every call; return the errors, each of them checked for secrets."""
    errors = []
    for call in calls:
        try:
            call()
        except BacktestKitError as error:
            assert_clean(*all_of(error))
            errors.append(error)
    assert_clean(*state())
    return errors


def test_right_passwords(right):
    """With the right passwords everything works, and nothing shows them."""
    kit.setup(right)
    kit.wait_for_init(timeout=60)
    assert errors_of_all_calls(CALLS[1:]) == []
    assert kit.PersistSignalAdapter.read_signal_data("S", "s", "e") == {"n": 1}
    assert "trader" in repr(kit.get_config())


def test_passwords_from_the_environment(right, monkeypatch):
    """Passwords from the environment work the same and are not shown."""
    for name, value in right.items():
        monkeypatch.setenv(name, value)
    kit.setup()
    kit.wait_for_init(timeout=60)
    assert errors_of_all_calls(CALLS[1:]) == []
    kit.close()
    assert_clean(*state())


def test_wrong_password_of_mongo(right, locked):
    """The first call and later ones soon raise a DatabaseError that names the setting to check."""
    host = quote(locked[0].socket, safe="")
    kit.setup({**right, "CC_MONGO_CONNECTION_STRING": mongo_uri(host, password=MONGO_WRONG, options="authSource=admin")})
    for call in CALLS[:3]:
        started = time.monotonic()
        (error,) = errors_of_all_calls([call])
        assert isinstance(error, DatabaseError)
        assert "CC_MONGO_CONNECTION_STRING" in str(error)
        assert time.monotonic() - started < 15


def test_missing_rights(right, locked):
    """Writes of a read-only user fail with a hint."""
    kit.setup({**right, "CC_MONGO_CONNECTION_STRING": mongo_uri(quote(locked[0].socket, safe=""), user="reader")})
    errors = errors_of_all_calls()
    assert len(errors) >= 5
    assert all("readWrite" in str(error) for error in errors)


@pytest.mark.parametrize("user", ["", "nobody"])
def test_wrong_password_of_redis(right, user, logged):
    """One WARNING is logged, work continues, and the gate and the explicit calls raise, all without the password."""
    kit.setup({**right, "CC_REDIS_PASSWORD": REDIS_WRONG, "CC_REDIS_USER": user})
    assert len(errors_of_all_calls()) == 5
    assert [record.levelname for record in logged.records if record.name == "backtest_kit_mongo"] == ["WARNING"]


def unreachable(tmp_path):
    """Return addresses where nothing listens: a closed port, a missing socket, a name that does not resolve."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    return {"port": ("127.0.0.1", port), "socket": (str(tmp_path / "no.sock"), None), "name": ("no..host", 1)}


@pytest.mark.parametrize("where", ["port", "socket", "name"])
def test_unreachable_servers(settings, tmp_path, where):
    """Timeouts name the address, never the password."""
    host, port = unreachable(tmp_path)[where]
    address = quote(host, safe="") if port is None else f"{host}:{port}"
    given = {"CC_MONGO_CONNECTION_STRING": mongo_uri(address, options="serverSelectionTimeoutMS=100"), "CC_REDIS_HOST": host}
    try:
        kit.setup({**settings, **given, "CC_REDIS_PASSWORD": REDIS_SECRET, **({} if port is None else {"CC_REDIS_PORT": port})})
    except ConfigError as error:
        assert_clean(*all_of(error))
        return
    errors = errors_of_all_calls(FEW)
    assert len(errors) == len(FEW)
    assert all(isinstance(error, ServerUnavailableError) for error in errors)


def test_servers_that_die(right, tmp_path, settings):
    """Servers accept the right passwords and then die; no error shows a password."""
    with RedisServer(tmp_path / "redis", password=REDIS_SECRET) as cache, MongoServer(tmp_path / "mongo") as server:
        with pymongo.MongoClient(server.uri()) as client:
            client.admin.command("createUser", "trader", pwd=MONGO_SECRET, roles=["readWriteAnyDatabase"])
        kit.setup(
            {
                **settings,
                "CC_MONGO_CONNECTION_STRING": mongo_uri(quote(server.socket, safe="")),
                "CC_REDIS_HOST": cache.socket,
                "CC_REDIS_PASSWORD": REDIS_SECRET,
            }
        )
        kit.wait_for_init(timeout=60)
        assert errors_of_all_calls(FEW[1:]) == []
        cache.kill()
        assert len(errors_of_all_calls(FEW)) == 3
        server.kill()
        assert len(errors_of_all_calls(FEW)) == len(FEW)
        server.start()
        kit.close()


BAD_STRINGS = [
    "mongodb://trader:{0}@",
    "mongodb://trader:{0}@:1",
    "mongodb://trader:{0}@host:port/db",
    "mongodb://trader:{0}@host:99999/db",
    "mongodb://trader:{0}@host/db?w=x=y",
    "mongodb://trader:{0}@host/db?authMechanism={0}",
    "mongodb://trader:{0}@host/db?serverSelectionTimeoutMS={0}",
    "mongodb://trader:{0}@host/db?unknownOption={0}",
    "mongodb://trader:{0}@host/db?{0}",
    "mongodb://trader:{0}@ho st/db?replicaSet=",
    "mongodb://trader:{0}@host/d b.x$",
    "mongodb:/trader:{0}@host",
    "http://trader:{0}@host/db",
    "trader:{0}@host/db",
    "{0}",
    "mongodb://trader:{0}:{0}@host/db",
    "mongodb://trader:a@{0}@host/db",
    "mongodb://tra/der:{0}@host/db",
    "mongodb+srv://trader:{0}@host",
    "mongodb+srv://trader:{0}@a.b.c:27017/db",
    "mongodb+srv://trader:{0}@one.example.invalid,two.example.invalid/db",
    "mongodb://trader:{0}@host/db?tlsCertificateKeyFilePassword={0}&tlsCertificateKeyFile=/nowhere",
    "mongodb://trader:{0}@host/db?authMechanismProperties=AWS_SESSION_TOKEN:{0}",
    "mongodb://trader:{0}@host/db?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:{0}",
    "mongodb://trader:{0}@host/db?proxyPassword={0}",
    "mongodb://trader:{0}@host/db?readPreference={0}",
]


@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "as it is"])
@pytest.mark.parametrize("pattern", BAD_STRINGS)
def test_bad_connection_strings(settings, pattern, encoded):
    """A connection string with a mistake: neither its error nor, if it is accepted, its settings show the password."""
    string = pattern.format(quote(MONGO_SECRET, safe="") if encoded else MONGO_SECRET)
    try:
        config = load_config({**settings, "CC_MONGO_CONNECTION_STRING": string}, {})
    except ConfigError as error:
        assert_clean(*all_of(error))
    else:
        assert_clean(repr(config), str(config))


@pytest.mark.parametrize("secret", ["S3cret?x", "S3cret?x=y&z", "a?S3cret", "S3cret#x", "S3cret/x?y", "S3cret@x?y", "a&b?S3cret=1"])
@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_redaction_of_passwords_that_should_have_been_encoded(scheme, secret):
    """If the password itself contains ``?``, ``/``, ``@`` or ``&``, more is hidden, not less."""
    text = redacted(f"{scheme}://trader:{secret}@cluster.example.invalid/db")
    assert_clean(text)
    assert "a?" not in text
    with contextlib.suppress(ConfigError):
        assert_clean(repr(load_config({"CC_MONGO_CONNECTION_STRING": f"{scheme}://trader:{secret}@cluster.example.invalid/db"}, {})))


def test_redaction_keeps_what_is_no_secret():
    """Host, user, database and plain options stay readable."""
    assert redacted("mongodb://trader:pw@host:1,other:2/db?w=1&tlsCertificateKeyFilePassword=x") == (
        "mongodb://trader:***@host:1,other:2/db?w=1&tlsCertificateKeyFilePassword=***"
    )
    assert redacted("mongodb://host/db?wtimeoutMS=15000") == "mongodb://host/db?wtimeoutMS=15000"


@pytest.mark.parametrize(
    "given",
    [
        {"CC_REDIS_PORT": REDIS_SECRET},
        {"CC_REDIS_TIMEOUT_MS": REDIS_SECRET},
        {"CC_PROCESS_IDS": REDIS_SECRET},
        {"CC_DURABILITY": REDIS_SECRET},
        {"CC_REDIS_IDS": REDIS_SECRET},
        {"CC_EMBEDDED": REDIS_SECRET},
        {"CC_REDIS_PASSWORD": [REDIS_SECRET]},
        {"CC_REDIS_PASSWORD": {"password": REDIS_SECRET}},
        {"CC_REDIS_PASSWORD": REDIS_SECRET.encode()},
        {"CC_MONGO_CONNECTION_STRING": [MONGO_SECRET]},
        {"CC_REDIS_PASSWORT": REDIS_SECRET},
        {"REDIS_URL": f"redis://:{REDIS_SECRET}@host"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_secret_under_the_wrong_name(given):
    """The error for a secret in the wrong setting, or of the wrong type, does not quote it."""
    with pytest.raises(ConfigError) as caught:
        kit.setup(given)
    assert_clean(*all_of(caught.value))


@pytest.mark.parametrize("host", ["redis://:S3cret@127.0.0.1:1/0", ":S3cret@127.0.0.1"])
def test_redis_url_as_host(settings, host):
    """A whole Redis URL in CC_REDIS_HOST is rejected, or at least no warning or repr shows its password."""
    try:
        kit.setup({**settings, "CC_REDIS_HOST": host, "CC_REDIS_PORT": 1})
    except ConfigError as error:
        assert_clean(*all_of(error))
        return
    errors_of_all_calls()


def test_unacknowledged_writes(right):
    """The error for w=0 does not quote the connection string."""
    string = right["CC_MONGO_CONNECTION_STRING"] + "&w=0"
    try:
        kit.setup({**right, "CC_MONGO_CONNECTION_STRING": string})
    except ConfigError as error:
        assert_clean(*all_of(error))
        return
    errors = errors_of_all_calls()
    assert errors
    assert isinstance(errors[0], ConfigError)


def test_user_logger(right):
    """A user's logger gets the same clean lines."""
    lines = []

    class Keep:
        def debug(self, message, *arguments):
            lines.append(message % arguments)

        info = warning = error = debug

    kit.set_logger(Keep())
    kit.setup({**right, "CC_REDIS_PASSWORD": REDIS_WRONG})
    kit.PersistSignalAdapter.write_signal_data({}, "S", "s", "e")
    assert len(lines) == 1
    assert_clean(*lines)


def test_index_conflict(right, locked):
    """The error for a conflicting index names collections and commands, but no connection."""
    kit.setup(right)
    kit.get_mongo()["signal-items"].drop()
    kit.get_mongo()["signal-items"].insert_many([{"symbol": "S", "strategyName": "s", "exchangeName": "e"}] * 1)
    kit.get_mongo()["signal-items"].insert_one({"symbol": "S", "strategyName": "s", "exchangeName": "e"})
    with pytest.raises(kit.IndexConflictError) as caught:
        kit.wait_for_init(timeout=60)
    assert_clean(*all_of(caught.value))
    kit.get_mongo()["signal-items"].drop()


def test_traces_can_be_found():
    """The checks in this file find a secret, also in the causes and notes of other errors."""
    try:
        try:
            raise ValueError(MONGO_SECRET)
        except ValueError as error:
            raise ConfigError("clean") from error
    except ConfigError as error:
        with pytest.raises(AssertionError):
            assert_clean(*all_of(error))
