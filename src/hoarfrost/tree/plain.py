"""The plain twin of the native tree builder: the same rules in a few lines of Python, for tests and for reading.

It wants every candidate that can matter at once: the best `budget` of each depth suffice, since a node of rank r follows r siblings
(DDTree, arXiv 2604.12989, lemma 1).
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from hoarfrost.tree.draft_tree import DraftTree


def build_tree_plain(log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], bonus_token_id: int, budget: int) -> DraftTree:
    """The `budget` likeliest prefixes, likeliest first; ties: shallower depth, lower parent row, better rank.

    Args:
        log_probs: [L, K], each row falling; -inf is never a node. K at least `budget`, or the whole vocabulary.
        token_ids: [L, K], the tokens of `log_probs`.
    """
    horizon, num_ranks = log_probs.shape
    tokens, parents, scores = [bonus_token_id], [-1], [0.0]
    heap: list[tuple[float, int, int, int]] = []

    def propose(depth: int, parent: int, rank: int) -> None:
        if depth <= horizon and rank < num_ranks and log_probs[depth - 1, rank] > -np.inf:
            heapq.heappush(heap, (-(scores[parent] + float(log_probs[depth - 1, rank])), depth, parent, rank))

    propose(1, 0, 0)
    while heap and len(tokens) <= budget:
        cost, depth, parent, rank = heapq.heappop(heap)
        tokens.append(int(token_ids[depth - 1, rank]))
        parents.append(parent)
        scores.append(-cost)
        propose(depth, parent, rank + 1)
        propose(depth + 1, len(tokens) - 1, 0)
    return DraftTree.from_parents(tokens, parents)
