from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.tree import allocate
from hoarfrost.tree.plain import allocate_plain

steps = st.lists(st.floats(-3, 0, width=32), max_size=5)


@settings(max_examples=100)
@given(st.lists(steps, min_size=1, max_size=3), st.floats(0, 5), st.floats(0.1, 3))
def test_no_other_sizes_promise_more(trees: list[list[float]], fixed_ms: float, slope: float) -> None:
    """Against all sizes, for trees whose nodes fall in probability and a pass that grows linearly."""
    log_probs = [np.concatenate(([0.0], np.cumsum(one))).astype(np.float32) for one in trees]
    row_ms = 1 + slope * np.arange(1, 40)

    def rate(sizes: tuple[int, ...]) -> float:
        gain = sum(float(np.exp(one[1 : size + 1].astype(np.float64)).sum()) for one, size in zip(log_probs, sizes, strict=True))
        return (len(trees) + gain) / (fixed_ms + row_ms[len(trees) + sum(sizes) - 1])

    found = allocate(log_probs, row_ms, fixed_ms)
    best = max(rate(sizes) for sizes in itertools.product(*(range(len(one)) for one in log_probs)))
    assert found.expected / found.milliseconds == pytest.approx(best)
    assert rate(tuple(found.num_nodes)) == pytest.approx(best)


def test_rows_that_cost_nothing_are_all_taken_and_dear_ones_are_not() -> None:
    log_probs = [np.log(np.array([1.0, 0.5, 0.25], np.float32))]
    assert allocate(log_probs, np.full(8, 3.0), 1.0).num_nodes == [2]
    assert allocate(log_probs, 10.0 * np.arange(1, 9), 0.0).num_nodes == [0]


def test_no_round_has_more_rows_than_were_measured() -> None:
    log_probs = [np.zeros(10, np.float32), np.zeros(10, np.float32)]
    assert sum(allocate(log_probs, np.ones(7), 1.0).num_nodes) == 5


log_prob_rows = st.lists(st.lists(st.floats(-5, 0, width=32), max_size=8), min_size=1, max_size=4)


@settings(max_examples=100)
@given(log_prob_rows, st.lists(st.floats(0.1, 9), min_size=12, max_size=12), st.floats(0, 3))
def test_equals_the_twin(rows: list[list[float]], row_ms: list[float], fixed_ms: float) -> None:
    """Also where log-probabilities rise again down the order, and passes of more rows take less."""
    log_probs = [np.array([0.0, *one], np.float32) for one in rows]
    found, expected = (one(log_probs, np.array(row_ms), fixed_ms) for one in (allocate, allocate_plain))
    assert found.expected / found.milliseconds == pytest.approx(expected.expected / expected.milliseconds)
    if found.expected == pytest.approx(expected.expected):
        assert found.num_nodes == expected.num_nodes
