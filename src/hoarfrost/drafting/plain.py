"""The plain twins of native/tree/retrieval.hpp: the same rules in a few lines of Python, for tests and for reading."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoarfrost.kernels import Repetition, SuccessorTable

MEMORY = 0.999
LEAST_CHANCE = 1e-3
MAX_SHARE = 0.95


class PlainShares:
    """Per bucket, the share of the left-over probability that a source's token turned out to get."""

    def __init__(self, priors: Sequence[float], prior_weight: float) -> None:
        self.values = np.array(priors, np.float32)
        self._chances = np.full(len(priors), prior_weight)
        self._hits = self.values * self._chances

    def forget(self) -> None:
        """A round has passed: what was seen before counts a little less."""
        self._hits *= MEMORY
        self._chances *= MEMORY

    def observe(self, bucket: int, is_hit: bool, chance: float) -> None:
        """Whether the source's token was chosen against the drafter's best, which had left over `chance` for it."""
        bucket = min(bucket, len(self.values) - 1)
        self._hits[bucket] += is_hit
        self._chances[bucket] += chance
        self.values[bucket] = min(self._hits[bucket] / max(self._chances[bucket], LEAST_CHANCE), MAX_SHARE)


class PlainSourceShares:
    """What `native.SourceShares` keeps."""

    def __init__(self, successors: Sequence[float], paths: Sequence[float], prior_weight: float) -> None:
        self._successors, self._paths = PlainShares(successors, prior_weight), PlainShares(paths, prior_weight)
        self.successors, self.paths = self._successors.values, self._paths.values

    def observe(
        self,
        table: SuccessorTable,
        repetition: Repetition,
        root: int,
        chosen: Sequence[int],
        left_over: NDArray[np.float64],
        is_open: NDArray[np.bool_],
    ) -> None:
        """Learns from the m rows of one walk.

        Args:
            table, repetition: as they were when the guesses were made.
            root, chosen: the token of the root; m, the target's choices. The tokens of the other rows are those chosen before them.
            left_over: [m], the probability that the drafter's best candidates left over there.
            is_open: [m], whether the choice was none of them.
        """
        self._successors.forget()
        self._paths.forget()
        path, (matched, _) = repetition.path(), repetition.longest_match()
        on_path = True
        for row, (above, token_id) in enumerate(zip((root, *chosen), chosen, strict=False)):
            for successor, grade in zip(table.token_ids[above].tolist(), table.grades[above].tolist(), strict=True):
                if successor >= 0:
                    self._successors.observe(grade, is_open[row] and successor == token_id, left_over[row])
            if on_path and row < len(path):
                on_path = bool(path[row] == token_id)
                self._paths.observe(matched + row, is_open[row] and on_path, left_over[row])


def remember_plain(
    table: SuccessorTable, bounds: NDArray[np.float32], token_id: int, best: NDArray[np.int64], log_probs: NDArray[np.float32]
) -> None:
    """What `table.remember` notes behind one token; `bounds` are those of the table."""
    grades = np.searchsorted(bounds, log_probs)
    grades[0] += len(bounds) + 1
    table.token_ids[token_id, : len(best)] = best
    table.grades[token_id, : len(best)] = grades
