from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.drafter import gather_rows, order_transitions


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


@pytest.mark.parametrize("broken", [math.nan, 0.5])
def test_what_is_no_log_probability_is_refused(broken: float) -> None:
    log_probs = np.full((2, 3, 3), -1.0, np.float32)
    log_probs[0, 2] = broken  # stands for nothing
    order_transitions(log_probs, np.zeros((2, 3), np.int64))
    log_probs[1, 2, 1] = broken
    with pytest.raises(InvalidInput, match="above 0"):
        order_transitions(log_probs, np.zeros((2, 3), np.int64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_gathered_as_by_torch(dtype: torch.dtype) -> None:
    table, rows = torch.randn(11, 6).to(dtype), [3, 0, 10, 3]
    assert torch.equal(gather_rows(table, rows), table[rows])
    assert gather_rows(table, []).shape == (0, 6)
    with pytest.raises(ValueError, match="outside the table"):
        gather_rows(table, [11])
