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
from hoarfrost.kernels import index as kernels
from hoarfrost.kernels.index import Masses

LOG2_E = math.log2(math.e)


def page_log_masses(queries: Tensor, scale: float, keys: KeyPages, counts: NDArray[np.int32], pages: NDArray[np.int32]) -> Masses:
    """The log2 of the sum of exponentials over the rows of pages: float32 `[Hkv, R, C]`, -inf for empty pages.

    Args:
        queries: `[Hkv, R, D]`.
        counts: int32 `[Hkv, P]`, rows per page.
        pages: int32 `[Hkv, C]`, which pages, -1 = none.
    """
    if not kernels.can_score(keys.pool):
        return plain.page_log_masses(queries, scale, keys, counts, pages)
    scaled = (queries.detach().to("cpu", torch.float32) * (scale * LOG2_E)).contiguous().numpy()
    return kernels.page_log_masses(scaled, keys.pool, keys.slots, counts, pages)


def all_log_masses(queries: Tensor, scale: float, keys: KeyPages, counts: NDArray[np.int32]) -> Masses:
    """`page_log_masses` of all pages, float32 `[Hkv, L, R, P]`, for `queries [Hkv, L, R, D]`."""
    pages = np.repeat(np.arange(counts.shape[1], dtype=np.int32)[None], len(counts), axis=0)
    return page_log_masses(queries.flatten(1, 2), scale, keys, counts, pages).reshape(*queries.shape[:3], counts.shape[1])


def in_log2(resident_log_mass: Tensor | None) -> Masses | None:
    """Natural logarithms to base 2, on the CPU."""
    return (
        None if resident_log_mass is None else resident_log_mass.detach().to("cpu", torch.float32).contiguous().numpy() * np.float32(LOG2_E)
    )


def total_log_masses(log_masses: Masses, resident: Masses | None) -> Masses:
    """The log2 of what the queries' probabilities are shares of, float32 `[G, R]`, for `log_masses [G, R, C]` and `resident [G, R]`."""
    totals = kernels.sum_log_masses(log_masses)
    return totals if resident is None else np.logaddexp2(totals, resident.reshape(totals.shape))


def best_pages(log_masses: Masses, resident: Masses | None, num_pages: int) -> NDArray[np.int32]:
    """The pages int32 `[Hkv, L, num_pages]` with the largest summed share of the softmax, best first, -1 = none.

    Args:
        log_masses: `[Hkv, L, R, P]`. resident: log2 masses `[Hkv, L, R]`.
    """
    sets = log_masses.reshape(-1, *log_masses.shape[2:])
    return kernels.rank_pages(sets, total_log_masses(sets, resident), num_pages).reshape(*log_masses.shape[:2], num_pages)


def search(
    estimates: Masses,
    queries: Tensor,
    scale: float,
    keys: KeyPages,
    counts: NDArray[np.int32],
    resident: Masses | None,
    num_candidates: int,
    num_wanted: int,
    single_rows: bool,
) -> NDArray[np.int32]:
    """The best of the pages with the best estimates, by their exact masses, or the best rows of these: int32 `[Hkv, L, num_wanted]`.

    The shares count the other pages with their estimates. The plain twin of `kernels.search_pages`; overwrites the candidates' estimates.

    Args:
        estimates: log2 masses `[Hkv, L, R, P]`. queries: `[Hkv, L, R, D]`. counts: int32 `[Hkv, P]`. resident: log2 masses `[Hkv, L, R]`.
    """
    num_sets = estimates.shape[1]
    candidates = best_pages(estimates, resident, num_candidates).reshape(-1, num_candidates)
    slots, held = keys.slots.repeat_interleave(num_sets, dim=0), np.repeat(counts, num_sets, axis=0)
    rest, names, scored = estimates.reshape(-1, *estimates.shape[2:]), candidates, KeyPages(keys.pool, slots)
    if single_rows:
        names, scored, held = _as_pages_of_one_row(candidates, scored, held)
    exact = page_log_masses(queries.flatten(0, 1), scale, scored, held, names)
    # where -1 pads the candidates, all pages in use are among them
    np.put_along_axis(rest, np.maximum(candidates, 0)[:, None], -np.inf, axis=2)
    totals = np.logaddexp2(total_log_masses(rest, resident), kernels.sum_log_masses(exact))
    best = kernels.rank_pages(exact, totals, num_wanted)
    chosen = np.where(best >= 0, np.take_along_axis(names, np.maximum(best, 0), axis=1), np.int32(-1))
    return chosen.reshape(-1, num_sets, num_wanted)


def _as_pages_of_one_row(
    pages: NDArray[np.int32], keys: KeyPages, counts: NDArray[np.int32]
) -> tuple[NDArray[np.int32], KeyPages, NDArray[np.int32]]:
    """The places `[G, C * S]` of the rows of `pages [G, C]`, -1 where none is, and all rows as pages: their keys, and counts of 0 and 1."""
    page_size = keys.pool.shape[1]
    within = np.arange(page_size, dtype=np.int32)
    is_row = (within < np.take_along_axis(counts, np.maximum(pages, 0), axis=1)[..., None]) & (pages >= 0)[..., None]
    places = np.where(is_row, pages[..., None] * page_size + within, -1).reshape(len(pages), -1)
    slots = (keys.slots[..., None] * page_size + torch.arange(page_size, device=keys.slots.device)).flatten(1)
    return places, KeyPages(keys.pool.flatten(0, 1)[:, None], slots), (within < counts[..., None]).astype(np.int32).reshape(len(counts), -1)
