"""Trees from transitions: optimal against brute force, equal to trees from marginals where nothing depends on the path; and validation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tree.random_trees import assert_equal_trees, assert_well_formed

from hoarfrost.errors import InvalidInput
from hoarfrost.tree import Candidates, DraftTree, grow_trees
from hoarfrost.tree.plain import build_tree_plain
from hoarfrost.tree.transitions import Transitions

BONUS = 999
Path = tuple[int, ...]  # candidates, not tokens


def built(transitions: Transitions, bonus_token_id: int, budget: int) -> DraftTree:
    return grow_trees([Candidates.from_transitions(transitions)], [bonus_token_id], budget)[0].tree


def transitions_of(log_probs: NDArray[Any]) -> Transitions:
    """Row d offers the tokens 10 * d + 9, 10 * d + 8, ...: no token is its own place."""
    horizon, num_candidates, _ = log_probs.shape
    token_ids = 10 * np.arange(horizon)[:, None] + 9 - np.arange(num_candidates)
    return Transitions(token_ids, log_probs.astype(np.float32))


@st.composite
def small_transitions(draw: st.DrawFn, values: st.SearchStrategy[float], max_horizon: int = 4, max_candidates: int = 4) -> Transitions:
    shape = draw(st.integers(0, max_horizon)), draw(st.integers(1, max_candidates))
    entries = draw(st.lists(values, min_size=shape[0] * shape[1] ** 2, max_size=shape[0] * shape[1] ** 2))
    scores = np.array(entries, np.float64).reshape(shape[0], shape[1], shape[1])
    return transitions_of(scores - np.logaddexp.reduce(scores, axis=2, keepdims=True) if scores.size else scores)


def prefix_closed_sets(frontier: list[Path], size: int, horizon: int, num_candidates: int) -> Iterator[list[Path]]:
    """Every set of at most `size` nodes in which each node's parent is the root or a member, once."""
    yield []
    if size == 0:
        return
    for index, node in enumerate(frontier):
        children = [(*node, candidate) for candidate in range(num_candidates)] if len(node) < horizon else []
        for rest in prefix_closed_sets(frontier[index + 1 :] + children, size - 1, horizon, num_candidates):
            yield [node, *rest]


def probability(transitions: Transitions, path: Path) -> float:
    return math.prod(
        math.exp(transitions.log_probs[depth, before, after]) for depth, (before, after) in enumerate(zip((0, *path), path, strict=False))
    )


@settings(max_examples=60)
@given(small_transitions(st.floats(-4, 4), max_horizon=3, max_candidates=3), st.integers(0, 4))
def test_no_tree_of_that_size_expects_more(transitions: Transitions, budget: int) -> None:
    tree = built(transitions, BONUS, budget)
    assert_well_formed(tree)
    paths: list[Path] = [()]
    for row in range(1, tree.num_rows):
        depth = int(tree.depths[row])
        paths.append((*paths[tree.parents[row]], 10 * (depth - 1) + 9 - int(tree.token_ids[row])))
    roots = [(candidate,) for candidate in range(transitions.num_candidates)] if transitions.horizon else []
    best = max(
        sum(probability(transitions, path) for path in nodes)
        for nodes in prefix_closed_sets(roots, budget, transitions.horizon, transitions.num_candidates)
    )
    assert sum(probability(transitions, path) for path in paths[1:]) == pytest.approx(best, abs=1e-6)


TIED = st.sampled_from([-math.inf, -2.0, -1.0, -1.0, 0.0])


@settings(max_examples=60)
@given(st.data(), st.integers(0, 4), st.integers(1, 5), st.integers(0, 30))
def test_transitions_that_forget_the_path_are_marginals(data: st.DataObject, horizon: int, num_candidates: int, budget: int) -> None:
    """Ties and impossible tokens included."""
    entries = data.draw(st.lists(TIED, min_size=horizon * num_candidates, max_size=horizon * num_candidates))
    rows = -np.sort(-np.array(entries, np.float32).reshape(horizon, num_candidates), axis=1)
    forgetful = transitions_of(np.repeat(rows[:, None], num_candidates, axis=1))
    assert_equal_trees(built(forgetful, BONUS, budget), build_tree_plain(rows, forgetful.token_ids, BONUS, budget))


def test_each_node_has_its_own_best_child() -> None:
    probabilities = np.array([[[0.6, 0.4], [9.0, 9.0]], [[0.1, 0.9], [0.8, 0.2]]])
    probabilities[0, 1] = 1.0  # means nothing
    tree = built(transitions_of(np.log(probabilities)), BONUS, 4)
    assert tree.token_ids.tolist() == [BONUS, 9, 18, 8, 19]
    assert tree.parents.tolist() == [-1, 0, 1, 0, 3]


def test_row_0_of_other_predecessors_may_hold_anything() -> None:
    log_probs = np.full((2, 2, 2), -1.0, np.float32)
    log_probs[0, 1] = math.nan
    assert built(transitions_of(log_probs), BONUS, 50).num_rows == 1 + 2 + 4


def test_a_budget_of_none_is_the_root() -> None:
    assert built(transitions_of(np.full((2, 2, 2), -1.0)), BONUS, 0).num_rows == 1


IDS, TABLE = np.arange(6, dtype=np.int64).reshape(2, 3), np.full((2, 3, 3), -1.0, np.float32)


@pytest.mark.parametrize(
    ("token_ids", "log_probs", "said"),
    [
        (IDS, TABLE[:, :2], r"float32 \[2, 2, 3\]; they must be int64 \[L, K\] and float32 \[L, K, K\]"),
        (IDS[0], TABLE, r"int64 \[3\]"),
        (IDS.astype(np.int32), TABLE, "token ids int32"),
        (IDS, TABLE.astype(np.float64), "log-probabilities float64"),
        (np.array([[1, 2, 1], [4, 5, 6]]), TABLE, "the same token twice"),
        (IDS, np.where(np.arange(3) == 1, np.float32(np.nan), TABLE), "NaN or log-probabilities above 0"),
        (IDS, -TABLE, "above 0"),
    ],
)
def test_arrays_that_do_not_fit_are_named(token_ids: NDArray[Any], log_probs: NDArray[Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Transitions(token_ids, log_probs)
