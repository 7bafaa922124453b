"""Settings: their sources, what is rejected, that no secret leaks, and what ``setup`` and ``close`` do to connections."""

from __future__ import annotations

import io
import logging
import pprint
import traceback

import msgspec
import pymongo
import pytest
import redis
import rich.console
import rich.pretty
from pymongo.database import Database

import backtest_kit_mongo as kit
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.contracts.adapters import adapter_of
from backtest_kit_mongo.domains import DOMAINS

NAMES = {
    "CC_MONGO_CONNECTION_STRING", "CC_REDIS_HOST", "CC_REDIS_PORT", "CC_REDIS_USER", "CC_REDIS_PASSWORD", "CC_REDIS_TIMEOUT_MS",
    "CC_REDIS_IDS", "CC_DURABILITY", "CC_PROCESS_IDS", "CC_EMBEDDED", "CC_EMBEDDED_DIR",
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Start without settings from outside and leave none behind."""
    kit.close()
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    yield
    kit.close()
    kit.set_logger(None)
    for domain in DOMAINS.values():
        adapter_of(domain).use_mongo()


# --- sources ---------------------------------------------------------------------------------------------------------


def test_defaults():
    kit.setup()
    config = kit.get_config()
    assert {field.name for field in msgspec.structs.fields(config)} >= NAMES
    assert config.CC_MONGO_CONNECTION_STRING == "mongodb://localhost:27017/backtest-kit?wtimeoutMS=15000"
    assert (config.CC_REDIS_HOST, config.CC_REDIS_PORT, config.CC_REDIS_USER, config.CC_REDIS_PASSWORD) == ("127.0.0.1", 6379, "", "")
    assert (config.CC_DURABILITY, config.CC_REDIS_IDS, config.CC_EMBEDDED) == ("journal", "keyed", False)


def test_mapping_and_keywords():
    kit.setup({"CC_REDIS_HOST": "redis", "CC_REDIS_PORT": 6380}, CC_REDIS_USER="bot", CC_REDIS_PORT=6381)
    config = kit.get_config()
    assert (config.CC_REDIS_HOST, config.CC_REDIS_PORT, config.CC_REDIS_USER) == ("redis", 6381, "bot")


def test_environment(monkeypatch):
    for name, text in {
        "CC_MONGO_CONNECTION_STRING": "mongodb://mongo/live", "CC_REDIS_HOST": "redis", "CC_REDIS_PORT": "6380", "CC_DURABILITY": "memory",
        "CC_REDIS_IDS": "all", "CC_PROCESS_IDS": "0", "CC_REDIS_TIMEOUT_MS": "250", "CC_EMBEDDED": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, text)
    kit.setup()
    config = kit.get_config()
    assert config.CC_MONGO_CONNECTION_STRING == "mongodb://mongo/live"
    assert (config.CC_REDIS_HOST, config.CC_REDIS_PORT, config.CC_DURABILITY, config.CC_REDIS_IDS) == ("redis", 6380, "memory", "all")
    assert (config.CC_PROCESS_IDS, config.CC_REDIS_TIMEOUT_MS, config.CC_EMBEDDED) == (0, 250, False)


def test_arguments_win_over_the_environment_and_that_over_defaults(monkeypatch):
    monkeypatch.setenv("CC_REDIS_HOST", "from-env")
    monkeypatch.setenv("CC_REDIS_PORT", "6380")
    kit.setup({"CC_REDIS_HOST": "given"})
    assert (kit.get_config().CC_REDIS_HOST, kit.get_config().CC_REDIS_PORT) == ("given", 6380)
    kit.setup(CC_REDIS_PORT="6390")
    assert (kit.get_config().CC_REDIS_HOST, kit.get_config().CC_REDIS_PORT) == ("from-env", 6390)


def test_empty_and_zero_count_as_not_given(monkeypatch):
    """As in the TypeScript package, which is called with ``process.env.X || ""``."""
    monkeypatch.setenv("CC_REDIS_HOST", "from-env")
    monkeypatch.setenv("CC_REDIS_PORT", "6380")
    monkeypatch.setenv("CC_REDIS_USER", "")
    kit.setup({"CC_REDIS_HOST": "", "CC_REDIS_PORT": 0, "CC_MONGO_CONNECTION_STRING": None, "CC_REDIS_USER": ""})
    config = kit.get_config()
    assert (config.CC_REDIS_HOST, config.CC_REDIS_PORT, config.CC_REDIS_USER) == ("from-env", 6380, "")
    assert config.CC_MONGO_CONNECTION_STRING.startswith("mongodb://localhost:27017/")


def test_zero_is_given_where_it_means_something():
    kit.setup(CC_PROCESS_IDS=0, CC_EMBEDDED=False)
    assert kit.get_config().CC_PROCESS_IDS == 0


def test_get_config_before_setup_is_what_the_environment_would_give(monkeypatch):
    monkeypatch.setenv("CC_REDIS_HOST", "from-env")
    assert kit.get_config().CC_REDIS_HOST == "from-env"


def test_set_config_and_install(settings):
    """``setup`` in two steps, as in the TypeScript package; ``set_config`` alone changes no binding."""
    kit.PersistSignalAdapter.use_memory()
    kit.set_config(settings)
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    assert kit.get_mongo().list_collection_names() == []
    kit.install()
    assert kit.PersistSignalAdapter.read_signal_data("B", "s", "e") is None
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    assert kit.get_mongo().list_collection_names() == ["signal-items"]


def test_install_alone_takes_the_environment(settings, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    kit.install()
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    assert kit.get_mongo()["signal-items"].count_documents({}) == 1


def test_setup_serves_every_domain_from_mongo_again(settings):
    kit.PersistSignalAdapter.use_dummy()
    kit.PersistStateAdapter.use_memory()
    kit.setup(settings)
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    kit.PersistStateAdapter.write_state_data({"id": "a"}, "s", "b", 0)
    assert sorted(kit.get_mongo().list_collection_names()) == ["signal-items", "state-items"]


# --- what is rejected ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("CC_REDIS_HOSTT", "CC_REDIS_HOST"),
        ("CC_REDIS_PASS", "CC_REDIS_PASSWORD"),
        ("cc_redis_port", "CC_REDIS_PORT"),
        ("redis_user", "CC_REDIS_USER"),
        ("CC_MONGO_STRING", "CC_MONGO_CONNECTION_STRING"),
        ("DURABILITY", "CC_DURABILITY"),
    ],
)
def test_unknown_setting_names_the_nearest(name, near):
    given = {name: "hunter2"}
    for attempt in (lambda: kit.setup(given), lambda: kit.setup(**given), lambda: kit.set_config(given)):
        with pytest.raises(kit.ConfigError, match=rf"'{name}'[\s\S]*did you mean {near}\?") as caught:
            attempt()
        assert isinstance(caught.value, ValueError)
        assert "hunter2" not in everything(caught.value)


def test_unknown_variable_of_the_environment_is_none_of_ours(monkeypatch):
    """Other tools of the same stack use CC_* names as well."""
    monkeypatch.setenv("CC_TELEGRAM_TOKEN", "hunter2")
    kit.setup()
    assert "hunter2" not in repr(kit.get_config())


WRONG = [
    ("CC_REDIS_PORT", "abc"), ("CC_REDIS_PORT", 70_000), ("CC_REDIS_PORT", -1), ("CC_REDIS_PORT", 6379.5), ("CC_REDIS_PORT", True),
    ("CC_REDIS_PORT", []), ("CC_REDIS_HOST", 5), ("CC_REDIS_HOST", ["redis"]), ("CC_REDIS_USER", 5), ("CC_REDIS_PASSWORD", 12345),
    ("CC_REDIS_PASSWORD", b"hunter2"), ("CC_MONGO_CONNECTION_STRING", 5), ("CC_DURABILITY", "maybe"), ("CC_DURABILITY", True),
    ("CC_REDIS_IDS", "none"), ("CC_PROCESS_IDS", -1), ("CC_PROCESS_IDS", "many"), ("CC_REDIS_TIMEOUT_MS", 0), ("CC_REDIS_TIMEOUT_MS", "1s"),
    ("CC_EMBEDDED", "maybe"), ("CC_EMBEDDED", 5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_wrong_value_names_the_setting_and_changes_nothing(name, value):
    kit.setup(CC_REDIS_HOST="before")
    with pytest.raises(kit.ConfigError, match=name):
        kit.setup({name: value})
    assert kit.get_config().CC_REDIS_HOST == "before"


@pytest.mark.parametrize("name", ["CC_REDIS_PORT", "CC_DURABILITY", "CC_REDIS_IDS", "CC_PROCESS_IDS", "CC_EMBEDDED", "CC_REDIS_TIMEOUT_MS"])
def test_wrong_value_in_the_environment_names_the_variable(monkeypatch, name):
    monkeypatch.setenv(name, "rubbish")
    with pytest.raises(kit.ConfigError, match=name):
        kit.setup()


@pytest.mark.parametrize("wrong", [5, "mongodb://localhost", [("CC_REDIS_HOST", "redis")], {5: "x"}, {None: 1}], ids=repr)
def test_settings_that_are_no_mapping_of_names_are_refused(wrong):
    with pytest.raises(kit.ConfigError):
        kit.setup(wrong)


def test_unacknowledged_writes_are_refused():
    """With w=0 nobody knows whether a write arrived, so read-after-write could not be guaranteed."""

    def write():
        kit.setup(CC_MONGO_CONNECTION_STRING="mongodb://localhost/db?w=0&serverSelectionTimeoutMS=100")
        kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")

    with pytest.raises(kit.ConfigError, match="w=0"):
        write()


def test_config_is_a_frozen_struct():
    kit.setup()
    config = kit.get_config()
    assert isinstance(config, msgspec.Struct)
    with pytest.raises(AttributeError):
        config.CC_REDIS_HOST = "other"
    with pytest.raises(AttributeError):
        config.anything = 1
    assert kit.get_config().CC_REDIS_HOST == "127.0.0.1"


# --- secrets ---------------------------------------------------------------------------------------------------------


def everything(error):
    """Return everything that a log would show of an error: its text, its repr, its traceback with causes."""
    return "".join([str(error), repr(error), *traceback.format_exception(error)])


def shown(value):
    """Return the forms in which a value gets onto a screen."""
    return "\n".join([repr(value), str(value), f"{value}", f"{value!r}", repr([value]), pprint.pformat({"config": value})])


VALID = [
    "mongodb://bot:hunter2@localhost/db",
    "mongodb://bot:hunter2@localhost",
    "mongodb://bot:hunter2@a:1,b:2,c:3/db?replicaSet=rs",
    "mongodb://bot:hunter2@%2Ftmp%2Fmongo.sock/db",
    "mongodb://bot:%40%3A%2Fhunter2%25%3F@localhost/db",
    "mongodb://bot:hunter2!$&'()*+,;=~@localhost/db",
    "mongodb://bot@localhost/db?authMechanism=MONGODB-AWS&authMechanismProperties=AWS_SESSION_TOKEN:hunter2",
    "mongodb://bot:x@localhost/db?tls=true&tlsCertificateKeyFilePassword=hunter2&tlsCertificateKeyFile=" + __file__,
    "mongodb+srv://bot:hunter2@cluster.example.com/db",
    "mongodb+srv://bot:hunter2@cluster.example.com",
]
INVALID = [
    "bot:hunter2@localhost", "http://bot:hunter2@localhost", "mongodb://bot:hunter2@", "mongodb://bot:hunter2@localhost:port/db",
    "mongodb://bot:hun:ter2@localhost", "mongodb://bot:hunter2@hunter2@localhost", "mongodb://bot:hun/ter2hunter2@localhost/db",
    "mongodb://bot:hunter2%@localhost", "mongodb://bot:hunter2@localhost/db?wtimeoutMS=hunter2", "mongodb://bot:hunter2@localhost/d b$",
    "mongodb://bot:hunter2@localhost:99999/db", "mongodb://:hunter2@localhost/db", "mongodb://bot:hunter2?x@localhost", "hunter2",
    "mongodb:/bot:hunter2@localhost",
]  # fmt: skip
# Characters that end the user part for a naive parser.
UNESCAPED_SRV = [
    "mongodb+srv://bot:hunter2?x@cluster.example.com/db", "mongodb+srv://bot:a?hunter2@cluster.example.com/db",
    "mongodb+srv://bot:a@b?hunter2@cluster.example.com/db", "mongodb+srv://bot:a/hunter2@cluster.example.com/db",
    "mongodb+srv://bot:hunter2/a@cluster.example.com/db", "mongodb+srv://bot:hunter2#a@cluster.example.com/db",
]  # fmt: skip


@pytest.mark.parametrize("uri", VALID)
def test_no_secret_of_a_connection_string_is_shown(uri):
    kit.setup(CC_MONGO_CONNECTION_STRING=uri, CC_REDIS_PASSWORD="redis-secret")
    config = kit.get_config()
    used = config.CC_MONGO_CONNECTION_STRING
    assert used == uri
    text = shown(config)
    assert "hunter2" not in text
    assert "redis-secret" not in text
    assert "bot" in text  # non-secret parts help


@pytest.mark.parametrize("uri", UNESCAPED_SRV)
def test_no_secret_of_an_unescaped_srv_string_is_shown(uri):
    """Such a string cannot be used; rejected or not, it must not be shown."""
    try:
        kit.setup(CC_MONGO_CONNECTION_STRING=uri)
        text = shown(kit.get_config())
    except kit.ConfigError as error:
        text = everything(error)
    assert "hunter2" not in text


@pytest.mark.parametrize("uri", VALID)
def test_rich_shows_no_secret(uri):
    """Rich's printer and tracebacks read the fields of a Struct one by one, not its repr."""
    console = rich.console.Console(file=io.StringIO(), width=500)
    kit.setup(CC_MONGO_CONNECTION_STRING=uri, CC_REDIS_PASSWORD="redis-secret")
    console.print(kit.get_config())
    console.print(rich.pretty.Pretty(kit.get_config()))
    text = console.file.getvalue()
    assert "CC_REDIS_HOST" in text
    assert "hunter2" not in text
    assert "redis-secret" not in text


@pytest.mark.parametrize("uri", INVALID)
def test_no_secret_of_an_invalid_string_is_in_the_error(uri, monkeypatch):
    with pytest.raises(kit.ConfigError, match="CC_MONGO_CONNECTION_STRING") as caught:
        kit.setup(CC_MONGO_CONNECTION_STRING=uri)
    assert "hunter2" not in everything(caught.value)
    monkeypatch.setenv("CC_MONGO_CONNECTION_STRING", uri)
    with pytest.raises(kit.ConfigError) as caught:
        kit.get_config()
    assert "hunter2" not in everything(caught.value)


def test_no_secret_in_clients_errors_and_log_lines(tmp_path):
    """With unreachable servers, neither the library's messages nor the clients' reprs show a secret."""
    lines = Lines()
    kit.set_logger(lines)
    kit.setup(
        CC_MONGO_CONNECTION_STRING=f"mongodb://bot:hunter2@{str(tmp_path / 'no.sock').replace('/', '%2F')}/db?serverSelectionTimeoutMS=50",
        CC_REDIS_HOST=str(tmp_path / "no-redis.sock"),
        CC_REDIS_PASSWORD="hunter2",
    )
    texts = []
    for attempt in (
        lambda: kit.wait_for_init(0.3),
        lambda: kit.PersistSignalAdapter.read_signal_data("B", "s", "e"),
        lambda: kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e"),
        lambda: kit.PersistSignalAdapter.id_cache.get("B", "s", "e"),
    ):
        with pytest.raises(kit.BacktestKitError) as caught:
            attempt()
        texts.append(everything(caught.value))
    texts += [repr(kit.get_mongo()), repr(kit.get_redis()), repr(kit.PersistSignalAdapter), *lines.all]
    assert len(lines.all) == 1
    assert "hunter2" not in "\n".join(texts)


def test_no_secret_in_a_refused_login(settings):
    """This Redis has no password and says so."""
    kit.setup({**settings, "CC_REDIS_PASSWORD": "hunter2", "CC_REDIS_USER": "bot"})
    with pytest.raises(kit.BacktestKitError, match="Redis") as caught:
        kit.wait_for_init(2)
    assert "hunter2" not in everything(caught.value)


# --- before setup(), after close() -----------------------------------------------------------------------------------

ARGUMENTS = {
    "when": 0, "backtest": True, "limit": 1, "since_timestamp": 0, "until_timestamp": 60_000, "interval": "1m", "positions": [],
    "row": {"id": "a"}, "data": {"id": "a"}, "rows": [{"id": "a"}], "entries": [{"id": "a"}],
    "candles": [{"timestamp": 0, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}],
}  # fmt: skip


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_call_without_setup_says_so(domain):
    adapter = adapter_of(domain)
    attempts = []
    for call in domain.calls:
        arguments = [ARGUMENTS.get(name, "x") for name in call.arguments]
        attempts.append(lambda call=call, arguments=arguments: getattr(adapter, call.name)(*arguments))
    bound = getattr(kit, f"Persist{domain.name.capitalize()}Instance")(*[ARGUMENTS.get(name, "x") for name in domain.context])
    for call in domain.calls:
        rest = [ARGUMENTS.get(name, "x") for name in call.arguments if name not in domain.context]
        attempts.append(lambda call=call, rest=rest: getattr(bound, call.name)(*rest))
    attempts += [lambda: adapter.id_cache, bound.wait_for_init]
    for attempt in attempts:
        with pytest.raises(kit.NotConfiguredError, match=r"setup\(\)"):
            attempt()


def test_functions_without_setup_say_so():
    for attempt in (kit.get_mongo, kit.get_redis, kit.wait_for_init):
        with pytest.raises(kit.NotConfiguredError, match=r"setup\(\)") as caught:
            attempt()
        assert isinstance(caught.value, RuntimeError)
    kit.close()
    kit.close()
    assert isinstance(kit.stats(), dict)


def test_call_after_close_says_so_and_setup_brings_the_data_back(settings):
    kit.setup(settings)
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    database = kit.get_mongo()
    kit.close()
    with pytest.raises(kit.NotConfiguredError, match=r"setup\(\)"):
        kit.PersistSignalAdapter.read_signal_data("B", "s", "e")
    with pytest.raises(pymongo.errors.InvalidOperation):
        database.command("ping")
    kit.setup(settings)
    assert kit.PersistSignalAdapter.read_signal_data("B", "s", "e") == {"id": "a"}


def test_store_without_a_server_needs_no_setup():
    kit.PersistSignalAdapter.use_memory()
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    assert kit.PersistSignalAdapter.read_signal_data("B", "s", "e") == {"id": "a"}
    kit.PersistScheduleAdapter.use_dummy()
    assert kit.PersistScheduleAdapter.read_schedule_data("B", "s", "e") is None


# --- connections -----------------------------------------------------------------------------------------------------


def test_setup_contacts_no_server(tmp_path):
    """Connecting is lazy, as in the TypeScript package: the first use of an unreachable server raises."""
    kit.setup(
        CC_MONGO_CONNECTION_STRING=f"mongodb://{str(tmp_path / 'none.sock').replace('/', '%2F')}/db?serverSelectionTimeoutMS=100",
        CC_REDIS_HOST=str(tmp_path / "none"),
    )
    with pytest.raises(kit.ServerTimeoutError):
        kit.PersistSignalAdapter.read_signal_data("B", "s", "e")


def test_setup_with_the_same_settings_keeps_the_connection(settings):
    kit.setup(settings)
    database, cache = kit.get_mongo(), kit.get_redis()
    database.command("ping")
    kit.setup(dict(settings))
    assert kit.get_mongo().client is database.client
    assert kit.get_redis() is cache
    database.command("ping")


@pytest.mark.parametrize("name", ["CC_PROCESS_IDS", "CC_REDIS_TIMEOUT_MS", "CC_CANDLE_MEMORY_MB"])
@pytest.mark.parametrize("value", [2**63, 10**24])
def test_numbers_that_are_too_large(name, value):
    with pytest.raises(kit.ConfigError, match=f"{name} must be at most"):
        load_config({name: value})


def test_switches_take_zero_and_one():
    assert load_config({"CC_WIRE_LANE": 0}).CC_WIRE_LANE is False
    assert load_config({"CC_WIRE_LANE": 1}).CC_WIRE_LANE is True
    with pytest.raises(kit.ConfigError):
        load_config({"CC_WIRE_LANE": 2})


def test_setup_with_other_settings_reconnects(settings):
    kit.setup(settings)
    before = kit.get_mongo()
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    other = settings["CC_MONGO_CONNECTION_STRING"].replace(f"/{before.name}", f"/{before.name}-other")
    assert other != settings["CC_MONGO_CONNECTION_STRING"]
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": other})
    try:
        assert kit.get_mongo().name == before.name + "-other"
        assert kit.get_mongo().client is not before.client
        assert kit.PersistSignalAdapter.read_signal_data("B", "s", "e") is None
        with pytest.raises(pymongo.errors.InvalidOperation):
            before.command("ping")
    finally:
        kit.get_mongo().client.drop_database(before.name + "-other")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("mongodb://localhost", "backtest-kit"),
        ("mongodb://localhost/", "backtest-kit"),
        ("mongodb://localhost/?appName=x", "backtest-kit"),
        ("mongodb://localhost/other?appName=x", "other"),
        ("mongodb://bot:x@localhost/?authSource=admin", "backtest-kit"),
    ],
)
def test_database(uri, name):
    kit.setup(CC_MONGO_CONNECTION_STRING=uri)
    assert kit.get_mongo().name == name


def test_database_without_a_name_is_really_used(servers, settings):
    """The default database is used, not MongoDB's ``test``."""
    kit.setup({**settings, "CC_MONGO_CONNECTION_STRING": servers.mongo.uri()})
    assert kit.get_mongo().name == "backtest-kit"
    try:
        kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
        assert kit.get_mongo().client["backtest-kit"]["signal-items"].count_documents({}) == 1
    finally:
        kit.get_mongo().client.drop_database("backtest-kit")


def test_time_outs_come_from_the_string_and_are_15_s_where_it_is_silent():
    kit.setup(CC_MONGO_CONNECTION_STRING="mongodb://localhost/db?connectTimeoutMS=700")
    options = kit.get_mongo().client.options
    assert options.server_selection_timeout == 15
    assert options.pool_options.connect_timeout == 0.7
    assert options.pool_options.socket_timeout == 15
    kit.setup(CC_MONGO_CONNECTION_STRING="mongodb://localhost/db?timeoutMS=700")
    assert kit.get_mongo().client.options.timeout == 0.7


def test_get_mongo_and_get_redis_are_the_clients_of_the_library(settings):
    kit.setup(settings)
    database, cache = kit.get_mongo(), kit.get_redis()
    assert isinstance(database, Database)
    assert isinstance(database.client, pymongo.MongoClient)
    assert isinstance(cache, redis.Redis)
    kit.PersistStateAdapter.write_state_data({"id": "a"}, "s", "b", 0)
    document = database["state-items"].find_one()
    assert cache.get("state_cache:s:b") == str(document["_id"]).encode()
    assert kit.get_mongo() == database
    assert kit.get_redis() is cache


def test_keywords_and_positions_of_setup(settings):
    """``embedded`` is the only keyword that is not a CC_* name; a mapping comes first and is positional only."""
    kit.setup(settings, embedded=False)
    assert kit.get_config().CC_EMBEDDED is False
    with pytest.raises(kit.ConfigError):
        kit.setup(config=settings)


# --- the logger ------------------------------------------------------------------------------------------------------


class Lines:
    """Anything with these four methods is a logger."""

    def __init__(self):
        self.all = []

    def _take(self, level):
        def take(message, *args):
            self.all.append(f"{level} {message % args if args else message}")

        return take

    def __getattr__(self, name):
        if name in ("debug", "info", "warning", "error"):
            return self._take(name)
        raise AttributeError(name)


def test_logger_of_ones_own_gets_the_lines(settings, tmp_path):
    lines = Lines()
    kit.set_logger(lines)
    kit.setup({**settings, "CC_REDIS_HOST": str(tmp_path / "none")})
    for number in range(3):
        kit.PersistSignalAdapter.write_signal_data({"id": str(number)}, "B", "s", "e")
    assert len(lines.all) == 1
    assert lines.all[0].startswith("warning Redis")


def test_none_is_the_standard_logger(settings, tmp_path, caplog):
    kit.set_logger(Lines())
    kit.set_logger(None)
    kit.setup({**settings, "CC_REDIS_HOST": str(tmp_path / "none")})
    with caplog.at_level(logging.DEBUG, "backtest_kit_mongo"):
        kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    assert [(record.name, record.levelname) for record in caplog.records] == [("backtest_kit_mongo", "WARNING")]


def test_standard_logger_of_another_name(settings, tmp_path, caplog):
    kit.set_logger(logging.getLogger("strategy"))
    kit.setup({**settings, "CC_REDIS_HOST": str(tmp_path / "none")})
    kit.PersistSignalAdapter.write_signal_data({"id": "a"}, "B", "s", "e")
    assert [record.name for record in caplog.records] == ["strategy"]


def test_what_is_no_logger_is_refused_with_what_it_lacks():
    class Half:
        info = warning = print

    class Data:
        debug = info = warning = error = "text"

    for wrong, lacking in ((Half(), "debug, error"), (Data(), "debug, info, warning, error"), (object(), "debug"), (print, "debug")):
        with pytest.raises(kit.InvalidTypeError, match=f"missing: {lacking}"):
            kit.set_logger(wrong)
