"""How much faster one way of decoding is than another, from both their times on the same prompts of one run.

The ratio is that of mean decode time per token (the protocol of the DDTree paper, arXiv 2604.12989, section 5). Its spread is shown twice:
the bootstrap's interval, from drawing the prompts again, and the quartiles of every single prompt's ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class SpeedRatio:
    """`interval` is the bootstrap's 95 %; `quartiles` are those of the per-prompt ratios, the median in the middle."""

    ratio: float
    interval: tuple[float, float]
    quartiles: tuple[float, float, float]


def speed_ratio(pairs: Sequence[tuple[float, float]]) -> SpeedRatio | None:
    """The speed of the second over the first, from pairs of seconds per token, one pair a prompt; `None` without any pair."""
    if not pairs:
        return None
    seconds = np.asarray(pairs)
    first, median, third = np.percentile(seconds[:, 0] / seconds[:, 1], (25, 50, 75))
    draws = np.random.default_rng(0).integers(0, len(seconds), (NUM_RESAMPLES, len(seconds)))
    means = seconds[draws].mean(axis=1)
    low, high = np.percentile(means[:, 0] / means[:, 1], (2.5, 97.5))
    return SpeedRatio(
        ratio=float(seconds[:, 0].mean() / seconds[:, 1].mean()),
        interval=(float(low), float(high)),
        quartiles=(float(first), float(median), float(third)),
    )
