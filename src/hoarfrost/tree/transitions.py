"""Path-conditional guesses as a value: K candidates per depth, and how likely each is after each candidate of the depth before.

Marginals give every node of a depth the same children with the same probabilities. A drafter with a candidate selector (DFlash 2) says
more: what follows *this* candidate. The likeliest prefixes are found by the same best-first search, for the product along a path still
only falls; only the order of a node's children is now its own. Shapes: L depths, K candidates.

`build_tree_from_transitions_plain` is the plain twin of the builder: the rules in a few lines, for tests and for reading.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hoarfrost.errors import InvalidInput
from hoarfrost.tree.draft_tree import DraftTree


@dataclass(frozen=True, eq=False)
class Transitions:
    """First-order guesses for one sequence. Raises `InvalidInput` for arrays that do not fit together. They are not to be written to.

    Attributes:
        token_ids: int64 [L, K], candidates of depth d + 1 in row d, the best marginal first; different tokens within a row.
        log_probs: float32 [L, K, K]; entry d, i, j: candidate j of row d after candidate i of row d - 1. In row 0 the predecessor is the
            bonus token, and only i = 0 means anything. The candidates after a predecessor may have less than probability 1 between
            them, the rest being for tokens that are no candidates; -inf is never a node.
    """

    token_ids: NDArray[np.int64]
    log_probs: NDArray[np.float32]

    def __post_init__(self) -> None:
        ids, log_probs = self.token_ids, self.log_probs
        if ids.ndim != 2 or log_probs.shape != (*ids.shape, *ids.shape[1:]) or ids.dtype != np.int64 or log_probs.dtype != np.float32:
            raise InvalidInput(
                f"The transitions have token ids {ids.dtype} {list(ids.shape)} and log-probabilities {log_probs.dtype} "
                f"{list(log_probs.shape)}; they must be int64 [L, K] and float32 [L, K, K]."
            )
        ordered = np.sort(ids, axis=1)
        if (ordered[:, 1:] == ordered[:, :-1]).any():
            raise InvalidInput("A row of the transitions holds the same token twice; the candidates of a depth must differ.")
        if not ((log_probs[:1, :1] <= 0).all() and (log_probs[1:] <= 0).all()):
            raise InvalidInput(
                "The transitions hold NaN or log-probabilities above 0; check the drafter's weights, or load it in a wider dtype."
            )

    @property
    def horizon(self) -> int:
        return len(self.token_ids)

    @property
    def num_candidates(self) -> int:
        return int(self.token_ids.shape[1])


def build_tree_from_transitions_plain(transitions: Transitions, bonus_token_id: int, budget: int) -> DraftTree:
    """The `budget` likeliest prefixes, likeliest first; ties: shallower depth, lower parent row, better rank among its siblings.

    Siblings rank by their log-probability after their parent, equal ones by their place in `token_ids`. -inf is never a node, so a tree
    may be smaller than the budget.
    """
    token_ids, log_probs = transitions.token_ids, transitions.log_probs
    ranking = np.argsort(-log_probs, axis=2, kind="stable")
    tokens, parents, scores = [bonus_token_id], [-1], [0.0]
    candidates = [0]  # which candidate of its depth a row is; 0 for the bonus token, as in row 0 of `log_probs`
    heap: list[tuple[float, int, int, int]] = []

    def propose(depth: int, parent: int, rank: int) -> None:
        if depth <= transitions.horizon and rank < transitions.num_candidates:
            before = candidates[parent]
            log_prob = float(log_probs[depth - 1, before, ranking[depth - 1, before, rank]])
            if log_prob > -np.inf:
                heapq.heappush(heap, (-(scores[parent] + log_prob), depth, parent, rank))

    propose(1, 0, 0)
    while heap and len(tokens) <= budget:
        cost, depth, parent, rank = heapq.heappop(heap)
        candidate = int(ranking[depth - 1, candidates[parent], rank])
        tokens.append(int(token_ids[depth - 1, candidate]))
        parents.append(parent)
        scores.append(-cost)
        candidates.append(candidate)
        propose(depth, parent, rank + 1)
        propose(depth + 1, len(tokens) - 1, 0)
    return DraftTree.from_parents(tokens, parents)
