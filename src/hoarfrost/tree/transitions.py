"""Path-conditional guesses: K candidates per depth, and how likely each is after each candidate of the depth before.

Marginals give every node of a depth the same children with the same probabilities. A drafter with a candidate selector (DFlash 2) says
more: what follows *this* candidate. The likeliest prefixes are found by the same best-first search, for the product along a path still
only falls; only the order of a node's children is now its own (`tree.candidates` brings them into it).

A selector can weigh any candidates, not just the likeliest: above temperature 0 those that the noise favours are weighed. So a drafter
hands out its marginals and the means to weigh (`Conditionals`); `Transitions` is what comes of it. Shapes: n sequences, L depths, K
candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.drafter import broken_transitions
from hoarfrost.tree.marginals import Marginals


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
            raise broken_transitions()

    @property
    def horizon(self) -> int:
        return len(self.token_ids)

    @property
    def num_candidates(self) -> int:
        return int(self.token_ids.shape[1])


class Selector(Protocol):
    """What one pass of a drafter knows of the tokens after each other, for the sequences of that pass."""

    @property
    def num_candidates(self) -> int:
        """K, the candidates per depth that are weighed against each other."""
        ...

    def weigh(
        self, rows: Sequence[int], log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], temperatures: Sequence[float]
    ) -> NDArray[np.float32]:
        """Log-probabilities of candidates after each other, as `Transitions` has them: float32 [n, L, K, K].

        Args:
            rows: n, which sequences of the pass.
            log_probs, token_ids: [n, L, K], the candidates and how likely each is whatever comes before it; -inf stays so.
            temperatures: n, what logits are divided by before they are sampled from; `log_probs` have been.
        """
        ...


@dataclass(frozen=True, eq=False)
class Conditionals:
    """The guesses for one sequence by a drafter that has a selector: its marginals, and row `row` of the pass that `selector` knows."""

    marginals: Marginals
    selector: Selector
    row: int
