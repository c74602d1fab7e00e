"""How far a drafter's probabilities can be believed, before calibration and after: what was expected against what came true.

Every guess at a visited row is counted (the best few below it, in the tree or not), in ten bins of probability, per depth, on the greedy
spine and off it. The guesses of a round are judged by what was believed *before* the round taught anything.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 10
_EXPECTED, _OBSERVED, _COUNT = range(3)

Floats = NDArray[np.float64]
Noted = tuple[Floats, Floats, NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]]


class Reliability:
    """Counts guesses of `num_depths` depths; `records` gives them as JSON values."""

    def __init__(self, num_depths: int) -> None:
        self._sums = np.zeros((3, 2, num_depths, 2, NUM_BINS))  # what, calibrated or not, depth, off the spine or on it, bin
        self._noted: list[Noted] = []

    def note(
        self,
        raw: Floats,
        believed: Floats,
        hits: NDArray[np.bool_],
        depths: NDArray[np.intp],
        off_spine: NDArray[np.intp],
    ) -> None:
        """Takes guesses `[m, k]` below m rows down: the drafter's probabilities, the calibrated ones, and which came true. Rounds are timed
        while they are noted, so `settle` counts them later."""
        self._noted.append((raw, believed, hits, depths, off_spine))

    def settle(self) -> None:
        """Counts what was noted."""
        for guesses in self._noted:
            self._count(*guesses)
        self._noted.clear()

    def _count(self, raw: Floats, believed: Floats, hits: NDArray[np.bool_], depths: NDArray[np.intp], off_spine: NDArray[np.intp]) -> None:
        shape = self._sums.shape[1:]
        for calibrated, expected in enumerate((raw, believed)):
            bins = np.minimum((expected * NUM_BINS).astype(np.intp), NUM_BINS - 1)
            cells = np.ravel_multi_index(
                (np.full_like(bins, calibrated), *np.broadcast_arrays(depths[:, None], 1 - off_spine[:, None], bins)), shape
            )
            for what, values in ((_EXPECTED, expected), (_OBSERVED, hits), (_COUNT, np.ones(hits.shape))):
                self._sums[what] += np.bincount(cells.ravel(), values.ravel(), self._sums[what].size).reshape(shape)

    def records(self) -> list[dict[str, Any]]:
        """One record per cell that holds guesses: means of what was expected and observed, and the count."""
        self.settle()
        cells = np.argwhere(self._sums[_COUNT] > 0)
        found = []
        for calibrated, depth, spine, place in cells.tolist():
            expected, observed, count = self._sums[:, calibrated, depth, spine, place].tolist()
            found.append(
                {
                    "calibrated": bool(calibrated),
                    "depth": depth + 1,
                    "spine": bool(spine),
                    "expected": expected / count,
                    "observed": observed / count,
                    "count": int(count),
                }
            )
        return found


def calibration_error(records: list[dict[str, Any]], calibrated: bool) -> float:
    """The expected calibration error: the mean distance between expected and observed, weighted by the guesses of a record."""
    chosen = [one for one in records if one["calibrated"] is calibrated]
    total = sum(one["count"] for one in chosen)
    return sum(one["count"] * abs(one["expected"] - one["observed"]) for one in chosen) / total if total else 0.0
