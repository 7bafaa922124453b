"""The check that the load benchmark relies on finds every violation and reports nothing else."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from linearizability import NEVER, NOTHING, OPERATION, violations

pytestmark = pytest.mark.once

W, R = True, False


def history(*operations, key=0):
    return np.array([(key, *operation) for operation in operations], OPERATION)


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [(W, 1, 0, 10)],
        [(R, NOTHING, 0, 1), (W, 1, 2, 3), (R, 1, 4, 5)],
        [(W, 1, 0, 10), (R, NOTHING, 5, 6), (R, 1, 7, 8)],  # read before and after the write takes effect
        [(W, 1, 0, 10), (W, 2, 0, 10), (R, 2, 11, 12)],
        [(W, 1, 0, 10), (W, 2, 0, 10), (R, 1, 1, 2), (R, 2, 11, 12)],
        [(W, 1, 0, 10), (W, 2, 11, NEVER), (R, 1, 12, 13), (R, 2, 14, 15)],  # the write failed, and took effect later
        [(W, 1, 0, 10), (W, 2, 11, NEVER), (R, 1, 12, 13)],  # or never
        [(R, NOTHING, 0, 100), (W, 1, 1, 2)],
    ],
    ids=str,
)
def test_good_histories(operations):
    assert list(violations(history(*operations))) == []


@pytest.mark.parametrize(
    ("operations", "text", "shown"),
    [
        ([(R, 7, 0, 1)], "7 was read, and nobody wrote it", 1),
        ([(R, 1, 0, 1), (W, 1, 2, 3)], "1 was read before it was written", 2),
        ([(W, 1, 0, 1), (R, NOTHING, 2, 3)], "a value comes between|two values take turns", 2),
        ([(W, 1, 0, 1), (W, 2, 2, 3), (R, 1, 4, 5)], "a value comes between", 3),  # an old value
        ([(W, 1, 0, 1), (R, 1, 2, 3), (W, 2, 4, 5), (R, 2, 6, 7), (R, 1, 8, 9), (R, 2, 10, 11)], "two values take turns", 4),
        ([(W, 1, 0, 1), (W, 2, 2, NEVER), (R, 2, 3, 4), (R, 1, 5, 6)], "a value comes between|two values", 3),  # seen, then gone again
    ],
    ids=str,
)
def test_bad_histories(operations, text, shown):
    noise = [(W, 100 + number, 100 + 2 * number, 101 + 2 * number) for number in range(20)]
    reported = list(violations(history(*operations, *noise)))
    assert len(reported) >= 1
    assert any(part in reported[0].text for part in text.split("|"))
    assert len(reported[0].operations) <= shown
    assert "from 0.000 ms" in str(reported[0])


def test_keys_do_not_mix():
    one = history((W, 1, 0, 1), (R, 1, 2, 3), key=1)
    two = history((R, NOTHING, 4, 5), key=2)
    assert list(violations(np.concatenate([one, two]))) == []


def test_a_value_that_was_written_twice_cannot_be_judged():
    with pytest.raises(ValueError, match="written twice"):
        list(violations(history((W, 1, 0, 1), (W, 1, 2, 3))))


def is_linearizable(operations):
    """Try all orders, with and without each write that failed."""
    unsure = [index for index, (writes, _, _, end) in enumerate(operations) if writes and end == NEVER]
    for left_out in itertools.chain.from_iterable(itertools.combinations(unsure, count) for count in range(len(unsure) + 1)):
        chosen = [operation for index, operation in enumerate(operations) if index not in left_out]
        if any(_fits(order) for order in itertools.permutations(chosen)):
            return True
    return False


def _fits(order):
    value = NOTHING
    latest = -1
    for writes, expected, start, end in order:
        if end < latest:
            return False  # it ended before an operation that is earlier in this order began
        latest = max(latest, start)
        if writes:
            value = expected
        elif value != expected:
            return False
    return True


def test_random_histories_are_judged_as_by_trying_all_orders():
    draw = random.Random(5)
    outcomes = {True: 0, False: 0}
    for _ in range(3000):
        values = list(range(1, draw.randint(1, 3) + 1))
        operations = []
        for value in values:
            start = draw.randrange(12)
            operations.append((W, value, start, NEVER if draw.random() < 0.15 else start + draw.randint(1, 6)))
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(12)
            operations.append((R, draw.choice([NOTHING, *values]), start, start + draw.randint(1, 6)))
        expected = is_linearizable(operations)
        outcomes[expected] += 1
        assert (not list(violations(history(*operations)))) == expected, operations
    assert min(outcomes.values()) > 500
