"""The walk: follow the target's own choices down the tree for as long as the tree guessed them (DDTree, arXiv 2604.12989, section 3).

The emitted tokens are the target's choices whatever the tree holds; the tree only decides how many of them one pass yields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hoarfrost.tree.draft_tree import DraftTree


@dataclass(frozen=True)
class Walk:
    """The accepted rows, 0 first, each the parent of the next; and the tokens chosen at them, the last of which no child carries.

    `token_ids[i]` was chosen at `rows[i]`, so both have the same length; the last token is the next bonus token.
    """

    rows: list[int]
    token_ids: list[int]


def walk(tree: DraftTree, choose: Callable[[int], int]) -> Walk:
    """Walks from row 0; `choose(row)` is the target's token after `row`, asked for accepted rows only, in order."""
    rows, token_ids = [0], [choose(0)]
    while len(rows) < tree.num_rows and (row := tree.child(rows[-1], token_ids[-1])) is not None:
        rows.append(row)
        token_ids.append(choose(row))
    return Walk(rows, token_ids)
