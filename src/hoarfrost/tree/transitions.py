"""Path-conditional guesses as a value: K candidates per depth, and how likely each is after each candidate of the depth before.

Marginals give every node of a depth the same children with the same probabilities. A drafter with a candidate selector (DFlash 2) says
more: what follows *this* candidate. The likeliest prefixes are found by the same best-first search, for the product along a path still
only falls; only the order of a node's children is now its own (`tree.candidates` brings them into it). Shapes: L depths, K candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hoarfrost.errors import InvalidInput
from hoarfrost.tree.marginals import Marginals


@dataclass(frozen=True, eq=False)
class Transitions:
    """First-order guesses for one sequence. Raises `InvalidInput` for arrays that do not fit together. They are not to be written to.

    Attributes:
        token_ids: int64 [L, K], candidates of depth d + 1 in row d, the best marginal first; different tokens within a row.
        log_probs: float32 [L, K, K]; entry d, i, j: candidate j of row d after candidate i of row d - 1. In row 0 the predecessor is the
            bonus token, and only i = 0 means anything. The candidates after a predecessor may have less than probability 1 between
            them, the rest being for tokens that are no candidates; -inf is never a node.
        marginals: the guesses over the whole vocabulary that the candidates were taken from, where the drafter has them. Noise may lift
            any of a hundred tokens to the top, so above temperature 0 these say more than a few candidates.
    """

    token_ids: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    marginals: Marginals | None = None

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
