"""A drafter's guesses brought to the host: per depth the best tokens after each possible predecessor, best first.

Marginals know no predecessor, so they have one row of candidates per depth (`candidates_of`); where a selector has weighed candidates after
each other (`weighed`), there is one per candidate of the depth before. From here on both are the same thing. Shapes: L depths, P
predecessors, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hoarfrost.kernels import CandidateArrays
from hoarfrost.kernels.drafter import order_transitions
from hoarfrost.tree.marginals import Marginals, top_of
from hoarfrost.tree.transitions import Conditionals, Transitions


@dataclass(frozen=True, eq=False)
class Candidates:
    """The guesses for one sequence. The arrays are not to be written to.

    Attributes:
        log_probs: float32 [L, P, K], each row falling; -inf is never a node.
        token_ids: int64 [L, P, K].
        places: int32 [L, P, K], which predecessor of the next depth each candidate is; None where P is 1.
    """

    log_probs: NDArray[np.float32]
    token_ids: NDArray[np.int64]
    places: NDArray[np.int32] | None = None

    @property
    def horizon(self) -> int:
        return len(self.log_probs)

    @property
    def arrays(self) -> CandidateArrays:
        """As the kernels take them."""
        return self.log_probs, self.token_ids, self.places

    @classmethod
    def none(cls) -> Candidates:
        """No guesses at all."""
        return cls(np.empty((0, 1, 1), np.float32), np.empty((0, 1, 1), np.int64))

    @classmethod
    def from_transitions(cls, transitions: Transitions) -> Candidates:
        return cls(*order_transitions(transitions.log_probs, transitions.token_ids))

    def within(self, horizon: int, width: int | None) -> Candidates:
        """The first `horizon` depths, and of every row the best `width`."""
        if horizon >= self.horizon and width is None:
            return self
        kept = np.s_[: max(0, horizon), :, :width]
        return Candidates(self.log_probs[kept], self.token_ids[kept], None if self.places is None else self.places[kept])


def candidates_of(guesses: Sequence[Marginals], num_candidates: int) -> list[Candidates]:
    """The best `num_candidates` of every guess, with one transfer from the device."""
    if not guesses:
        return []
    tops = zip(guesses, *top_of(guesses, num_candidates), strict=True)
    return [Candidates(log_probs[: one.horizon, None], token_ids[: one.horizon, None]) for one, log_probs, token_ids in tops]


def weighed(guesses: Sequence[Conditionals], candidates: Sequence[Candidates], temperatures: Sequence[float]) -> list[Candidates]:
    """The best candidates of each of `guesses` (of one pass of a drafter), each after each of the depth before.

    Args:
        candidates: per guess its best ones, one row per depth, at least as many as the selector weighs.
        temperatures: per guess what the logits behind its candidates were divided by.
    """
    selector = guesses[0].selector
    assert all(one.selector is selector for one in guesses)
    log_probs = np.stack([one.log_probs[:, 0, : selector.num_candidates] for one in candidates])
    token_ids = np.stack([one.token_ids[:, 0, : selector.num_candidates] for one in candidates])
    between = selector.weigh([one.row for one in guesses], log_probs, token_ids, temperatures)
    return [Candidates(*order_transitions(*parts)) for parts in zip(between, token_ids, strict=True)]
