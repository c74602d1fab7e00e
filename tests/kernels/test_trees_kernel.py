"""The faces of the tree kernels: what they refuse, and when they ask for more candidates. What they build is tested in tests/tree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hoarfrost import kernels
from hoarfrost.errors import InvalidInput

CANDIDATES = [
    (np.log(np.array([[ranks]], np.float32)), np.array([[tokens]]), None) for ranks, tokens in (([0.6, 0.3], [4, 7]), ([0.9, 0.05], [1, 2]))
]


def test_asks_for_more_exactly_when_the_next_node_may_be_missing() -> None:
    for budget, needs_more in ((1, False), (2, False), (3, True)):
        _, unfinished = kernels.build_trees(CANDIDATES, [10, 11], budget, has_more=True)
        assert unfinished == [needs_more, needs_more]
    trees, unfinished = kernels.build_trees(CANDIDATES, [10, 11], 3, has_more=False)
    assert (unfinished, [len(tree.token_ids) for tree in trees]) == ([False, False], [3, 3])


def test_impossible_candidates_need_no_widening() -> None:
    log_probs = np.array([[[0.0, -np.inf]]], np.float32)
    [tree], unfinished = kernels.build_trees([(log_probs, np.array([[[4, 7]]]), None)], [10], 5, has_more=True)
    assert (unfinished, len(tree.token_ids)) == ([False], 2)


def test_candidates_are_checked() -> None:
    [(log_probs, token_ids, _), _] = CANDIDATES

    def build(*arrays: np.ndarray) -> None:
        kernels.build_trees([(*arrays, None)[:3]], [10], 3, has_more=False)  # type: ignore[list-item]

    with pytest.raises(TypeError):
        build(log_probs[0], token_ids)
    with pytest.raises(ValueError, match="side by side"):
        build(log_probs[:, :, ::-1], token_ids)
    with pytest.raises(ValueError, match="one shape"):
        build(log_probs, token_ids[:, :, :1])
    with pytest.raises(ValueError, match="predecessor"):
        build(log_probs, token_ids, np.array([[[0, 1]]], np.int32))
    for broken in ([0.3, 0.6], [0.3, np.nan]):
        with pytest.raises(ValueError, match="must fall"):
            build(np.array([[broken]], np.float32), token_ids)
    with pytest.raises(InvalidInput, match="1 bonus tokens for 2 sequences"):
        kernels.build_trees(CANDIDATES, [10], 3, has_more=False)
    with pytest.raises(InvalidInput, match="budget is -1"):
        kernels.build_trees(CANDIDATES, [10, 11], -1, has_more=False)


def test_logits_are_checked() -> None:
    with pytest.raises(InvalidInput, match="on the CPU"):
        kernels.build_trees_from_logits([torch.zeros(1, 3, dtype=torch.float16)], [0], 2)
    with pytest.raises(InvalidInput, match="2 bonus tokens for 1 sequences"):
        kernels.build_trees_from_logits([torch.zeros(1, 3)], [0, 0], 2)


def test_a_row_that_no_node_leads_to_is_not_read() -> None:
    logits = torch.zeros(2, 4)
    logits[1] = torch.nan
    assert [len(tree.token_ids) for tree in kernels.build_trees_from_logits([logits], [0], 1)] == [2]
    with pytest.raises(InvalidInput, match="depth 2 hold NaN"):
        kernels.build_trees_from_logits([logits], [0], 2)
