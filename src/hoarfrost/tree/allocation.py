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


@dataclass(frozen=True)
class Allocation:
    """`num_nodes` per tree, and the tokens per millisecond that are expected of the round."""

    num_nodes: list[int]
    tokens_per_ms: float


def allocate(log_probs: Sequence[NDArray[np.float32]], row_ms: NDArray[np.float64], fixed_ms: float) -> Allocation:
    """The best number of nodes for each tree.

    Args:
        log_probs: per tree float32 [R_i], of its rows in the order of growth, the root first (0).
        row_ms: float64 [N]: entry n - 1 is the time of a pass over n rows; no round may have more than N.
        fixed_ms: time of a round that does not depend on its rows.
    """
    num_trees = len(log_probs)
    # A node ranks no better than the nodes before it in its tree, so that what is taken of a tree is always a prefix.
    ranked = [np.minimum.accumulate(one[1:]) for one in log_probs]
    owners = np.repeat(np.arange(num_trees), [len(one) for one in ranked])
    order = np.argsort(-np.concatenate(ranked), kind="stable")[: len(row_ms) - num_trees]
    gains = np.exp(np.concatenate([one[1:] for one in log_probs])[order].astype(np.float64))
    expected = num_trees + np.concatenate(([0.0], np.cumsum(gains)))
    rates = expected / (fixed_ms + row_ms[num_trees - 1 : num_trees - 1 + len(expected)])
    best = int(rates.argmax())
    num_nodes = np.bincount(owners[order[:best]], minlength=num_trees)
    return Allocation(num_nodes.tolist(), float(rates[best]))
