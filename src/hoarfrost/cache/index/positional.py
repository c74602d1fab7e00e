"""Indexes without a search structure of their own: `quest` and `exact`.

`QuestIndex` (Tang et al., arXiv 2406.10774): pages of consecutive rows, each bounded by the least and largest entry of its keys per
dimension; a page's score is the largest product that a key within the bounds could have with the query. `ExactIndex` reads every key: the
best that pages of its grouping can give, at the cost of a full scan. Both merge the queries of a group like every index here.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index.checks import check_keys, check_page_size, check_query, check_truncation
from hoarfrost.cache.index.page_rows import PageRows, rows_in_order
from hoarfrost.cache.index.protocol import KeyPages, PageChanges, PageTable
from hoarfrost.cache.index.scoring import LOG2_E, all_log_masses, best_pages, in_log2
from hoarfrost.kernels.index import Masses


class QuestIndex:
    """Implements `PageIndex`; reads no keys in `select`."""

    only_appends: ClassVar[bool] = True

    def __init__(self, page_size: int = 16) -> None:
        check_page_size(page_size)
        self.page_size = page_size
        self._rows = PageRows(np.empty((0, 0, page_size), np.int32))
        self._bounds = torch.empty((2, 0, 0, 0))

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    def build(self, keys: Tensor, queries: Tensor | None = None) -> None:
        check_keys(keys)
        self._rows = PageRows(rows_in_order(keys.shape[0], keys.shape[1], self.page_size))
        self._bounds = self._bounds_of(keys)

    def pages(self) -> PageTable:
        return self._rows.table

    def select(
        self, queries: Tensor, num_pages: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        check_query(queries, self._shape, num_pages)
        wanted = queries.detach().to("cpu", torch.float32) * (scale * LOG2_E)
        least, largest = self._bounds.transpose(2, 3)[:, :, None]
        bounds = torch.matmul(wanted.clamp_min(0), largest) + torch.matmul(wanted.clamp_max(0), least)
        counts = self._rows.counts_without(num_left_out)[:, None, None, :]
        with np.errstate(divide="ignore"):
            masses: Masses = np.where(counts > 0, bounds[..., : counts.shape[3]].numpy() + np.log2(counts.astype(np.float32)), -np.inf)
        return best_pages(masses, in_log2(resident_log_mass), num_pages)

    def insert(self, new_keys: Tensor, keys: KeyPages) -> PageChanges:
        check_keys(new_keys, self._shape)
        first = self.num_rows
        changes = self._rows.append(new_keys.shape[1])
        self._bounds = _widened(self._bounds, self._rows.num_pages)
        fresh = changes.rows >= first
        emptied = (changes.previous_rows >= 0).sum(axis=1) == 0
        rows = new_keys.detach().to("cpu", torch.float32)[changes.heads[:, None], np.where(fresh, changes.rows - first, 0)]
        absent = torch.from_numpy(~fresh)[:, :, None]
        for side, extreme, neutral in ((0, torch.minimum, torch.inf), (1, torch.maximum, -torch.inf)):
            new = (rows.masked_fill(absent, neutral).amin if side == 0 else rows.masked_fill(absent, neutral).amax)(dim=1)
            old = self._bounds[side, changes.heads, changes.pages].masked_fill(torch.from_numpy(emptied)[:, None], neutral)
            self._bounds[side, changes.heads, changes.pages] = extreme(old, new)
        return changes

    def truncate(self, num_rows: int) -> PageChanges:
        """Bounds of pages that lose rows stay as wide as they were."""
        check_truncation(num_rows, self.num_rows)
        return self._rows.truncate(num_rows)

    def num_bytes(self) -> int:
        return self._rows.num_bytes() + self._bounds.nbytes

    @property
    def _shape(self) -> tuple[int, int]:
        return self._bounds.shape[1], self._bounds.shape[3]

    def _bounds_of(self, keys: Tensor) -> Tensor:
        padded = keys.detach().to("cpu", torch.float32)
        missing = -keys.shape[1] % self.page_size
        if missing:
            padded = torch.cat((padded, padded[:, -1:].expand(-1, missing, -1)), dim=1)
        pages = padded.view(len(padded), -1, self.page_size, padded.shape[2])
        return torch.stack((pages.amin(dim=2), pages.amax(dim=2)))


def _widened(bounds: Tensor, num_pages: int) -> Tensor:
    """`bounds [2, Hkv, P, D]` with room for `num_pages`, grown by half at least."""
    capacity = bounds.shape[2]
    if num_pages <= capacity:
        return bounds
    grown = bounds.new_zeros((2, bounds.shape[1], max(num_pages, capacity + capacity // 2), bounds.shape[3]))
    grown[:, :, :capacity] = bounds
    return grown


class ExactIndex:
    """Implements `PageIndex` over pages of consecutive rows, or over the pages of `rows int32 [Hkv, P, S]` where given at `build`."""

    only_appends: ClassVar[bool] = True

    def __init__(self, page_size: int = 16) -> None:
        check_page_size(page_size)
        self.page_size = page_size
        self._rows = PageRows(np.empty((0, 0, page_size), np.int32))
        self._head_dim = 0

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    def build(self, keys: Tensor, queries: Tensor | None = None, *, rows: NDArray[np.int32] | None = None) -> None:
        check_keys(keys)
        self._rows = PageRows(rows_in_order(keys.shape[0], keys.shape[1], self.page_size) if rows is None else rows)
        self._head_dim = keys.shape[2]

    def pages(self) -> PageTable:
        return self._rows.table

    def select(
        self, queries: Tensor, num_pages: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        counts = self._rows.counts_without(num_left_out)
        check_query(queries, (len(counts), self._head_dim), num_pages)
        masses = all_log_masses(queries, scale, keys, counts)
        return best_pages(masses, in_log2(resident_log_mass), num_pages)

    def insert(self, new_keys: Tensor, keys: KeyPages) -> PageChanges:
        check_keys(new_keys, (self._rows.table.rows.shape[0], self._head_dim))
        return self._rows.append(new_keys.shape[1])

    def truncate(self, num_rows: int) -> PageChanges:
        check_truncation(num_rows, self.num_rows)
        return self._rows.truncate(num_rows)

    def num_bytes(self) -> int:
        return self._rows.num_bytes()
