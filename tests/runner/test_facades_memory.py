"""Memory and its search."""

from __future__ import annotations

import math

import pytest
from facade_runs import HOUR, KINDS, MINUTE, T0, a_run, at, set_up
from hypothesis import given
from hypothesis import strategies as st

import backtest_kit_mongo as kit
from backtest_kit_mongo import payloads
from backtest_kit_mongo.errors import InvalidTypeError, InvalidValueError
from backtest_kit_mongo.runner.facades import Memory, NoSignalError
from backtest_kit_mongo.runner.facades.text_search import scores, words

pytestmark = pytest.mark.once

TEXTS = {
    "crash": "btc crash after exchange hack",
    "rally": "eth rally on upgrade news",
    "range": "btc range bound, no news",
    "hack": "exchange hack, exchange halted",
}


@pytest.fixture(params=KINDS)
def kind(request, settings, tmp_path):
    set_up(request.param, settings, tmp_path)
    return request.param


def ids(found):
    return [one.memory_id for one in found]


def test_memory(kind):
    memory = Memory("notes")
    with at(a_run()):
        assert (memory.read("a"), memory.has("a"), memory.list()) == (None, False, [])
        memory.write("a", {"n": 1}, "one")
        memory.write("a", {"n": 2}, "two")
        assert (memory.read("a"), memory.has("a")) == ({"n": 2}, True)
        memory.remove("a")
        memory.remove("never there")
        assert (memory.read("a"), memory.has("a"), memory.list()) == (None, False, [])
        memory.write("a", {}, "three")
        assert (memory.read("a"), memory.has("a")) == ({}, True)
    row = kit.PersistMemoryAdapter.read_memory_data("sig-1", "notes", "a", type=payloads.MemoryData[dict])
    assert (row.data, row.index, row.when, row.removed) == ({}, "three", T0, False)


def test_the_order_of_a_list_is_that_of_simulation_time(kind):
    memory = Memory("notes")
    for memory_id, when in (("late", T0 + HOUR), ("b", T0), ("a", T0)):
        with at(a_run(), when):
            memory.write(memory_id, {}, "")
    with at(a_run(), T0 + HOUR):
        assert ids(memory.list()) == ["a", "b", "late"]
    with at(a_run(), T0 + MINUTE):
        assert ids(memory.list()) == ["a", "b"]


def test_memories_belong_to_signal_and_bucket(kind):
    with at(a_run()):
        Memory("notes").write("a", {"n": 1}, "word word")
    for run, memory in ((a_run(signal="sig-2"), Memory("notes")), (a_run(), Memory("other"))):
        with at(run):
            assert (memory.read("a"), memory.list(), memory.search("word", min_score=0)) == (None, [], [])
    with at(a_run(signal=None)):
        assert Memory("notes", signal_id="sig-1").read("a") == {"n": 1}
        for call in (lambda: Memory("notes").read("a"), lambda: Memory("notes").write("a", {}, ""), Memory("notes").list):
            with pytest.raises(NoSignalError):
                call()


def test_bad_arguments_write_nothing(kind):
    memory = Memory("notes")
    with at(a_run()):
        for content, description in ((5, ""), (None, ""), ([], ""), ({}, 5), ({}, None)):
            with pytest.raises(InvalidTypeError, match=r"Memory\.write"):
                memory.write("a", content, description)
        for query, options in ((5, {}), ("x", {"limit": 1.5}), ("x", {"limit": True})):
            with pytest.raises(InvalidTypeError, match=r"Memory\.search"):
                memory.search(query, **options)
        with pytest.raises(InvalidValueError, match="limit is -1"):
            memory.search("x", limit=-1)
        assert memory.list() == []


def test_search(kind):
    memory = Memory("notes")
    with at(a_run()):
        for memory_id, text in TEXTS.items():
            memory.write(memory_id, {"text": text}, text)
        assert ids(memory.search("exchange hack")) == ["hack", "crash"]
        assert ids(memory.search("Exchange HACK", limit=1)) == ["hack"]
        assert ids(memory.search("rally")) == ["rally"]
        assert memory.search("rally")[0].content == {"text": TEXTS["rally"]}
        for nothing in ("", "  ", "dogecoin", "!?"):
            assert memory.search(nothing, min_score=0) == []
        assert memory.search("rally", limit=0) == []
        memory.remove("rally")
        assert memory.search("rally") == []


def test_equal_hits_come_newest_first(kind):
    memory = Memory("notes")
    for number in range(3):
        with at(a_run(), T0 + number * MINUTE):
            memory.write(f"m{number}", {}, "same text")
    with at(a_run(), T0 + HOUR):
        assert ids(memory.search("text", min_score=0)) == ["m2", "m1", "m0"]


def test_the_future_is_not_in_the_statistics(kind):
    """Records of a later simulation time do not change the scores."""
    memory = Memory("notes")

    def write(names, when):
        with at(a_run(), when):
            for name in names:
                memory.write(name, {}, TEXTS[name])

    write(["crash", "rally"], T0)
    with at(a_run()):
        alone = memory.search("btc hack", min_score=0)
    write(["range", "hack"], T0 + HOUR)
    with at(a_run()):
        assert memory.search("btc hack", min_score=0) == alone
    with at(a_run(), T0 + HOUR):
        assert memory.search("btc hack", min_score=0)[0].score != alone[0].score


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Падіння біткоїна", "біткоїна"),
        ("СТОП-ЛОСС сработал", "стоп"),
        ("ビットコイン急落", "急落"),
        ("比特币大跌", "大跌"),
        ("비트코인 급락", "급락"),
        ("Cafe\u0301 closed", "café"),
        ("Straße gesperrt", "STRASSE"),
        ("ＦＴＸ halted", "ftx"),
        ("100 ㎒", "mhz"),
        ("سوق العملات", "العملات"),
    ],
)
def test_search_in_any_script(mongo, text, query):
    memory = Memory("notes")
    with at(a_run()):
        memory.write("hit", {}, text)
        memory.write("miss", {}, "something else")
        memory.write("miss too", {}, "and nothing")
        assert ids(memory.search(query)) == ["hit"]


def test_scores_by_hand():
    """Two texts of 2 and 4 words: average 3; the word is in the first one only, once."""
    weight = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
    expected = weight * 1 * 2.5 / (1 + 1.5 * (1 - 0.75 + 0.75 * 2 / 3))
    assert scores("hack", ["btc hack", "eth rally on news"]) == [pytest.approx(expected), 0.0]
    assert scores("hack hack", ["btc hack", "eth rally on news"]) == scores("hack", ["btc hack", "eth rally on news"])
    assert scores("x", []) == []
    assert scores("x", ["", "!"]) == [0.0, 0.0]


def test_one_word_among_few_is_below_the_threshold(mongo):
    """As in the framework; the manual and the docstring say how to find it anyway."""
    memory = Memory("notes")
    with at(a_run()):
        memory.write("a", {}, "hack")
        assert memory.search("hack") == []
        assert ids(memory.search("hack", min_score=0)) == ["a"]


@given(st.text(), st.lists(st.text(), max_size=5))
def test_scores_are_finite_and_say_which_texts_have_a_word(query, texts):
    scored = scores(query, texts)
    assert len(scored) == len(texts)
    for score, text in zip(scored, texts, strict=True):
        assert math.isfinite(score)
        assert (score > 0) == bool(set(words(query)) & set(words(text)))
