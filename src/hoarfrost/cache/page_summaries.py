"""What is known of pages without reading them: the mean key and the mean value of each, for an estimate of the rows that were not fetched.

A page of `c` rows counts as `c` rows that are all its mean. Since the exponential is convex this never overstates a page's share.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.kernels.page_attention import Summaries

BLOCK_PAGES = 256  # taken at a time, so that what is gathered stays small


class PageSummaries:
    """Means `[2, Hkv, capacity, D]` (keys, then values) of one layer's pages, float32 on the compute device."""

    def __init__(self, num_kv_heads: int, head_dim: int, device: torch.device) -> None:
        self._means = torch.zeros((2, num_kv_heads, 0, head_dim), dtype=torch.float32, device=device)

    def update(
        self,
        pool: Tensor,
        slots: NDArray[np.int64],
        counts: NDArray[np.int32],
        heads: NDArray[np.integer],
        pages: NDArray[np.integer],
    ) -> None:
        """Takes the means of these pages anew; `slots` and `counts [Hkv, P]` say where the pages lie and how far they are filled."""
        self._reserve(slots.shape[1])
        filled = counts[heads, pages] > 0
        heads, pages = heads[filled].astype(np.int64), pages[filled].astype(np.int64)
        for start in range(0, len(heads), BLOCK_PAGES):
            block = slice(start, start + BLOCK_PAGES)
            self._update_block(pool, slots, counts, heads[block], pages[block])

    def _update_block(
        self, pool: Tensor, slots: NDArray[np.int64], counts: NDArray[np.int32], heads: NDArray[np.integer], pages: NDArray[np.integer]
    ) -> None:
        num_rows = counts[heads, pages]
        content = pool[torch.from_numpy(slots[heads, pages]).to(pool.device)]
        rows = torch.from_numpy(num_rows).to(pool.device)[:, None, None]
        if (num_rows < pool.shape[2]).any():
            empty = torch.arange(pool.shape[2], device=pool.device)[:, None] >= rows[..., None]
            content = content.masked_fill(empty, 0.0)
        means = content.sum(dim=2, dtype=torch.float32) / rows
        self._means[:, torch.from_numpy(heads), torch.from_numpy(pages)] = means.transpose(0, 1).to(self._means.device)

    def without(self, counts: NDArray[np.int32], fetched: NDArray[np.int32], num_left_out: NDArray[np.int64]) -> Summaries:
        """All pages but those of the lists `fetched [Hkv, L, P]` (-1: none) and the newest ones, `num_left_out [L or more]` of them."""
        num_kv_heads, num_lists, _ = fetched.shape
        capacity = self._means.shape[2]
        left = np.zeros((num_kv_heads, num_lists, capacity + 1), np.float32)
        num_pages = counts.shape[1]
        num_seen = np.flatnonzero(counts.any(axis=0))[-1] + 1 - num_left_out[:num_lists, None]
        left[:, :, :num_pages] = np.where(np.arange(num_pages) < num_seen, counts[:, None], 0)
        np.put_along_axis(left, np.where(fetched >= 0, fetched, capacity).astype(np.int64), 0.0, axis=2)
        with np.errstate(divide="ignore"):
            log_counts = torch.from_numpy(np.ascontiguousarray(np.log(left[:, :, :capacity])))
        return Summaries(self._means[0], self._means[1], log_counts.to(self._means.device))

    def num_bytes(self) -> int:
        return self._means.nbytes

    def _reserve(self, num_pages: int) -> None:
        capacity = self._means.shape[2]
        if num_pages > capacity:
            grown = max(num_pages, capacity + capacity // 4)
            self._means = torch.nn.functional.pad(self._means, (0, 0, 0, grown - capacity))
