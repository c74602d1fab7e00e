"""Random trees and candidates, and what the tests check of every tree."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from hoarfrost.tree import Candidates, DraftTree, Transitions


@st.composite
def draft_trees(draw: st.DrawFn, max_rows: int = 80) -> DraftTree:
    """Trees of any shape, from chains to stars; siblings carry different tokens out of a few."""
    num_rows, reach = draw(st.integers(1, max_rows)), draw(st.integers(1, max_rows))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    parents, token_ids, num_children = [-1], [99], [0] * num_rows
    for row in range(1, num_rows):
        parent = int(random.integers(max(0, row - reach), row))
        parents.append(parent)
        token_ids.append(num_children[parent])
        num_children[parent] += 1
    return DraftTree.from_parents(token_ids, parents)


@st.composite
def random_candidates(draw: st.DrawFn, vocab_size: int) -> Candidates:
    """Candidates with and without predecessors; distinct probabilities."""
    horizon, num_ranks = draw(st.integers(0, 4)), draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    token_ids = np.stack([random.permutation(vocab_size)[:num_ranks] for _ in range(horizon)]) if horizon else np.empty((0, num_ranks), int)
    if draw(st.booleans()):
        log_probs = np.log(random.dirichlet(np.ones(num_ranks + 1), (horizon, num_ranks))[..., :num_ranks]).astype(np.float32)
        return Candidates.from_transitions(Transitions(token_ids.astype(np.int64), log_probs))
    log_probs = np.sort(np.log(random.dirichlet(np.ones(num_ranks + 1), horizon)[:, :num_ranks]), axis=1)[:, ::-1].astype(np.float32)
    return Candidates(np.ascontiguousarray(log_probs[:, None]), token_ids[:, None].astype(np.int64))


def assert_well_formed(tree: DraftTree) -> None:
    num_rows = tree.num_rows
    assert (tree.token_ids.dtype, tree.parents.dtype, tree.depths.dtype) == (np.int64, np.int32, np.int32)
    assert (tree.ancestors.dtype, tree.ancestors.shape) == (np.uint64, (num_rows, -(-num_rows // 64)))
    assert tree.parents.shape == tree.depths.shape == (num_rows,)
    assert tree.parents[0] == -1
    assert tree.depths[0] == 0
    assert (tree.parents[1:] >= 0).all()
    assert (tree.parents[1:] < np.arange(1, num_rows)).all()
    assert (tree.depths[1:] == tree.depths[tree.parents[1:]] + 1).all()
    assert len(set(zip(tree.parents.tolist(), tree.token_ids.tolist(), strict=True))) == num_rows
    np.testing.assert_array_equal(tree.visible(), closure(tree))


def closure(tree: DraftTree) -> np.ndarray:
    """The reflexive transitive closure of the parent relation, by stepping from row to row."""
    visible = np.zeros((tree.num_rows, tree.num_rows), bool)
    for row in range(tree.num_rows):
        at = row
        while at >= 0:
            visible[row, at] = True
            at = int(tree.parents[at])
    return visible


def assert_equal_trees(tree: DraftTree, other: DraftTree) -> None:
    for name in ("token_ids", "parents", "depths", "ancestors"):
        np.testing.assert_array_equal(getattr(tree, name), getattr(other, name), err_msg=name)
