"""The id table of the compiled core, checked against a plain dict."""

import gc
import os
import random
import subprocess
import sys
import threading
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtest_kit_mongo._core.ids import IdTable

pytestmark = pytest.mark.once

steady = settings(derandomize=True, deadline=None, max_examples=300)

MILLION = 10**6
KEYS = [("BTCUSDT", "sma", number) for number in range(60)] + [(), ("",), ("börse", True), (("a", 1), None)]
CHANGES = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.binary(min_size=12, max_size=12)),
    st.tuples(st.just("drop"), st.sampled_from(KEYS)),
    st.tuples(st.just("clear")),
)


def id_of(number):
    """Encode the number in the 12 bytes of an id, so that an id tells its key."""
    return number.to_bytes(12, "big")


class Colliding:
    """A key field with a chosen hash, which runs Python code while it is hashed."""

    def __init__(self, hash_value, meanwhile=lambda: None):
        self.hash_value, self.meanwhile = hash_value, meanwhile

    def __hash__(self):
        self.meanwhile()
        return self.hash_value


# --- as a dict -------------------------------------------------------------------------------------------------------


@steady
@given(st.lists(CHANGES, max_size=200), st.sampled_from([len(KEYS), 10**9]))
@example([], 0)
def test_below_the_limit_it_is_a_dict(changes, limit):
    """The table holds exactly what was put and not dropped."""
    table, model = IdTable(limit), {}
    for name, *arguments in changes:
        getattr(table, name)(*arguments)
        if name == "put":
            model.update([arguments])
        elif name == "drop":
            model.pop(*arguments, None)
        else:
            model.clear()
        assert len(table) == len(model)
        assert table.get_many(KEYS) == [model.get(key) for key in KEYS]
    assert [table.get(key) for key in KEYS] == [model.get(key) for key in KEYS]


@pytest.mark.slow
@steady
@given(st.lists(CHANGES, max_size=200), st.integers(1, 20))
def test_at_the_limit_each_new_key_takes_the_place_of_one_other(changes, limit):
    """The table is as full as ``limit`` allows, keeps the newest entry, and never returns the id of another key."""
    table, model, count = IdTable(limit), {}, 0
    for name, *arguments in changes:
        is_kept = name != "clear" and table.get(arguments[0]) is not None
        getattr(table, name)(*arguments)
        if name == "put":
            model.update([arguments])
            count = min(count + (not is_kept), limit)
            assert table.get(arguments[0]) == arguments[1]
        elif name == "drop":
            count -= is_kept
            assert table.get(arguments[0]) is None
        else:
            count = 0
        kept = {key: value for key, value in zip(KEYS, table.get_many(KEYS), strict=True) if value is not None}
        assert len(table) == len(kept) == count
        assert kept.items() <= model.items()


@pytest.mark.parametrize("seed", range(5))
def test_a_large_table_through_growth_and_holes(seed):
    """Random puts and drops over many doublings lose nothing, even where probes wrap around the end and gaps close."""
    rng = random.Random(seed)
    table, model = IdTable(10**9), {}
    for step in range(40_000):
        key = (rng.randrange(15_000), "x")
        if rng.random() < 0.7:
            model[key] = id_of(step)
            table.put(key, model[key])
        else:
            model.pop(key, None)
            table.drop(key)
        if step % 4000 == 0:
            every = [(number, "x") for number in range(15_000)]
            assert table.get_many(every) == [model.get(key) for key in every]
    assert len(table) == len(model)
    for key in list(model):
        assert table.get(key) == model[key]
        table.drop(key)
        assert table.get(key) is None
    assert len(table) == 0


def test_who_goes_is_nobody_in_particular():
    """After a turnover of the whole table about 1/e of the old entries remain: eviction favours no region."""
    limit = 12_288  # three quarters of 2**14 slots, the highest fill ratio
    table = IdTable(limit)
    for number in range(2 * limit):
        table.put((number,), id_of(number))
        assert len(table) == min(number + 1, limit)
    old = sum(value is not None for value in table.get_many([(number,) for number in range(limit)]))
    assert 0.3 < old / limit < 0.45


def test_two_keys_of_one_hash_share_an_entry():
    """Two keys with one hash share an entry, the second replacing the first, as documented: callers must verify the record."""
    table = IdTable(10)
    first, second = (Colliding(7),), (Colliding(7),)
    table.put(first, id_of(1))
    table.put(second, id_of(2))
    assert len(table) == 1
    assert table.get(first) == table.get(second) == id_of(2)


def test_equal_keys_are_one_key():
    """Equal tuples find the same entry, even when they are different objects."""
    table = IdTable(10)
    table.put(("BTCUSDT", 2**70), id_of(1))
    assert table.get(("".join(["BTC", "USDT"]), 2**69 * 2)) == id_of(1)


def test_limit_zero_keeps_nothing():
    """Every key is a miss and no memory is allocated; invalid input still raises."""
    table = IdTable(0)
    before = table.nbytes
    table.put(("a",), id_of(1))
    table.drop(("a",))
    table.clear()
    assert table.get(("a",)) is None
    assert table.get_many([("a",)] * 3) == [None] * 3
    assert (len(table), table.nbytes) == (0, before)
    with pytest.raises(ValueError, match="12 bytes"):
        table.put(("a",), b"")


@pytest.mark.parametrize("given_as", [list, tuple, iter])
def test_get_many_takes_any_iterable(given_as):
    """There is one answer per key, in order, with duplicates."""
    table = IdTable(10)
    table.put(("a",), id_of(1))
    assert table.get_many(given_as([("b",), ("a",), ("a",)])) == [None, id_of(1), id_of(1)]
    assert table.get_many(given_as([])) == []


# --- wrong input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["abc", b"abc", None, 5, ["a"], frozenset("a"), ([],), (("a", {}),)])
def test_a_key_is_a_hashable_tuple(key):
    """A key that is not a hashable tuple is a TypeError and changes nothing."""
    table = IdTable(10)
    table.put(("a",), id_of(1))
    for call in (table.get, table.drop, lambda key: table.put(key, id_of(2)), lambda key: table.get_many([("a",), key])):
        with pytest.raises(TypeError):
            call(key)
    assert (len(table), table.get(("a",))) == (1, id_of(1))


@pytest.mark.parametrize("keys", [None, 5])
def test_get_many_takes_nothing_else(keys):
    """An argument that is not iterable is a TypeError."""
    with pytest.raises(TypeError):
        IdTable(1).get_many(keys)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (b"", ValueError),
        (b"x" * 11, ValueError),
        (b"x" * 13, ValueError),
        (None, TypeError),
        ("x" * 12, TypeError),
        (bytearray(12), TypeError),
    ],
)
def test_an_id_is_twelve_bytes(value, error):
    """An id of another size or type raises and changes nothing."""
    table = IdTable(10)
    with pytest.raises(error):
        table.put(("a",), value)
    assert table.get(("a",)) is None


@pytest.mark.parametrize(
    ("limit", "error"),
    [(-1, ValueError), (-(2**63), ValueError), (2**63, OverflowError), (None, TypeError), ("1", TypeError), (1.5, TypeError)],
)
def test_a_limit_is_a_number(limit, error):
    """A limit is an int of zero or more that fits 64 bits."""
    with pytest.raises(error):
        IdTable(limit)


# --- memory ----------------------------------------------------------------------------------------------------------


def traced(function):
    """Return the result of a call, the memory that it leaves allocated, and its peak, both in bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = function()
        after, peak = tracemalloc.get_traced_memory()
        return kept, after - before, peak - before
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, 12_288, 12_289, 100_000, 786_433, MILLION])
def test_an_entry_costs_at_most_64_bytes(count):
    """The bound holds at every moment, also during and right after growth."""

    def filled():
        table = IdTable(count)
        for number in range(count):
            table.put((number,), id_of(number))
        return table

    table, size, peak = traced(filled)
    assert len(table) == count
    assert size <= peak <= 64 * count
    assert sys.getsizeof(table) == table.nbytes <= size + 256
    assert size <= table.nbytes + 256  # nbytes reports everything


@pytest.mark.slow
def test_memory_stays_under_the_bound():
    """After a million keys, ten times the limit, the table is no larger than when it was first full."""
    limit = MILLION // 10
    table = IdTable(limit)
    for number in range(limit):
        table.put((number,), id_of(number))
    full = table.nbytes

    def turned_over():
        for number in range(limit, MILLION):
            table.put((number,), id_of(number))
            if number % 3 == 0:
                table.drop((number - 1,))

    _, size, _ = traced(turned_over)
    assert table.nbytes == full
    assert size < 1024
    assert len(table) <= limit


def test_clear_gives_the_memory_back():
    """A cleared table is as small as a new one and works like one."""
    table = IdTable(1000)
    empty = table.nbytes
    for number in range(1000):
        table.put((number,), id_of(number))
    assert table.nbytes > 1000 * 20
    table.clear()
    assert (len(table), table.nbytes) == (0, empty)
    table.put(("a",), id_of(1))
    assert (len(table), table.get(("a",))) == (1, id_of(1))


def test_a_limit_is_not_allocated_in_advance():
    """A limit larger than any memory costs nothing until there are entries."""
    table = IdTable(2**63 - 1)
    table.put(("a",), id_of(1))
    assert table.get(("a",)) == id_of(1)
    assert table.nbytes < 1000


OUT_OF_MEMORY = """
import resource
from backtest_kit_mongo._core.ids import IdTable
table = IdTable(2**63 - 1)
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 40 * 2**20,) * 2)
count = 0
try:
    while True:
        table.put((count,), count.to_bytes(12, "big"))
        count += 1
except MemoryError:
    pass
assert len(table) == count > 100_000, count
assert all(table.get((number,)) == number.to_bytes(12, "big") for number in range(count))
table.put((0,), bytes(12))  # a key that is there needs no room
table.drop((1,))
table.put((count,), bytes(12))
assert (len(table), table.get((1,)), table.get((count,))) == (count, None, bytes(12))
"""


@pytest.mark.slow
@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer needs more address space than the test allows")
@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from /proc")
def test_a_table_that_cannot_grow_stays_whole():
    """The table raises MemoryError and keeps every entry."""
    subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], check=True, timeout=200)


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_threads_that_hammer_one_table():
    """Under concurrent puts, drops and clears, an id always belongs to its key and the table never exceeds its limit."""
    table, limit, errors = IdTable(500), 500, []
    stop = threading.Event()

    class Yielding(int):
        def __hash__(self):  # Python code in the middle of every call, where threads can switch
            return int.__hash__(self) + 1

    def hammer(seed):
        rng = random.Random(seed)
        try:
            while not stop.is_set():
                number = rng.randrange(1500)
                key = (Yielding(number), "x")
                choice = rng.random()
                if choice < 0.5:
                    table.put(key, id_of(number))
                elif choice < 0.6:
                    table.drop(key)
                elif choice < 0.601:
                    table.clear()
                batch = [(Yielding(number + index), "x") for index in range(5)]
                for index, value in enumerate([table.get(key), *table.get_many(batch)]):
                    assert value in (None, id_of(number + max(index - 1, 0)))
                assert len(table) <= limit
        except BaseException as error:
            errors.append(error)
            raise

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    try:
        for thread in threads:
            thread.start()
        stop.wait(2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not errors


@pytest.mark.parametrize("call", ["get", "put", "drop", "get_many"])
def test_a_hash_that_changes_the_table(call):
    """``__hash__`` may grow, fill or clear the table: the key is hashed before the table is read."""
    table = IdTable(1000)

    def fill():
        for number in range(1000):
            table.put((number,), id_of(number))

    for meanwhile in (fill, table.clear, fill, table.clear):
        key = (Colliding(12345, meanwhile),)
        arguments = {"put": (key, id_of(5)), "get_many": ([key, (1,), key],)}.get(call, (key,))
        getattr(table, call)(*arguments)
        assert len(table) == (1000 if meanwhile is fill else call == "put")


def test_a_hash_that_shortens_the_batch():
    """If the list shrinks while get_many iterates over it, nothing is read past its end."""
    table = IdTable(10)
    batch = []
    batch += [(Colliding(1, batch.clear),)] + [("a",)] * 1000
    assert table.get_many(batch) == [None]


def test_a_hash_that_fails():
    """An error raised by ``__hash__`` propagates."""

    def fail():
        raise KeyboardInterrupt

    table = IdTable(10)
    for call in (table.get, table.drop, lambda key: table.put(key, id_of(1)), lambda key: table.get_many([key])):
        with pytest.raises(KeyboardInterrupt):
            call((Colliding(1, fail),))
