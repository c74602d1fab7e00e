"""A drafter's guesses brought to the host: per depth the best tokens after each possible predecessor, best first.

Marginals know no predecessor, so they have one row of candidates per depth; transitions have one per candidate of the depth before. From
here on both are the same thing. Shapes: L depths, P predecessors, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hoarfrost.native.drafter import order_transitions
from hoarfrost.tree.marginals import Marginals, top_of
from hoarfrost.tree.transitions import Transitions


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

    @classmethod
    def none(cls) -> Candidates:
        """No guesses at all."""
        return cls(np.empty((0, 1, 1), np.float32), np.empty((0, 1, 1), np.int64))

    @classmethod
    def from_transitions(cls, transitions: Transitions) -> Candidates:
        return cls(*order_transitions(transitions.log_probs, transitions.token_ids))

    def reranked(self, log_probs: NDArray[np.float32], token_ids: NDArray[np.int64]) -> Candidates:
        """The same candidates in another order with other log-probabilities, both [L, P, K]."""
        if self.places is None:
            return Candidates(log_probs, token_ids)
        before, after = (np.argsort(ids, axis=2, kind="stable") for ids in (self.token_ids, token_ids))
        places = np.empty_like(self.places)
        np.put_along_axis(places, after, np.take_along_axis(self.places, before, 2), 2)
        return Candidates(log_probs, token_ids, places)

    def within(self, horizon: int, width: int | None) -> Candidates:
        """The first `horizon` depths, and of every row the best `width`."""
        if horizon >= self.horizon and width is None:
            return self
        kept = np.s_[: max(0, horizon), :, :width]
        return Candidates(self.log_probs[kept], self.token_ids[kept], None if self.places is None else self.places[kept])


def candidates_of(guesses: Sequence[Marginals | Transitions], num_candidates: int) -> list[Candidates]:
    """The best `num_candidates` of every guess (transitions have as many as they have), with one transfer from the device."""
    marginals = [one for one in guesses if isinstance(one, Marginals)]
    tops = iter(zip(*top_of(marginals, num_candidates), strict=True) if marginals else ())
    result = []
    for one in guesses:
        if isinstance(one, Transitions):
            result.append(Candidates.from_transitions(one))
        else:
            log_probs, token_ids = next(tops)
            result.append(Candidates(log_probs[: one.horizon, None], token_ids[: one.horizon, None]))
    return result
