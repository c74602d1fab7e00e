"""What a page is worth to queries: the softmax mass of its rows; and the choice of the pages that are worth most.

Masses are logarithms to base 2, so that powers are cheap. `page_log_masses` is exact, on any device, and the plain twin of the native one;
`rank_pages` merges the queries of a group by probability: a page counts with the sum of the shares that the queries give to it.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index.protocol import KeyPages

Masses = NDArray[np.float32]

LOG2_E = math.log2(math.e)
_PAGES_AT_ONCE = 1024


def page_log_masses(
    queries: Tensor, scale: float, keys: KeyPages, counts: NDArray[np.int32], pages: NDArray[np.int32] | None = None
) -> Masses:
    """The log2 of the sum of exponentials over the rows of pages: float32 `[Hkv, R, C]`, -inf for empty pages.

    Args:
        queries: `[Hkv, R, D]`.
        counts: int32 `[Hkv, P]`, rows per page.
        pages: int32 `[Hkv, C]`, which pages, -1 = none; all P by default.
    """
    num_heads = counts.shape[0]
    if pages is None:
        pages = np.broadcast_to(np.arange(counts.shape[1], dtype=np.int32), counts.shape)
    places = torch.from_numpy(np.maximum(pages, 0).astype(np.int64))
    held = torch.from_numpy(np.where(pages >= 0, np.take_along_axis(counts, np.maximum(pages, 0), axis=1), 0))
    device = keys.pool.device
    slots = torch.gather(keys.slots.to(device), 1, places.to(device)).clamp_min(0)
    scaled = queries.to(device, torch.float32) * (scale * LOG2_E)
    parts = []
    for start in range(0, pages.shape[1], _PAGES_AT_ONCE):
        rows = keys.pool[slots[:, start : start + _PAGES_AT_ONCE]].float()
        scores = torch.matmul(scaled, rows.flatten(1, 2).transpose(1, 2)).view(*scaled.shape[:2], *rows.shape[1:3])
        empty = torch.arange(rows.shape[2]) >= held[:, start : start + _PAGES_AT_ONCE, None]
        scores.masked_fill_(empty.to(device)[:, None], -torch.inf)
        parts.append(_log2_sum(scores).cpu())
    if not parts:
        return np.empty((num_heads, queries.shape[1], 0), np.float32)
    return torch.cat(parts, dim=2).numpy()


def _log2_sum(scores: Tensor) -> Tensor:
    return torch.logsumexp(scores / LOG2_E, dim=-1) * LOG2_E


def total_log_masses(log_masses: Masses, resident_log_mass: Tensor | None) -> Masses:
    """The log2 of what the queries' probabilities are shares of, float32 `[Hkv, R]`; `resident_log_mass` is a natural logarithm."""
    totals = _log2_sum_over_pages(log_masses)
    if resident_log_mass is None:
        return totals
    resident = resident_log_mass.detach().to("cpu", torch.float32).numpy() * np.float32(LOG2_E)
    return np.logaddexp2(totals, resident)


def _log2_sum_over_pages(log_masses: Masses) -> Masses:
    if log_masses.shape[2] == 0:
        return np.full(log_masses.shape[:2], -np.inf, np.float32)
    largest = np.maximum(log_masses.max(axis=2), np.float32(-1e30))
    totals: Masses = largest + np.log2(np.maximum(np.exp2(log_masses - largest[:, :, None]).sum(axis=2), np.float32(1e-30)))
    return totals


def rank_pages(log_masses: Masses, totals: Masses, num_pages: int) -> NDArray[np.int32]:
    """The places of the `num_pages` pages with the largest summed share, the lower place first among equals.

    Args:
        log_masses: float32 `[Hkv, R, C]`, -inf where there is no page.
        totals: float32 `[Hkv, R]`.

    Returns:
        int32 `[Hkv, num_pages]` in 0..C-1, -1 where the head has no more pages.
    """
    shares = np.exp2(log_masses - np.maximum(totals, np.float32(-1e30))[:, :, None]).sum(axis=1)
    ranked = np.where(np.isfinite(log_masses).any(axis=1), shares, np.float32(-1))
    found = np.full((len(log_masses), num_pages), -1, np.int32)
    best = np.argsort(-ranked, axis=1, kind="stable")[:, :num_pages]
    found[:, : best.shape[1]] = np.where(np.take_along_axis(ranked, best, axis=1) >= 0, best, -1)
    return found
