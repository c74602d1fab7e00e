"""The rule by which trees are sized, in the plain twin; that the kernel keeps to it is tested with the trees (test_grow.py)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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

    num_nodes, expected, milliseconds = allocate_plain(log_probs, row_ms, fixed_ms)
    best = max(rate(sizes) for sizes in itertools.product(*(range(len(one)) for one in log_probs)))
    assert expected / milliseconds == pytest.approx(best)
    assert rate(tuple(num_nodes)) == pytest.approx(best)
