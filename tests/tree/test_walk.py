from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tree.random_trees import draft_trees

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
