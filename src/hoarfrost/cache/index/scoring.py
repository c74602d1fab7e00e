"""What a page is worth to queries: the softmax mass of its rows; and the choice of the pages that are worth most.

Masses are logarithms to base 2, so that powers are cheap. Queries of a group are merged by probability: a page counts with the sum of the
shares that the queries give to it. On the CPU the arithmetic is native; `plain.py` has the twins, which also serve other devices.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index import plain
from hoarfrost.cache.index.protocol import KeyPages
from hoarfrost.native import index as kernels
from hoarfrost.native.index import Masses

LOG2_E = math.log2(math.e)


def page_log_masses(
    queries: Tensor, scale: float, keys: KeyPages, counts: NDArray[np.int32], pages: NDArray[np.int32] | None = None
) -> Masses:
    """The log2 of the sum of exponentials over the rows of pages: float32 `[Hkv, R, C]`, -inf for empty pages.

    Args:
        queries: `[Hkv, R, D]`.
        counts: int32 `[Hkv, P]`, rows per page.
        pages: int32 `[Hkv, C]`, which pages, -1 = none; all P by default.
    """
    if pages is None:
        pages = np.repeat(np.arange(counts.shape[1], dtype=np.int32)[None], len(counts), axis=0)
    if not kernels.can_score(keys.pool):
        return plain.page_log_masses(queries, scale, keys, counts, pages)
    scaled = (queries.detach().to("cpu", torch.float32) * (scale * LOG2_E)).contiguous().numpy()
    return kernels.page_log_masses(scaled, keys.pool, keys.slots, counts, pages)


def total_log_masses(log_masses: Masses, resident_log_mass: Tensor | None) -> Masses:
    """The log2 of what the queries' probabilities are shares of, float32 `[Hkv, R]`; `resident_log_mass` is a natural logarithm."""
    totals = kernels.sum_log_masses(log_masses)
    if resident_log_mass is None:
        return totals
    resident = resident_log_mass.detach().to("cpu", torch.float32).numpy() * np.float32(LOG2_E)
    return np.logaddexp2(totals, resident)


def best_pages(log_masses: Masses, resident_log_mass: Tensor | None, num_pages: int) -> NDArray[np.int32]:
    """The places int32 `[Hkv, num_pages]` of the pages with the largest summed share of the softmax, best first, -1 = none."""
    return kernels.rank_pages(log_masses, total_log_masses(log_masses, resident_log_mass), num_pages)


def best_candidates(
    estimates: Masses, exact: Masses, candidates: NDArray[np.int32], resident_log_mass: Tensor | None, num_pages: int
) -> NDArray[np.int32]:
    """The best of `candidates int32 [Hkv, C]` by their `exact` masses; the shares count the other pages with their `estimates`.

    Overwrites the candidates' estimates. Where -1 pads the candidates, all pages in use are among them.
    """
    np.put_along_axis(estimates, np.maximum(candidates, 0)[:, None], -np.inf, axis=2)
    totals = np.logaddexp2(total_log_masses(estimates, resident_log_mass), kernels.sum_log_masses(exact))
    best = kernels.rank_pages(exact, totals, num_pages)
    return np.where(best >= 0, np.take_along_axis(candidates, np.maximum(best, 0), axis=1), np.int32(-1))
