from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tree.random_trees import draft_trees

from hoarfrost import kernels
from hoarfrost.sampling import Chooser, SamplingParams
from hoarfrost.tree import DraftTree, walk


def walk_naively(tree: DraftTree, choices: list[int]) -> tuple[list[int], list[int]]:
    rows, token_ids = [0], []
    while True:
        token_ids.append(choices[rows[-1]])
        matches = [row for row in range(1, tree.num_rows) if tree.parents[row] == rows[-1] and tree.token_ids[row] == token_ids[-1]]
        if not matches:
            return rows, token_ids
        rows.append(matches[0])


@given(draft_trees(max_rows=30), st.data())
def test_equals_the_naive_walk(tree: DraftTree, data: st.DataObject) -> None:
    choices = data.draw(st.lists(st.integers(0, 2), min_size=tree.num_rows, max_size=tree.num_rows))
    asked: list[int] = []

    def choose(row: int) -> int:
        asked.append(row)
        return choices[row]

    result = walk(tree, choose)
    assert (result.rows, result.token_ids) == walk_naively(tree, choices)
    assert asked == result.rows  # each accepted row once, in order, and no other
    assert len(result.rows) == len(result.token_ids)


def test_plain_decoding_emits_one_token() -> None:
    result = walk(DraftTree.single(5), lambda row: 42)
    assert (result.rows, result.token_ids) == ([0], [42])


@given(draft_trees(max_rows=30), st.data())
def test_along_known_choices_equals_the_twin(tree: DraftTree, data: st.DataObject) -> None:
    choices = data.draw(st.lists(st.integers(0, 2), min_size=tree.num_rows, max_size=tree.num_rows))
    columns = np.array([choices, choices]).T  # a column lies as the best tokens of rows do
    expected = walk(tree, choices.__getitem__)
    assert kernels.walk_along(tree.parents, tree.token_ids, columns[:, 0]) == (expected.rows, expected.token_ids)


@settings(max_examples=60)
@given(draft_trees(max_rows=12), st.integers(0, 2**62), st.sampled_from([torch.float32, torch.bfloat16]))
def test_with_noise_equals_the_twin(tree: DraftTree, seed: int, dtype: torch.dtype) -> None:
    """A vocabulary of three, so that walks go deep."""
    logits = torch.randn(tree.num_rows, 3, generator=torch.Generator().manual_seed(seed)).to(dtype)
    chooser = Chooser(SamplingParams(temperature=0.8, seed=seed))
    expected = walk(tree, lambda row: chooser.choose(logits[row], 40 + int(tree.depths[row]), 0))
    assert kernels.walk_with_noise(tree.parents, tree.token_ids, logits, 0, 0.8, seed, 40) == (expected.rows, expected.token_ids)


def test_only_accepted_rows_are_read_and_a_broken_one_ends_the_walk() -> None:
    tree = DraftTree.from_parents([0, 1, 2], [-1, 0, 0])
    logits = torch.tensor([[-90.0, 90.0, -90.0], [torch.nan] * 3, [torch.nan] * 3])
    assert kernels.walk_with_noise(tree.parents, tree.token_ids, logits, 0, 1.0, 1, 1) == ([0, 1], [1, -1])
    logits[1] = torch.tensor([90.0, -90.0, -90.0])
    assert kernels.walk_with_noise(tree.parents, tree.token_ids, logits, 0, 1.0, 1, 1) == ([0, 1], [1, 0])


def test_a_tree_and_its_choices_are_as_long_as_each_other() -> None:
    tree = DraftTree.single(5)
    with pytest.raises(ValueError, match="a parent, a token and a choice"):
        kernels.walk_along(tree.parents, tree.token_ids, np.zeros(2, np.int64))
