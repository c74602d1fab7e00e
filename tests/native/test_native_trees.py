"""The faces of the tree kernels: what they refuse, and when they ask for more candidates. What they build is tested in tests/tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hoarfrost import native
from hoarfrost.errors import InvalidInput

LOG_PROBS = np.log(np.array([[[0.6, 0.3]], [[0.9, 0.05]]], np.float32))
TOKEN_IDS = np.array([[[4, 7]], [[1, 2]]])


def test_asks_for_more_exactly_when_the_next_node_may_be_missing() -> None:
    for budget, needs_more in ((1, False), (2, False), (3, True)):
        batch = native.build_trees(LOG_PROBS, TOKEN_IDS, [10, 11], budget, has_more=True)
        assert batch.needs_more == [needs_more, needs_more]
    batch = native.build_trees(LOG_PROBS, TOKEN_IDS, [10, 11], 3, has_more=False)
    assert (batch.needs_more, batch.num_rows) == ([False, False], [3, 3])


def test_impossible_candidates_need_no_widening() -> None:
    log_probs = np.array([[[0.0, -np.inf]]], np.float32)
    batch = native.build_trees(log_probs, np.array([[[4, 7]]]), [10], 5, has_more=True)
    assert (batch.needs_more, batch.num_rows) == ([False], [2])


def test_candidates_are_checked() -> None:
    with pytest.raises(InvalidInput, match="float64"):
        native.build_trees(LOG_PROBS.astype(np.float64), TOKEN_IDS, [10, 11], 3, has_more=False)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"token_ids .* shape \(2, 2\)"):
        native.build_trees(LOG_PROBS, TOKEN_IDS[:, 0], [10, 11], 3, has_more=False)
    with pytest.raises(InvalidInput, match="contiguous"):
        native.build_trees(LOG_PROBS[:, :, ::-1], TOKEN_IDS, [10, 11], 3, has_more=False)
    with pytest.raises(InvalidInput, match="1 bonus tokens for 2 sequences"):
        native.build_trees(LOG_PROBS, TOKEN_IDS, [10], 3, has_more=False)
    with pytest.raises(InvalidInput, match="budget is -1"):
        native.build_trees(LOG_PROBS, TOKEN_IDS, [10, 11], -1, has_more=False)
    with pytest.raises(ValueError, match="one shape"):
        native.build_trees(LOG_PROBS, TOKEN_IDS[:1], [10, 11], 3, has_more=False)
    for broken in ([[0.3, 0.6]], [[0.3, np.nan]]):
        with pytest.raises(ValueError, match="must fall"):
            native.build_trees(np.array([broken], np.float32), TOKEN_IDS[:1], [10], 3, has_more=False)


def test_logits_are_checked() -> None:
    with pytest.raises(InvalidInput, match="one dtype"):
        native.build_trees_from_logits([torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bfloat16)], [0, 0], 2)
    with pytest.raises(InvalidInput, match="on the CPU"):
        native.build_trees_from_logits([torch.zeros(1, 3, dtype=torch.float16)], [0], 2)
    with pytest.raises(InvalidInput, match="2 bonus tokens for 1 sequences"):
        native.build_trees_from_logits([torch.zeros(1, 3)], [0, 0], 2)


def test_a_row_that_no_node_leads_to_is_not_read() -> None:
    logits = torch.zeros(2, 4)
    logits[1] = torch.nan
    assert native.build_trees_from_logits([logits], [0], 1).num_rows == [2]
    with pytest.raises(InvalidInput, match="depth 2 hold NaN"):
        native.build_trees_from_logits([logits], [0], 2)
