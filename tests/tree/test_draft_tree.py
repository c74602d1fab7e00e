from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies
from tree.random_trees import assert_well_formed, draft_trees

from hoarfrost.tree import DraftTree


@settings(max_examples=50)
@given(draft_trees(max_rows=140))
def test_rows_see_themselves_and_their_ancestors(tree: DraftTree) -> None:
    assert_well_formed(tree)
    assert tree.visible().dtype == np.bool_


@given(draft_trees())
def test_child_finds_what_is_there_and_nothing_else(tree: DraftTree) -> None:
    for row in range(tree.num_rows):
        children = {int(tree.token_ids[child]): child for child in range(1, tree.num_rows) if tree.parents[child] == row}
        for token_id in (*children, 1000):
            assert tree.child(row, token_id) == children.get(token_id)


@given(draft_trees(max_rows=6))
def test_a_chain_is_one_branch(tree: DraftTree) -> None:
    visible = tree.visible()
    assert tree.is_chain == bool((visible == np.tri(tree.num_rows, dtype=bool)).all())


def test_single() -> None:
    tree = DraftTree.single(7)
    assert_well_formed(tree)
    assert (tree.num_rows, tree.token_ids.tolist(), tree.is_chain) == (1, [7], True)
    assert tree.child(0, 7) is None


def test_long_chain() -> None:
    tree = DraftTree.from_parents(range(1025), range(-1, 1024))
    assert tree.is_chain
    assert tree.depths[-1] == 1024
    np.testing.assert_array_equal(tree.visible(), np.tri(1025, dtype=bool))


@settings(max_examples=50)
@given(tree=draft_trees(), max_depth=strategies.integers(0, 5))
def test_within_depth_keeps_the_upper_rows_as_they_were(tree: DraftTree, max_depth: int) -> None:
    upper, kept = tree.within_depth(max_depth), np.flatnonzero(tree.depths <= max_depth)
    assert_well_formed(upper)
    assert np.array_equal(upper.token_ids, tree.token_ids[kept])
    assert np.array_equal(upper.visible(), tree.visible()[np.ix_(kept, kept)])
    assert np.array_equal(upper.depths, tree.depths[kept])
