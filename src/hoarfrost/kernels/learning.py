"""What a round teaches of the drafter's guesses (native/tree/learning.hpp): the arithmetic of `tree.calibration`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hoarfrost import _native


class Verdict(NamedTuple):
    """How the guesses below the rows of a walk fared. Of the r rows that the guesses reach, the best k candidates below each, in order:

    drafted, believed: float64 [r, k], their probabilities before and after calibration; hits: bool [r, k], which one the target chose;
    off_spine: int64 [r], 0 where all rows down to this one are the drafter's best, else 1. Of all m rows of the walk: left_over float64
    [m], the probability that these candidates left over (1 where there are none); is_open bool [m], whether the choice was none of them.
    """

    drafted: NDArray[np.float64]
    believed: NDArray[np.float64]
    hits: NDArray[np.bool_]
    off_spine: NDArray[np.int64]
    left_over: NDArray[np.float64]
    is_open: NDArray[np.bool_]


def judge_walk(
    log_probs: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    places: NDArray[np.int32] | None,
    chosen: NDArray[np.int64],
    width: int,
    parameters: NDArray[np.float32] | None = None,
    information: NDArray[np.float64] | None = None,
) -> Verdict:
    """Judges candidates `[L, P, K]` (as `tree.Candidates` has them) by the tokens `chosen [m]` at the rows of a walk from the root.

    Only the best `width` below each row count. Where `parameters` [2, 2, D] and `information` [2, 2, 2, D] of regressions are given, they
    say what is believed, and then take in what was seen: both arrays are written to.
    """
    return Verdict(*_native.judge_walk(log_probs, token_ids, places, chosen, width, parameters, information))
