from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from hoarfrost.native.drafter import order_transitions


def plain_order(
    log_probs: NDArray[np.float32], token_ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.intp]]:
    log_probs = log_probs.copy()
    log_probs[:1] = log_probs[:1, :1]
    places = np.argsort(-log_probs, axis=2, kind="stable")
    return np.take_along_axis(log_probs, places, 2), np.take_along_axis(token_ids[:, None], places, 2), places


@pytest.mark.parametrize(("horizon", "num_candidates"), [(0, 3), (1, 1), (3, 7), (7, 16), (2, 60)])
def test_best_first_behind_each_predecessor(horizon: int, num_candidates: int) -> None:
    """With many ties, impossible tokens, and rows that mean nothing."""
    random = np.random.default_rng(num_candidates)
    log_probs = random.choice(np.array([-math.inf, -3.0, -2.0, -1.0, -0.0, 0.0], np.float32), (horizon, num_candidates, num_candidates))
    log_probs[:1, 1:] = math.nan
    token_ids = np.array([random.permutation(1000)[:num_candidates] for _ in range(horizon)], np.int64).reshape(horizon, num_candidates)
    for found, expected in zip(order_transitions(log_probs, token_ids), plain_order(log_probs, token_ids), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit together"):
        order_transitions(np.zeros((2, 3, 3), np.float32), np.zeros((2, 4), np.int64))
