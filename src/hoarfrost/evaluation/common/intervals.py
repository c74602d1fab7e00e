"""Figures with their spread: the 95 % interval of a mean, of a share, and of how much faster one way of decoding is than another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
NORMAL_QUANTILE = 1.959964

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class SpeedRatio:
    """`interval` is the bootstrap's 95 %; `quartiles` are those of the per-prompt ratios, the median in the middle."""

    ratio: float
    interval: Interval
    quartiles: tuple[float, float, float]


def speed_ratio(pairs: Sequence[tuple[float, float]]) -> SpeedRatio | None:
    """The speed of the second over the first, from pairs of seconds per token on the same prompt of one run; `None` without any pair.

    The ratio is that of mean decode time per token (the protocol of the DDTree paper, arXiv 2604.12989, section 5).
    """
    if not pairs:
        return None
    seconds = np.asarray(pairs)
    first, median, third = np.percentile(seconds[:, 0] / seconds[:, 1], (25, 50, 75))
    return SpeedRatio(
        ratio=float(seconds[:, 0].mean() / seconds[:, 1].mean()),
        interval=bootstrap_interval(seconds, lambda means: means[:, 0] / means[:, 1]),
        quartiles=(float(first), float(median), float(third)),
    )


def bootstrap_interval(values: Floats, figure: Callable[[Floats], Floats] = lambda means: means) -> Interval:
    """The middle 95 % of `figure` of the means when the first dimension of `values` is drawn again with replacement."""
    draws = np.random.default_rng(0).integers(0, len(values), (NUM_RESAMPLES, len(values)))
    low, high = np.percentile(figure(values[draws].mean(axis=1)), (2.5, 97.5))
    return float(low), float(high)


def wilson_interval(share: float, count: int) -> Interval:
    """Wilson's 95 % interval of a share that `count` trials gave."""
    z2 = NORMAL_QUANTILE**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = NORMAL_QUANTILE / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - spread), min(1.0, centre + spread)
