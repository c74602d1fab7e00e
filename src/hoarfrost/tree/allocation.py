"""How many nodes of each tree to verify: as many as make expected tokens per second largest (CaDDTree, arXiv 2606.01813, for one sequence).

A tree's nodes come best first, and its first n nodes are a tree. So a round over S trees of n nodes in all is expected to yield
S + sum of the nodes' acceptance probabilities tokens, in the time that a pass over S + n rows takes, plus what the round costs whatever
its size. One order over the nodes of all trees, likeliest first, shares the rows among the sequences by marginal gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hoarfrost import native


@dataclass(frozen=True)
class Allocation:
    """`num_nodes` per tree, the tokens that are expected of the round, and the time it is to take."""

    num_nodes: list[int]
    expected: float
    milliseconds: float


def allocate(log_probs: Sequence[NDArray[np.float32]], row_ms: NDArray[np.float64], fixed_ms: float) -> Allocation:
    """The best number of nodes for each tree (plain twin: `hoarfrost.tree.plain.allocate_plain`).

    Args:
        log_probs: per tree float32 [R_i], of its rows in the order of growth, the root first (0).
        row_ms: float64 [N]: entry n - 1 is the time of a pass over n rows; no round may have more than N. There are at most N trees.
        fixed_ms: time of a round that does not depend on its rows.
    """
    return Allocation(*native.allocate(log_probs, row_ms, fixed_ms))
