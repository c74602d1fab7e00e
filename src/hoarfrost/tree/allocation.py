"""Trees as large as make expected tokens per second largest (CaDDTree, arXiv 2606.01813, for one sequence).

A tree's nodes come best first, and its first n nodes are a tree. So a round over S trees of n nodes in all is expected to yield
S + sum of the nodes' acceptance probabilities tokens, in the time that a pass over S + n rows takes, plus what the round costs whatever
its size. One order over the nodes of all trees, likeliest first, shares the rows among the sequences by marginal gain. The trees grow in
that order and no further than a node more could pay: later nodes are no likelier than the best of those at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hoarfrost import kernels
from hoarfrost.kernels import TreeHints
from hoarfrost.tree.build import draft_tree
from hoarfrost.tree.candidates import Candidates
from hoarfrost.tree.draft_tree import DraftTree


class Worth(NamedTuple):
    """The trees of a round, the tokens that are expected of each, and the time it is to take."""

    trees: list[DraftTree]
    expected: list[float]
    milliseconds: float


def grow_worthwhile(
    candidates: Sequence[Candidates],
    bonus_token_ids: Sequence[int],
    row_ms: NDArray[np.float64],
    fixed_ms: float,
    hints: Sequence[TreeHints] = (),
) -> Worth:
    """The trees of `grow_trees`, each with as many nodes as are worth it (plain twin: `hoarfrost.tree.plain.allocate_plain`).

    Args:
        row_ms: float64 [N]: entry n - 1 is the time of a pass over n rows; no round may have more than N. There are at most N trees.
        fixed_ms: time of a round that does not depend on its rows.
    """
    built, _, milliseconds = kernels.grow_worthwhile([one.arrays for one in candidates], bonus_token_ids, row_ms, fixed_ms, hints)
    return Worth([draft_tree(one) for one in built], [float(np.exp(one.log_probs).sum()) for one in built], milliseconds)
