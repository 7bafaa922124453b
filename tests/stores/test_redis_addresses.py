"""Every way to reach Redis: a URL, TLS, a user with few rights, Sentinels, a cluster, and a shared server."""

from __future__ import annotations

import itertools
import json

import pytest
import redis
from command import Cli
from ports import free_port
from redis_sets import PATIENCE, Cluster, Node, Watched
from tls import Authority, TlsProxy
from waiting import wait_for

import backtest_kit_mongo as kit
from backtest_kit_mongo.cli.stored import redis_work
from backtest_kit_mongo.config import load_config
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import ConfigError, DatabaseError, ServerTimeoutError, ServerUnavailableError
from backtest_kit_mongo.redis_address import RedisAddress, redis_address
from backtest_kit_mongo.stores.mongo.redis_ids import RedisIds

WHEN = 1_700_000_000_000
STATE = kit.PersistStateAdapter
KEYS = [("s", f"{number}") for number in range(300)]


@pytest.fixture(params=["1", "0"], ids=["wire-on", "wire-off"])
def wire(request, monkeypatch):
    """The wire protocol, or only redis-py's public methods."""
    monkeypatch.setenv("CC_WIRE_LANE", request.param)


@pytest.fixture
def begin(settings):
    """A function that sets the library up on a new database with other Redis settings."""

    def begin(**others):
        kit.close()
        kept = {name: value for name, value in settings.items() if name != "CC_REDIS_HOST"}
        kit.setup({**kept, **others})

    return begin


def use(keys=KEYS):
    """Write and read one by one and in batches; the reads start with ids in Redis only."""
    for number, key in enumerate(keys[:3]):
        STATE.write_state_data({"n": number}, *key, WHEN)
    STATE.write_many([({"n": number}, *key, WHEN) for number, key in enumerate(keys)])
    default_registry.mongo.process_ids.clear()
    kit.reset_stats()
    assert STATE.read_state_data(*keys[1]) == {"n": 1}
    assert STATE.read_many(keys) == [{"n": number} for number in range(len(keys))]
    assert STATE.read_state_data("s", "none") is None


def hits():
    """Return the ids that came from Redis since ``reset_stats``, and the Redis errors."""
    counters = kit.stats()["state"]
    return counters["hits_redis"], counters["redis_errors"]


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "place", "shown"),
    [
        ({}, RedisAddress(address=("127.0.0.1", 6379)), "127.0.0.1:6379"),
        ({"CC_REDIS_HOST": "/tmp/r.sock"}, RedisAddress(path="/tmp/r.sock"), "/tmp/r.sock"),
        ({"CC_REDIS_HOST": "h", "CC_REDIS_DB": "3"}, RedisAddress(address=("h", 6379), db=3), "h:6379 (database 3)"),
        ({"CC_REDIS_HOST": "h", "CC_REDIS_TLS": "1"}, RedisAddress(address=("h", 6379), tls=True), "h:6379 (TLS)"),
        ({"CC_REDIS_URL": "redis://h"}, RedisAddress(address=("h", 6379)), "h:6379"),
        (
            {"CC_REDIS_URL": "rediss://bot:p%40ss@h:7000/2?ssl_check_hostname=no"},
            RedisAddress(address=("h", 7000), user="bot", password="p@ss", db=2, tls=True, tls_options={"ssl_check_hostname": False}),
            "h:7000 (database 2, TLS)",
        ),
        ({"CC_REDIS_URL": "rediss://:only@[::1]:7000"}, RedisAddress(address=("::1", 7000), password="only", tls=True), "[::1]:7000 (TLS)"),
        (
            {"CC_REDIS_URL": "unix://u:p@/tmp/a%20b.sock?db=1"},
            RedisAddress(path="/tmp/a b.sock", user="u", password="p", db=1),
            "/tmp/a b.sock (database 1)",
        ),
        ({"CC_REDIS_URL": "redis://h", "CC_REDIS_PASSWORD": "p"}, RedisAddress(address=("h", 6379), password="p"), "h:6379"),
        ({"CC_REDIS_URL": "redis://:own@h", "CC_REDIS_PASSWORD": "p"}, RedisAddress(address=("h", 6379), password="own"), "h:6379"),
        ({"CC_REDIS_URL": "redis://h", "CC_REDIS_CLUSTER": "1"}, RedisAddress(address=("h", 6379), cluster=True), "h:6379 (cluster)"),
        (
            {"CC_REDIS_SENTINEL": "su:sp@a:1,b,[::1]:3/ids", "CC_REDIS_PASSWORD": "p", "CC_REDIS_DB": 1},
            RedisAddress(
                sentinels=(("a", 1), ("b", 26379), ("::1", 3)),
                service="ids",
                sentinel_user="su",
                sentinel_password="sp",
                password="p",
                db=1,
            ),
            "a:1,b:26379,[::1]:3/ids (Sentinel) (database 1)",
        ),
    ],
)
def test_places(settings, place, shown):
    address = redis_address(load_config({}, settings))
    assert address == place
    assert str(address) == shown
    assert repr(address) == f"<RedisAddress {shown}>"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"CC_REDIS_URL": "http://h"}, r"not a valid Redis URL \(scheme\)(.|\n)*rediss:// for TLS"),
        ({"CC_REDIS_URL": "h:6379"}, "scheme"),
        ({"CC_REDIS_URL": "redis://"}, "host or port"),
        ({"CC_REDIS_URL": "redis://h:0"}, "host or port"),
        ({"CC_REDIS_URL": "redis://h:s3cret"}, "host or port"),
        ({"CC_REDIS_URL": "redis://:s3cret#x@h"}, "scheme|# must be|host or port"),
        ({"CC_REDIS_URL": "redis://h/s3cret"}, "the database must be a number"),
        ({"CC_REDIS_URL": "redis://h?db=-1"}, "the database must be a number"),
        ({"CC_REDIS_URL": "unix://h/tmp/x"}, "must be absolute"),
        ({"CC_REDIS_URL": "redis://h?decode_responses=s3cret"}, r"a TLS option without rediss://(.|\n)*CC_REDIS_TIMEOUT_MS"),
        ({"CC_REDIS_URL": "redis://h?ssl_ca_certs=/x"}, "a TLS option without rediss://"),
        ({"CC_REDIS_URL": "rediss://h?ssl_ca_certs=/no/such"}, "the file that ssl_ca_certs names cannot be read"),
        ({"CC_REDIS_URL": "rediss://h?ssl_cert_reqs=s3cret"}, "none, optional or required"),
        ({"CC_REDIS_URL": "rediss://h?ssl_check_hostname=s3cret"}, "true or false"),
        ({"CC_REDIS_URL": "redis://h/1", "CC_REDIS_DB": 2}, "names database 1, but CC_REDIS_DB is 2"),
        ({"CC_REDIS_URL": "redis://h", "CC_REDIS_TLS": True}, r"CC_REDIS_TLS is on(.|\n)*rediss://"),
        ({"CC_REDIS_HOST": "/tmp/r.sock", "CC_REDIS_TLS": True}, "CC_REDIS_TLS is on"),
        ({"CC_REDIS_URL": "redis://h", "CC_REDIS_HOST": "other"}, "sets more than one Redis address: CC_REDIS_URL and CC_REDIS_HOST"),
        ({"CC_REDIS_URL": "redis://h", "CC_REDIS_SENTINEL": "a:1/ids"}, ": CC_REDIS_URL and CC_REDIS_SENTINEL"),
        ({"CC_REDIS_SENTINEL": "a:1/ids", "CC_REDIS_CLUSTER": True}, "cannot be combined"),
        ({"CC_REDIS_SENTINEL": "a:1"}, r"not a valid list of Sentinels(.|\n)*host:port,host:port/name"),
        ({"CC_REDIS_SENTINEL": ":s3cret@a:x/ids"}, "not a valid list of Sentinels"),
        ({"CC_REDIS_HOST": "h", "CC_REDIS_CLUSTER": True, "CC_REDIS_DB": 1}, "a Redis cluster has only database 0"),
        ({"CC_REDIS_HOST": "/tmp/r.sock", "CC_REDIS_CLUSTER": True}, "cannot be reached over a Unix socket"),
        ({"CC_REDIS_DB": -1}, "CC_REDIS_DB must not be negative"),
        ({"CC_REDIS_PREFIX": "with blank "}, "CC_REDIS_PREFIX must be at most 64 printable ASCII characters"),
        ({"CC_REDIS_PREFIX": "ü"}, "CC_REDIS_PREFIX must be"),
        ({"CC_REDIS_HOST": "redis://h"}, r"not a URL(.|\n)*set CC_REDIS_URL instead"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(settings, {})
    assert "s3cret" not in str(caught.value)


def test_a_place_that_is_given_wins_over_one_of_the_environment():
    address = redis_address(load_config({"CC_REDIS_HOST": "given"}, {"CC_REDIS_URL": "redis://there:7000", "CC_REDIS_DB": "2"}))
    assert (address.address, address.db) == (("given", 6379), 2)
    address = redis_address(load_config({"CC_REDIS_URL": "redis://given"}, {"CC_REDIS_HOST": "there", "CC_REDIS_PORT": "7000"}))
    assert address.address == ("given", 6379)
    assert redis_address(load_config({"CC_REDIS_HOST": "given"}, {"CC_REDIS_SENTINEL": "a:1/ids"})).sentinels == ()
    with pytest.raises(ConfigError, match="the environment sets more than one Redis address"):
        load_config({}, {"CC_REDIS_HOST": "a", "CC_REDIS_URL": "redis://b"})


def test_no_secret_is_shown():
    config = load_config({"CC_REDIS_URL": "redis://bot:s3cret@h", "CC_REDIS_PASSWORD": "s3cret"}, {})
    assert "s3cret" not in repr(config)
    assert "redis://bot:***@h" in repr(config)
    config = load_config({"CC_REDIS_SENTINEL": "bot:s3cret@a:1/ids"}, {})
    assert "s3cret" not in repr(config)
    assert "bot:***@a:1/ids" in repr(config)
    with pytest.raises(ConfigError) as caught:
        load_config({"CC_MODE": "s3cret"}, {"CC_REDIS_URL": "redis://bot:s3cret@h"})
    assert "s3cret" not in str(caught.value)


# --- one server ---


@pytest.mark.server
def test_a_url_with_password_and_database(begin, wire, tmp_path):
    with Node(tmp_path / "redis", password="p%40ss") as node:  # the password contains a percent sign
        begin(CC_REDIS_URL=f"redis://:p%2540ss@127.0.0.1:{node.port}/3")
        kit.wait_for_init()
        use()
        assert hits() == (len(KEYS), 0)
        with redis.Redis(host="127.0.0.1", port=node.port, password="p%40ss", db=3) as client:
            assert client.dbsize() == len(KEYS)
            client.select(0)
            assert client.dbsize() == 0
        kit.close()


@pytest.mark.server
def test_a_url_of_a_unix_socket(begin, wire, servers):
    begin(CC_REDIS_URL=f"unix://{servers.redis.socket}?db=5")
    kit.wait_for_init()
    use()
    assert hits() == (len(KEYS), 0)
    with redis.Redis(unix_socket_path=servers.redis.socket, db=5) as client:
        assert client.dbsize() == len(KEYS)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def tls(authority, servers):
    """A TLS port in front of the tests' Redis."""
    with TlsProxy(servers.redis.socket, authority) as proxy:
        yield proxy


@pytest.mark.server
def test_redis_over_tls(begin, wire, tls, authority):
    begin(CC_REDIS_URL=f"rediss://localhost:{tls.port}?ssl_ca_certs={authority.file}")
    kit.wait_for_init()
    use()
    assert hits() == (len(KEYS), 0)
    made = tls.handshakes
    assert made >= 1
    use(KEYS[:50])
    assert hits() == (50, 0)
    assert tls.handshakes == made  # over the open connection
    tls.cut()
    use(KEYS[:50])
    assert hits() == (50, 0)
    assert tls.handshakes > made


@pytest.mark.server
def test_redis_over_tls_that_does_not_answer(begin, wire, tls, authority):
    begin(CC_REDIS_URL=f"rediss://localhost:{tls.port}?ssl_ca_certs={authority.file}", CC_REDIS_TIMEOUT_MS=1500)
    use(KEYS[:20])
    assert hits() == (20, 0)
    tls.hold()
    use(KEYS[:20])  # with MongoDB alone
    assert hits()[0] == 0
    tls.release()

    def again():
        use(KEYS[:20])
        return hits() == (20, 0)

    assert wait_for(again)


@pytest.mark.server
@pytest.mark.parametrize("how", ["unknown authority", "wrong name"])
def test_a_certificate_that_is_not_good_is_not_accepted(begin, tls, authority, how):
    if how == "unknown authority":
        begin(CC_REDIS_HOST="localhost", CC_REDIS_PORT=tls.port, CC_REDIS_TLS=True)
    else:
        begin(CC_REDIS_URL=f"rediss://127.0.0.1:{tls.port}?ssl_ca_certs={authority.file}")
    with pytest.raises(ServerUnavailableError, match=r"certificate verify failed.*\n.*ssl_ca_certs=") as caught:
        kit.wait_for_init(timeout=500)  # which does not end the wait
    assert not isinstance(caught.value, ServerTimeoutError)
    use(KEYS[:5])  # with MongoDB alone
    assert hits()[0] == 0


@pytest.mark.server
def test_attempts_take_longer_but_not_long(begin, monkeypatch, servers):
    """A slow network gets time; a connection that hangs is replaced before the whole wait is over."""
    begin(CC_REDIS_HOST=servers.redis.socket)
    answer, given = RedisIds._ask, []

    def ask(self, limits):
        given.append(limits["socket_timeout"])
        if len(given) < 7:
            raise redis.TimeoutError("hangs")
        answer(self, limits)

    monkeypatch.setattr(RedisIds, "_ask", ask)
    kit.wait_for_init(timeout=300)
    assert given == [1, 2, 4, 8, 8, 8, 8]


# --- a user with few rights ---

LEAST = "on >p ~*_cache:* +get +mget +set +mset +del"


@pytest.fixture
def users(servers, settings):
    """A function that sets the rights of a user on the tests' Redis; the user is deleted afterwards."""
    with redis.Redis(unix_socket_path=servers.redis.socket) as client:
        yield lambda rules: client.execute_command("ACL", "SETUSER", "bot", "reset", *rules.split())
        client.acl_deluser("bot")


@pytest.mark.server
def test_the_least_rights_are_enough(begin, wire, users, servers):
    users(LEAST)
    begin(CC_REDIS_HOST=servers.redis.socket, CC_REDIS_USER="bot", CC_REDIS_PASSWORD="p")
    kit.wait_for_init(timeout=60)
    use()
    assert hits() == (len(KEYS), 0)
    for call in (STATE.id_cache.size, STATE.id_cache.clear, default_registry.mongo.drop_cache, lambda: STATE.id_cache.has(*KEYS[0])):
        with pytest.raises(DatabaseError, match=r"Redis rejected a command(.|\n)*for flush-cache and id_cache SCAN, UNLINK and EXISTS"):
            call()
    users(f"{LEAST} +scan +unlink +exists")
    assert STATE.id_cache.size() == len(KEYS)
    assert default_registry.mongo.drop_cache() == len(KEYS)


@pytest.mark.server
def test_missing_rights_are_not_taken_for_a_dead_server(begin, wire, users, servers):
    users("on >p ~other:* +get +mget +set +mset +del")
    begin(CC_REDIS_HOST=servers.redis.socket, CC_REDIS_USER="bot", CC_REDIS_PASSWORD="p")
    with pytest.raises(DatabaseError, match=r"Redis rejected a command(.|\n)*GET, MGET, SET, MSET and DEL on the keys \*_cache:\*"):
        kit.wait_for_init(timeout=30)
    use(KEYS[:5])
    assert hits()[0] == 0
    users("on >p ~*_cache:* +get +mget")
    kit.wait_for_init(timeout=60)
    use(KEYS[5:9])  # reads continue to use Redis
    begin(CC_REDIS_HOST=servers.redis.socket, CC_REDIS_USER="bot", CC_REDIS_PASSWORD="wrong")
    with pytest.raises(DatabaseError, match="Redis rejected the login"):
        kit.wait_for_init(timeout=30)


# --- shared with others ---


@pytest.mark.server
def test_two_databases_share_a_redis(begin, settings, servers):
    with redis.Redis(unix_socket_path=servers.redis.socket) as client:
        for prefix in ("one:", "two[*]:", ""):
            begin(CC_REDIS_HOST=servers.redis.socket, CC_REDIS_PREFIX=prefix)
            database = kit.get_mongo()
            database.client.drop_database(database.name)  # as if it were another one
            use()
            assert hits() == (len(KEYS), 0)
            assert STATE.id_cache.size() == len(KEYS)
            assert client.exists(f"{prefix}state_cache:s:7")
        client.set("two*:state_cache:a", "another's")
        assert client.dbsize() == 3 * len(KEYS) + 1
        for left, prefix in enumerate(("two[*]:", "one:", "")):
            begin(CC_REDIS_HOST=servers.redis.socket, CC_REDIS_PREFIX=prefix)
            assert default_registry.mongo.drop_cache() == len(KEYS)
            assert client.dbsize() == (2 - left) * len(KEYS) + 1


# --- Sentinel ---


@pytest.mark.server
def test_sentinels_that_are_away_are_named_in_one_line(begin):
    begin(CC_REDIS_SENTINEL=f"127.0.0.1:{free_port()}/ids")
    with pytest.raises(ServerTimeoutError, match=r"\(MasterNotFoundError: No master found for 'ids'\)\n"):
        kit.wait_for_init(timeout=3)


@pytest.mark.once
@pytest.mark.timeout(1200)
@pytest.mark.server
def test_the_primary_that_sentinels_know(begin, wire, tmp_path):
    with Watched(tmp_path) as watched:
        begin(CC_REDIS_SENTINEL=watched.setting)
        kit.wait_for_init()
        use()
        assert hits() == (len(KEYS), 0)
        watched.primary.kill()
        use()  # with MongoDB alone, or with the new primary
        assert wait_for(lambda: watched.is_named(watched.replica), PATIENCE)

        def again():
            use(KEYS[:20])
            return hits() == (20, 0)

        assert wait_for(again, PATIENCE)
        # The former primary comes back as a replica, which would reject writes.
        watched.primary.start()
        watched.fail_over()
        assert wait_for(again, PATIENCE)
        kit.close()


@pytest.mark.once
@pytest.mark.timeout(1200)
@pytest.mark.server
def test_a_primary_that_becomes_a_replica_is_left(begin, wire, tmp_path):
    """No connection breaks; the replica only answers READONLY."""
    with Watched(tmp_path) as watched:
        begin(CC_REDIS_SENTINEL=watched.setting)
        use()
        watched.fail_over()
        fresh = itertools.count()

        def again():
            number = next(fresh)
            use([(f"s{number}", f"{row}") for row in range(10)])
            return hits() == (10, 0)

        assert wait_for(again, PATIENCE)
        kit.close()


# --- a cluster ---


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.mark.once
@pytest.mark.server
def test_a_cluster(begin, cluster):
    begin(CC_REDIS_HOST="127.0.0.1", CC_REDIS_PORT=cluster.nodes[0].port, CC_REDIS_CLUSTER=True)
    kit.wait_for_init()
    use()
    assert hits() == (len(KEYS), 0)
    contents = cluster.contents()
    assert min(map(len, contents)) > 50
    assert set().union(*contents) == {f"state_cache:s:{number}".encode() for number in range(len(KEYS))}
    ids = STATE.id_cache
    assert (ids.size(), ids.has(*KEYS[0]), ids.delete(*KEYS[0]), ids.has(*KEYS[0])) == (len(KEYS), True, True, False)
    assert len(ids.get(*KEYS[1])) == 24
    assert default_registry.mongo.drop_cache() == len(KEYS) - 1
    assert [len(keys) for keys in cluster.contents()] == [0, 0, 0]


@pytest.mark.once
@pytest.mark.server
def test_a_batch_takes_one_message_to_each_node(begin, cluster):
    """A batch does not take one message per slot, of which there are hundreds."""
    begin(CC_REDIS_URL=f"redis://127.0.0.1:{cluster.nodes[1].port}", CC_REDIS_CLUSTER=True)
    use()
    sent = []
    client = kit.get_redis()
    for node in client.get_nodes():
        pool = client.get_redis_connection(node).connection_pool
        connection = pool.get_connection(*([] if redis.VERSION[0] >= 6 else ["GET"]))
        pool.release(connection)
        plain = connection.send_packed_command
        connection.send_packed_command = lambda *a, plain=plain, **o: sent.append(1) or plain(*a, **o)
    default_registry.mongo.process_ids.clear()
    assert len(STATE.read_many(KEYS)) == len(KEYS)
    assert len(sent) == 3


@pytest.mark.once
@pytest.mark.server
def test_a_node_that_is_gone_costs_no_call(begin, cluster):
    begin(CC_REDIS_HOST="127.0.0.1", CC_REDIS_PORT=cluster.nodes[0].port, CC_REDIS_CLUSTER=True)
    use()
    cluster.nodes[2].kill()
    try:
        use()
    finally:
        cluster.nodes[2].start()

    def again():
        use(KEYS[:50])
        return hits() == (50, 0)

    assert wait_for(again)


@pytest.mark.once
@pytest.mark.server
def test_the_commands_know_a_cluster(begin, cluster, tmp_path):
    begin(CC_REDIS_HOST="127.0.0.1", CC_REDIS_PORT=cluster.nodes[0].port, CC_REDIS_CLUSTER=True)
    use()
    cli = Cli(tmp_path, CC_MONGO_CONNECTION_STRING=kit.get_config().CC_MONGO_CONNECTION_STRING, CC_REDIS_CLUSTER="1")
    cli.environment["CC_REDIS_URL"] = f"redis://127.0.0.1:{cluster.nodes[0].port}"
    assert f"127.0.0.1:{cluster.nodes[0].port} (cluster)" in cli.out("doctor")
    work = redis_work(5)
    assert (work["keys"], work["hits"] > 0, work["memoryBytes"] > 0) == (len(KEYS), True, True)
    stats = json.loads(cli.out("stats", "--json"))
    assert stats["stored"]["domains"]["state"]["redisIds"] == len(KEYS)
    assert f"{len(KEYS)}" in cli.out("flush-cache")
    assert [len(keys) for keys in cluster.contents()] == [0, 0, 0]
