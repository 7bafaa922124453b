"""Measure.cached: a function is called once for each answer, in threads, tasks, processes and runs."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import math
import os
import subprocess
import sys
import threading
import uuid
from collections import namedtuple
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest
from facade_runs import HOUR, KINDS, MINUTE, T0, a_run, again, at, in_threads, set_up
from hypothesis import given
from hypothesis import strategies as st
from paths import HELPERS

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.contracts.default_registry import default_registry
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner.facades import Measure, NestedCallError
from backtest_kit_mongo.runner.facades.argument_key import key_function
from backtest_kit_mongo.runner.facades.run_scope import derive_key
from backtest_kit_mongo.simulation import current_time

pytestmark = pytest.mark.once


@pytest.fixture(params=KINDS)
def kind(request, settings, tmp_path):
    set_up(request.param, settings, tmp_path)
    return request.param


def counted(answer=lambda *args, **kwargs: {"args": list(args), **kwargs}):
    calls = []

    def ask(*args, **kwargs):
        calls.append((args, kwargs))
        return answer(*args, **kwargs)

    return ask, calls


def test_one_answer(kind):
    function, calls = counted()
    ask = Measure.cached(bucket="llm")(function)
    with at(a_run()):
        assert ask("hello", n=1) == ask("hello", n=1) == {"args": ["hello"], "n": 1}
        assert ask("hello", n=2)["n"] == 2
    with at(a_run(), T0 + 1000 * HOUR):
        assert ask("hello", n=1)["n"] == 1
    assert calls == [(("hello",), {"n": 1}), (("hello",), {"n": 2})]


def test_one_answer_for_each_interval(kind):
    function, calls = counted(lambda: len(calls))
    ask = Measure.cached("1h", bucket="hourly")(function)
    collected = []
    for minute in (0, 1, 59, 60, 119, 120, 30):
        with at(a_run(), T0 + minute * MINUTE):
            collected.append(ask())
    assert collected == [1, 1, 1, 2, 2, 3, 1]


def test_what_is_kept_knows_nothing_of_later_minutes(kind):
    """Of runs that first call at different minutes of one interval, none reads a later minute's answer, and each finds its own again."""
    calls = []

    @Measure.cached("1h")
    def ask():
        calls.append((current_time() - T0) // MINUTE)
        return calls[-1]

    collected = []
    for minute in (40, 10, 40, 10, 20, 59, 5, 40):
        with at(again(), T0 + minute * MINUTE):
            collected.append(ask())
    assert collected == [40, 10, 40, 10, 10, 40, 5, 40]
    assert calls == [40, 10, 5]
    with at(a_run(), T0):
        assert ask.clear() == 1
        assert ask() == 0


def test_symbols_strategies_and_exchanges_have_their_own(kind):
    function, calls = counted()
    ask = Measure.cached("1h", bucket="llm")(function)
    runs = [a_run(), a_run(symbol="ETHUSDT"), a_run(strategy="rsi"), a_run(exchange="kraken"), a_run(symbol="a", strategy="b_c"),
            a_run(symbol="a_b", strategy="c")]  # fmt: skip
    for run in runs * 2:
        with at(run):
            ask(1)
    assert len(calls) == len(runs)


def test_buckets_do_not_depend_on_the_order_of_decoration(kind):
    def make():
        def ask(x):
            return x

        return ask

    with at(a_run()):
        for _ in range(3):
            Measure.cached("1h")(make())(1)
            Measure.cached()(make())(1)
    result = "test_facades_measure.test_buckets_do_not_depend_on_the_order_of_decoration.<locals>.make.<locals>.ask"
    for name in (f"{result}_1h", result):
        [key] = kit.PersistMeasureAdapter.list_measure_data(name)
        assert key.startswith("BTCUSDT_")
        row = kit.PersistMeasureAdapter.read_measure_data(name, key, type=payloads.MeasureData[int])
        assert (row.id, row.data, row.removed) == (key, 1, False)


def test_a_function_of_another_interval_shares_nothing(kind):
    function, calls = counted()
    for interval in ("1h", "1d", None):
        with at(a_run(), T0 // (24 * HOUR) * 24 * HOUR):
            Measure.cached(interval, bucket="one")(function)(1)
    assert len(calls) == 3


def test_a_second_run_and_a_second_registry_read_it(settings):
    other = kit.Registry()
    kit.setup(settings)
    other.setup(settings)
    function, calls = counted()
    ask = Measure.cached("1h", bucket="llm")(function)
    try:
        for run in (again(), again(other), a_run(frame="april"), a_run(other, backtest=False)):
            with at(run):
                assert ask(1) == {"args": [1]}
    finally:
        other.close()
    assert len(calls) == 1


CHILD = """
import json, sys
sys.path[:0] = json.loads(sys.argv[2])
import backtest_kit_mongo as kit
from facade_runs import again, at
from backtest_kit_mongo.runner.facades import Measure
kit.setup(json.loads(sys.argv[1]))

@Measure.cached("1h", bucket="llm")
def ask(prompt, *, options):
    raise SystemExit("it was asked again")

with at(again()):
    print(json.dumps(ask("why?", options={"b": 2, "a": {"x", "y", "z"}})))
"""


def test_another_process_reads_it(settings):
    kit.setup(settings)

    @Measure.cached("1h", bucket="llm")
    def ask(prompt, *, options):
        return {"prompt": prompt, "n": 1.5}

    with at(a_run()):
        answer = ask("why?", options={"a": {"z", "y", "x"}, "b": 2})
        for seed in "01":  # sets have a different order in each process
            child = subprocess.run(
                [sys.executable, "-c", CHILD, json.dumps(settings), json.dumps([str(HELPERS)])],
                capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONHASHSEED": seed},
            )  # fmt: skip
            assert child.stderr == ""
            assert json.loads(child.stdout) == answer


def test_the_first_answer_is_like_all_others(kind):
    """It is as the store returns it, so that a strategy treats a new answer like a kept one."""
    ask = Measure.cached(bucket="shape")(lambda: {"t": (1, 2), "when": datetime(2023, 3, 1, tzinfo=UTC), "nan": math.nan})
    with at(a_run()):
        first, second = ask(), ask()
    assert repr(first) == repr(second)
    assert first["t"] == [1, 2]


class Answer(msgspec.Struct):
    text: str
    tokens: list[int]


def test_an_answer_of_a_type(kind):
    function, calls = counted(lambda: Answer("yes", [1]))
    with at(a_run()):
        typed = Measure.cached(bucket="typed", type=Answer)(function)
        assert typed() == typed() == Answer("yes", [1])
        assert Measure.cached(bucket="typed")(function)() == {"text": "yes", "tokens": [1]}
    assert len(calls) == 1


def test_none_is_an_answer(kind):
    function, calls = counted(lambda: None)
    ask = Measure.cached(bucket="none")(function)
    with at(a_run()):
        assert (ask(), ask(), len(calls)) == (None, None, 1)


def test_exceptions_are_not_kept(kind):
    outcomes = iter([TimeoutError("no answer"), SystemExit(3), "yes"])

    @Measure.cached()
    def ask():
        outcome = next(outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with at(a_run()):
        with pytest.raises(TimeoutError, match="no answer"):
            ask()
        with pytest.raises(SystemExit):
            ask()
        assert ask() == ask() == "yes"


@pytest.mark.parametrize(
    "answer", [object(), {1}, "x" * 17_000_000, "\ud800", 10**30, {"a": lambda: 0}], ids=lambda value: type(value).__name__
)
def test_an_answer_that_cannot_be_stored(kind, answer):
    function, calls = counted(lambda: answer)
    function.__qualname__ = "llm.ask"
    ask = Measure.cached(bucket="bad")(function)
    with at(a_run()):
        for _ in range(2):
            with pytest.raises(
                (InvalidTypeError, InvalidValueError), match=r"(?s)llm\.ask: the answer of the function cannot be stored.*hint: return"
            ):
                ask()
        assert list(kit.PersistMeasureAdapter.list_measure_data("bad")) == []
    assert len(calls) == 2


def test_a_dummy_store_keeps_nothing_and_stands_in_no_way(mongo):
    kit.PersistMeasureAdapter.use_dummy()
    function, calls = counted()
    ask = Measure.cached(bucket="dummy")(function)
    with at(a_run()):
        assert ask(1) == ask(1) == {"args": [1]}
    assert len(calls) == 2


def test_clear(kind):
    function, calls = counted()
    ask = Measure.cached("1h", bucket="llm")(function)
    for run in (a_run(), a_run(symbol="ETHUSDT"), a_run(symbol="BTCUSDT", strategy="rsi")):
        with at(run):
            ask(1)
            ask(2)
    with at(a_run()):
        assert ask.clear() == 2
        assert ask.clear() == 0
        ask(1)
    with at(a_run(symbol="ETHUSDT")):
        ask(1)
    assert len(calls) == 7


# --- concurrency ---


def test_threads_ask_once(kind):
    gate, calls = threading.Event(), []

    @Measure.cached("1h")
    def ask(x):
        calls.append(x)
        gate.wait(60)
        return {"x": x}

    with at(a_run()):
        threading.Timer(0.2, gate.set).start()
        assert in_threads(8, lambda number: ask(number % 2)) == [{"x": number % 2} for number in range(8)]
    assert sorted(calls) == [0, 1]


def test_threads_that_waited_for_a_failure_ask_themselves(mongo):
    calls = []

    @Measure.cached()
    def ask():
        calls.append(None)
        if len(calls) == 1:
            raise TimeoutError("the first one")
        return "yes"

    with at(a_run()):
        answers = in_threads(4, lambda number: ask())
    assert sorted(map(str, answers)) == ["the first one", "yes", "yes", "yes"]
    assert len(calls) == 2


def test_tasks_ask_once_and_do_not_stop_the_loop(kind):
    calls = []

    @Measure.cached("1h")
    async def ask(x):
        calls.append((x, current_time()))
        await asyncio.sleep(0.05)
        return {"x": x}

    async def all_at_once():
        return await asyncio.gather(*(ask(number % 2) for number in range(6)))

    with at(a_run(), T0 + MINUTE):
        assert asyncio.run(all_at_once()) == [{"x": number % 2} for number in range(6)]
        assert asyncio.run(ask(0)) == {"x": 0}
    assert sorted(calls) == [(0, T0 + MINUTE), (1, T0 + MINUTE)]


def test_loops_of_many_threads_ask_once(mongo):
    calls = []

    @Measure.cached()
    async def ask():
        calls.append(None)
        await asyncio.sleep(0.1)
        return "yes"

    with at(a_run()):
        assert in_threads(4, lambda number: asyncio.run(ask())) == ["yes"] * 4
    assert len(calls) == 1


def test_a_cancelled_task_leaves_the_way_free(mongo):
    calls = []

    @Measure.cached()
    async def ask():
        calls.append(None)
        await asyncio.sleep(0.05 if len(calls) > 1 else 600)
        return "yes"

    async def story():
        first, waiting, other = (asyncio.create_task(ask()) for _ in range(3))
        await asyncio.sleep(0.05)
        waiting.cancel()  # a cancelled waiter must not cancel the others
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(first, waiting, other, return_exceptions=True)

    with at(a_run()):
        first, waiting, other = asyncio.run(asyncio.wait_for(story(), 60))
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(waiting, asyncio.CancelledError)
    assert other == "yes"


def test_a_function_that_asks_itself(mongo):
    @Measure.cached()
    def same(x):
        return same(x)

    @Measure.cached()
    def down(x):
        return x if x == 0 else down(x - 1)

    with at(a_run()):
        with pytest.raises(NestedCallError, match=r"(?s)recursive call.*hint: the function must not call itself"):
            same(1)
        assert down(5) == 0


# --- what distinguishes calls ---


class Color(enum.Enum):
    RED = 1


class Number(enum.IntEnum):
    ONE = 1


Pair = namedtuple("Pair", "a b")


@dataclasses.dataclass
class Data:
    a: object


class Record(msgspec.Struct):
    a: object


ALL_DIFFERENT = [
    None, True, False, 1, 0, 1.0, 0.0, -0.0, math.nan, math.inf, "1", "", b"1", b"", "None", "nan", 2**63, -(2**63), 10**5000,
    Decimal(1), Decimal("1.0"), Decimal("NaN"), Color.RED, Number.ONE, [], (), {}, set(), frozenset(), [1], (1,), {1}, {1: 1}, {"1": 1},
    [[1], 2], [1, [2]], [[], []], [[[]]], ["a", "b"], ["a, b"], ["a'", "b"], Pair(1, 2), (1, 2), Data(1), Record(1), Data([1]),
    {"a": 1}, {"a": 1, "b": 2}, {"a": {"b": 2}}, [("a", 1)], datetime(2023, 3, 1, tzinfo=UTC), datetime(2023, 3, 1),
    datetime(2023, 3, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2023, 3, 1).date(), timedelta(1), uuid.UUID(int=1),
    datetime(2023, 3, 1, fold=1),
    np.float64(1), np.int64(1), np.float32(1), np.array([1]), np.array([[1]]), np.array([1.0]), Path("1"), "\ud800", "\\ud800", "a\0b",
    np.array([(1, 2.0)], dtype=[("a", "<i4"), ("b", "<f8")]), np.array([(1, 2.0)], dtype=[("b", "<i4"), ("a", "<f8")]),
]  # fmt: skip


def key_of(*args, **kwargs):
    def function(*args, **kwargs):
        return None

    return derive_key(key_function("f", function, None)(*args, **kwargs))


def test_different_values_have_different_keys():
    keys = {key_of(value): index for index, value in enumerate(ALL_DIFFERENT)}
    assert len(keys) == len(ALL_DIFFERENT)


def test_equal_calls_have_one_key(mongo):
    calls = []

    @Measure.cached()
    def ask(a, b=2, *rest, c=3, **more):
        calls.append((a, b, rest, c, more))

    with at(a_run()):
        for args, kwargs in (((1,), {}), ((1, 2), {}), ((), {"a": 1}), ((), {"b": 2, "a": 1}), ((1,), {"c": 3})):
            ask(*args, **kwargs)
        assert len(calls) == 1
        ask(1, z=1, y=2)
        ask(1, y=2, z=1)
        assert len(calls) == 2
        with pytest.raises(TypeError, match="missing a required argument: 'a'"):
            ask()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=8,
)


def told_apart(value):
    """Return what distinguishes two values in Python, types included; the order of a dict does not count."""
    if isinstance(value, dict):
        return "dict", sorted(((told_apart(key), told_apart(member)) for key, member in value.items()), key=repr)
    if isinstance(value, (list, tuple)):
        return type(value).__name__, [told_apart(member) for member in value]
    return type(value).__name__, repr(value)


@given(VALUES, VALUES)
def test_keys_are_equal_for_equal_arguments_only(one, two):
    assert (key_of(one) == key_of(two)) == (told_apart(one) == told_apart(two))


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_arguments_do_not_run_together(one, two):
    assert (key_of(*one) == key_of(*two)) == (one == two)


class Client:
    @Measure.cached()
    def ask(self, x):
        return x


def test_arguments_without_a_lasting_name(mongo):
    circular = []
    circular.append(circular)
    ask = Measure.cached(bucket="b")(lambda *args, **kwargs: 1)
    with at(a_run()):
        for value in (object(), lambda: 0, iter([1]), {"a": object()}, np.array([object()])):
            with pytest.raises(InvalidTypeError, match=r"(?s)argument args cannot be part of a key.*hint: key=lambda"):
                ask(value)
        with pytest.raises(InvalidValueError, match="nested too deeply or contains itself"):
            ask(circular)
        with pytest.raises(InvalidTypeError, match=r"argument self cannot be part of a key: a .*Client has no form"):
            Client().ask(1)


def test_key(kind):
    calls = []

    @Measure.cached(key=lambda client, prompt: prompt)
    def ask(client, prompt):
        calls.append(prompt)
        return prompt

    with at(a_run()):
        for prompt in ("a", "b"):
            for _ in range(2):
                assert ask(object(), prompt) == prompt
    assert calls == ["a", "b"]


def test_what_cannot_be_decorated():
    def numbers():
        yield 1

    for bad, text in ((5, "decorates a function, got int"), (numbers, "is a generator")):
        with pytest.raises(InvalidTypeError, match=text):
            Measure.cached("1h")(bad)
    for bad in (lambda: 1, len):
        with pytest.raises(InvalidValueError, match=r"(?s)no name of its own.*hint: bucket="):
            Measure.cached("1h")(bad)
    with pytest.raises(InvalidTypeError, match="interval must be a str, got function"):
        Measure.cached(numbers)
    with pytest.raises(InvalidValueError, match="unknown interval '7m'"):
        Measure.cached("7m")
    with pytest.raises(InvalidTypeError, match="key must be a function"):
        Measure.cached(key="prompt", bucket="b")(test_key)


def test_a_decorated_function_is_still_itself():
    @Measure.cached()
    async def ask(x: int) -> int:
        """Ask somebody."""

    assert (ask.__name__, ask.__doc__, asyncio.iscoroutinefunction(ask)) == ("ask", "Ask somebody.", True)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_call_of_its_parent(mongo):
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    started, gate = threading.Event(), threading.Event()

    @Measure.cached()
    def ask():
        started.set()
        gate.wait(60)
        return "yes"

    with at(a_run(default_registry)):
        thread = threading.Thread(target=__import__("contextvars").copy_context().run, args=(ask,))
        thread.start()
        started.wait(60)
        child = os.fork()
        if child == 0:
            gate.set()
            os._exit(0 if ask() == "yes" else 1)
        _, status = os.waitpid(child, 0)
        gate.set()
        thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
