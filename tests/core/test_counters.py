"""Counters and histograms of the compiled core, checked against plain lists of durations."""

import gc
import math
import random
import sys
import threading

import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtest_kit_mongo._core.counters import Counters
from backtest_kit_mongo.metrics import COUNTS, OPERATIONS

pytestmark = pytest.mark.once

steady = settings(derandomize=True, deadline=None, max_examples=300)

SECOND = 10**9
HOUR = 3600 * SECOND
CEILING = 2**40 - 1  # ns, about 18 minutes: longer durations are counted here
PLACES = 16  # plain counts
HISTOGRAMS = 8

# Durations of every order of magnitude, and the edges of the histogram steps.
DURATIONS = st.one_of(
    st.integers(0, 64),
    st.integers(0, 40).map(lambda power: 2**power),
    st.integers(1, 40).map(lambda power: 2**power - 1),
    st.integers(0, SECOND),
    st.integers(0, 3 * HOUR),
)


def assert_close(measured, exact):
    """Check that ``measured`` is the upper edge of the step of ``exact``: never below it, and at most 1/16 above."""
    if exact > CEILING:
        assert measured == CEILING
    else:
        assert exact <= measured <= exact + exact / 16


@steady
@given(st.lists(st.tuples(st.integers(0, PLACES - 1), st.integers(-(2**40), 2**40) | st.just(1)), max_size=60))
def test_counts_add_up(additions):
    """Each of the sixteen counts is the sum of its additions."""
    counters = Counters()
    expected = [0] * PLACES
    for which, n in additions:
        counters.add(which, n)
        expected[which] += n
    assert [counters.count(which) for which in range(PLACES)] == expected


def test_a_count_grows_by_one_unless_told():
    """``add`` without a number adds one, to that count only."""
    counters = Counters()
    counters.add(3)
    counters.add(3)
    counters.add(5, n=7)
    assert [counters.count(which) for which in range(PLACES)] == [0, 0, 0, 2, 0, 7] + [0] * 10


def test_there_is_room_for_every_count_of_the_stores():
    """The arrays have room for every name that the metrics count."""
    assert len(COUNTS) <= PLACES
    assert len(OPERATIONS) <= HISTOGRAMS


@pytest.mark.parametrize("index", [-1, -PLACES, PLACES, PLACES + 1, 2**31 - 1, -(2**31)])
def test_a_count_that_does_not_exist(index):
    """An index outside the sixteen counts is an IndexError and changes nothing."""
    counters = Counters()
    with pytest.raises(IndexError):
        counters.add(index)
    with pytest.raises(IndexError):
        counters.count(index)
    assert [counters.count(which) for which in range(PLACES)] == [0] * PLACES


@pytest.mark.parametrize("index", [-1, -HISTOGRAMS, HISTOGRAMS, HISTOGRAMS + 1, 2**31 - 1, -(2**31)])
def test_an_operation_that_does_not_exist(index):
    """An index outside the eight histograms is an IndexError and changes nothing."""
    counters = Counters()
    with pytest.raises(IndexError):
        counters.observe(index, 5)
    with pytest.raises(IndexError):
        counters.observed(index)
    with pytest.raises(IndexError):
        counters.percentile(index, 50)
    assert [counters.observed(operation) for operation in range(HISTOGRAMS)] == [0] * HISTOGRAMS


@pytest.mark.parametrize("index", [2**31, -(2**31) - 1, 2**64])
def test_an_index_outside_32_bits(index):
    """An index that does not fit 32 bits is an OverflowError and never wraps around to another index."""
    counters = Counters()
    for call in (counters.add, counters.count, counters.observed):
        with pytest.raises(OverflowError):
            call(index)
    with pytest.raises(OverflowError):
        counters.observe(index, 1)
    with pytest.raises(OverflowError):
        counters.percentile(index, 50)


@pytest.mark.parametrize("n", [2**63, -(2**63) - 1])
def test_numbers_outside_64_bits(n):
    """A count or a duration outside 64 bits is an OverflowError."""
    counters = Counters()
    with pytest.raises(OverflowError):
        counters.add(0, n)
    with pytest.raises(OverflowError):
        counters.observe(0, n)
    assert counters.count(0) == counters.observed(0) == 0


@pytest.mark.parametrize("value", [None, "1", [1]])
def test_wrong_types(value):
    """Anything but numbers is a TypeError."""
    counters = Counters()
    for call, *before in ((counters.add,), (counters.add, 0), (counters.observe, 0), (counters.percentile, 0)):
        with pytest.raises(TypeError):
            call(*before, value)


# --- histograms ------------------------------------------------------------------------------------------------------


@steady
@given(DURATIONS)
@example(0)
@example(15)
@example(16)
@example(31)
@example(32)
@example(33)
@example(CEILING)
@example(CEILING + 1)
@example(2**63 - 1)
def test_one_duration_is_its_own_percentile(nanoseconds):
    """The percentile is within 1/16, exact below 32 ns, and the ceiling for anything longer than 18 minutes."""
    counters = Counters()
    counters.observe(2, nanoseconds)
    for percent in (0, 0.1, 50, 99, 100):
        assert_close(counters.percentile(2, percent), nanoseconds)
    if nanoseconds < 32:
        assert counters.percentile(2, 50) == nanoseconds


@pytest.mark.slow
@steady
@given(st.lists(DURATIONS, min_size=1, max_size=200), st.integers(1, 100) | st.sampled_from([0.25, 12.5, 99.5, 99.75]))
@example([1] * 7 + [5] * 93, 7)
@example([1] * 29 + [5] * 71, 29)
@example([1] * 57 + [5] * 43, 57)
@example([1] * 58 + [5] * 42, 58)
@example([3 * HOUR] * 3 + [5], 50)
@example([0], 100)
def test_percentiles_are_those_of_the_sorted_durations(durations, percent):
    """A percentile is the nearest rank, within 1/16: the smallest duration that at least ``percent`` of all durations do not exceed."""
    counters = Counters()
    for nanoseconds in durations:
        counters.observe(0, nanoseconds)
    assert counters.observed(0) == len(durations)
    measured = counters.percentile(0, percent)
    assert isinstance(measured, float)
    assert_close(measured, reference.percentile(durations, percent))


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_of_a_hundred_thousand_latencies(seed):
    """With latencies of five orders of magnitude, p1 to p100 stay within 1/16 of the exact values and never decrease."""
    rng = random.Random(seed)
    durations = [int(rng.lognormvariate(11, 2.5)) for _ in range(100_000)]
    counters = Counters()
    for nanoseconds in durations:
        counters.observe(7, nanoseconds)
    ordered = sorted(durations)
    measured = [counters.percentile(7, percent) for percent in range(1, 101)]
    for percent, value in enumerate(measured, 1):
        assert_close(value, ordered[percent * 1000 - 1])
    assert measured == sorted(measured)


def test_steps_are_ordered_and_never_wider_than_a_sixteenth():
    """Around every edge up to the ceiling, a longer duration is never reported as a shorter one."""
    before = -1.0
    for power in range(41):
        for sixteenth in range(16):
            edge = 2**power + 2**power * sixteenth // 16
            for nanoseconds in (edge - 1, edge, edge + 1):
                counters = Counters()
                counters.observe(0, max(nanoseconds, 0))
                measured = counters.percentile(0, 50)
                assert_close(measured, max(nanoseconds, 0))
                if nanoseconds == edge:
                    assert measured >= before
                    before = measured


def test_hours_are_counted_at_the_ceiling():
    """A duration longer than 18 minutes is counted and reported as 18 minutes."""
    counters = Counters()
    for nanoseconds in (HOUR, 24 * HOUR, 2**63 - 1, CEILING + 1):
        counters.observe(1, nanoseconds)
    counters.observe(1, 5)
    assert counters.observed(1) == 5
    assert counters.percentile(1, 20) == 5
    assert counters.percentile(1, 21) == counters.percentile(1, 100) == CEILING


@pytest.mark.parametrize("nanoseconds", [-1, -HOUR, -(2**63)])
def test_a_clock_that_went_back_counts_as_zero(nanoseconds):
    """A negative duration counts as zero and raises nothing."""
    counters = Counters()
    counters.observe(0, nanoseconds)
    assert counters.observed(0) == 1
    assert counters.percentile(0, 50) == 0


def test_without_durations_there_is_no_percentile():
    """Without durations a percentile is None, not zero."""
    counters = Counters()
    assert [counters.percentile(operation, 50) for operation in range(HISTOGRAMS)] == [None] * HISTOGRAMS


@pytest.mark.parametrize("percent", [-1, -math.inf, 101, 1e300, math.inf, math.nan])
def test_percents_that_make_no_sense(percent):
    """Such a percent means the shortest or the longest step; no memory beyond the histogram is read."""
    counters = Counters()
    counters.observe(0, 7)
    assert counters.percentile(0, percent) in (7, CEILING)


def test_operations_do_not_touch_each_other():
    """Each operation has its own histogram, separate from the counts."""
    counters = Counters()
    for operation in range(HISTOGRAMS):
        for _ in range(operation):
            counters.observe(operation, operation)
        counters.observe(operation, 2**63 - 1)  # the last step of one histogram is next to the first of the following one
    assert [counters.observed(operation) for operation in range(HISTOGRAMS)] == [operation + 1 for operation in range(HISTOGRAMS)]
    assert [counters.percentile(operation, 10) for operation in range(1, HISTOGRAMS)] == list(range(1, HISTOGRAMS))
    assert [counters.count(which) for which in range(PLACES)] == [0] * PLACES


def filled(counters, times=1):
    for _ in range(times):
        for which in range(PLACES):
            counters.add(which, 5)
        for operation in range(HISTOGRAMS):
            counters.observe(operation, 100)
    return counters


def test_a_copy_stays_as_it_is():
    """A copy holds the counts and histograms of one instant; neither side changes the other."""
    counters = filled(Counters())
    copy = counters.copy()
    filled(counters, 2)
    copy.add(0)
    assert [copy.count(which) for which in range(PLACES)] == [6] + [5] * (PLACES - 1)
    assert [copy.observed(operation) for operation in range(HISTOGRAMS)] == [1] * HISTOGRAMS
    assert [counters.count(which) for which in range(PLACES)] == [15] * PLACES
    assert [counters.observed(operation) for operation in range(HISTOGRAMS)] == [3] * HISTOGRAMS


@pytest.mark.slow
@steady
@given(st.lists(DURATIONS, max_size=100), st.lists(DURATIONS, max_size=100), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_difference_is_what_was_counted_later(earlier, later, percent):
    """Counts, number and percentiles cover only the later durations; neither operand changes."""
    counters = Counters()
    for nanoseconds in earlier:
        counters.add(3, 7)
        counters.observe(2, nanoseconds)
    before = counters.copy()
    for nanoseconds in later:
        counters.add(3)
        counters.observe(2, nanoseconds)
    difference = counters.since(before)
    assert difference.count(3) == difference.observed(2) == len(later)
    if later:
        assert_close(difference.percentile(2, percent), reference.percentile(later, percent))
    else:
        assert difference.percentile(2, percent) is None
    assert counters.count(3) == 7 * len(earlier) + len(later)
    assert before.observed(2) == len(earlier)
    assert counters.since(counters).observed(2) == 0


@pytest.mark.parametrize("other", [None, 5, object()])
def test_a_difference_from_anything_else(other):
    """Only another Counters can be subtracted."""
    with pytest.raises(TypeError):
        Counters().since(other)


# --- threads and memory ----------------------------------------------------------------------------------------------


def test_eight_threads_lose_nothing():
    """Eight threads with 100,000 counts and durations each, switched as often as the interpreter can, lose none."""
    counters = Counters()
    start = threading.Barrier(8)

    def work(thread):
        start.wait()
        for index in range(100_000):
            counters.add(0)
            counters.add(thread, 2)
            counters.observe(0, index)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(1, 9)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert counters.count(0) == 800_000
    assert [counters.count(thread) for thread in range(1, 9)] == [200_000] * 8
    assert counters.observed(0) == 800_000
    assert_close(counters.percentile(0, 50), 50_000)


@pytest.mark.slow
def test_counters_keep_no_memory():
    """Neither counting nor a failed count leaks memory."""

    def blocks(count):
        for index in range(count):
            counters = Counters()
            counters.add(1, index)
            counters.observe(1, index)
            counters.copy().since(counters).percentile(1, 50)
            try:
                counters.add(99)
            except IndexError:
                continue
            raise AssertionError("no error")
        gc.collect()
        return sys.getallocatedblocks()

    blocks(500)
    before = blocks(500)
    assert abs(blocks(20_000) - before) < 500
