"""The plain twins of native/retrieval.hpp: the same rules in a few lines of Python, for tests and for reading."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoarfrost.drafting.retrieval import GRADE_PRIORS, LOG_GRADES, MAX_MATCH, PATH_PRIOR, Retrieval

MEMORY = 0.999
LEAST_CHANCE = 1e-3
MAX_SHARE = 0.95


class PlainShares:
    """What `native.Shares` keeps."""

    def __init__(self, priors: Sequence[float], prior_weight: float = 8.0) -> None:
        self.values = np.array(priors, np.float32)
        self._chances = np.full(len(priors), prior_weight)
        self._hits = self.values * self._chances

    def forget(self) -> None:
        self._hits *= MEMORY
        self._chances *= MEMORY

    def observe(self, bucket: int, is_hit: bool, chance: float) -> None:
        self._hits[bucket] += is_hit
        self._chances[bucket] += chance
        self.values[bucket] = min(self._hits[bucket] / max(self._chances[bucket], LEAST_CHANCE), MAX_SHARE)


class PlainSourceShares:
    """What `SourceShares` learns."""

    def __init__(self) -> None:
        self.successors = PlainShares(2 * GRADE_PRIORS)
        self.paths = PlainShares([PATH_PRIOR] * (MAX_MATCH + 1))

    def observe(
        self,
        retrieval: Retrieval,
        root: int,
        chosen: Sequence[int],
        path: NDArray[np.int64],
        matched: int,
        left_over: NDArray[np.float64],
        is_open: NDArray[np.bool_],
    ) -> None:
        self.successors.forget()
        self.paths.forget()
        on_path = True
        for row, (above, token_id) in enumerate(zip((root, *chosen), chosen, strict=False)):
            for successor, grade in zip(retrieval.successors[above].tolist(), retrieval.grades[above].tolist(), strict=True):
                if successor >= 0:
                    self.successors.observe(grade, is_open[row] and successor == token_id, left_over[row])
            if on_path and row < len(path):
                on_path = bool(path[row] == token_id)
                self.paths.observe(min(matched + row, MAX_MATCH), is_open[row] and on_path, left_over[row])


def remember_plain(retrieval: Retrieval, token_id: int, best: NDArray[np.int64], log_probs: NDArray[np.float32]) -> None:
    """What `Retrieval.remember` notes behind one token."""
    grades = np.searchsorted(LOG_GRADES, log_probs)
    grades[0] += len(GRADE_PRIORS)
    retrieval.successors[token_id, : len(best)] = best
    retrieval.grades[token_id, : len(best)] = grades
