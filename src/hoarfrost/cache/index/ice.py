"""The `ice` index: full pages of similar keys, one-bit sketches of all keys, exact scores of the pages that look best.

- *Pages* are full (`grouping.py`), the newest rows excepted, which fill a page in order of position and so do all that are inserted later.
  Where the prompt's last queries are at hand, every head tests both groupings with them and keeps rows in order of position if the best
  pages of that capture as much.
- *Search* reads the sketches of all keys (`sketch.py`: D / 8 bytes a key), adds up the estimated masses by page, and scores exactly, from
  the store's pages, a few times as many pages as are wanted, or the rows of so many pages. Both passes serve all query heads and rows of a
  KV head at once, and rank by the summed share of the softmax (`scoring.py`).

What is held per key is its sketch, its factor and its row number: 22 bytes at D = 128. Nothing is random but the seeded rotation, and ties
go to the lower page: the result depends on the input alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index.checks import check_page_size, check_query, check_shape, check_truncation
from hoarfrost.cache.index.page_rows import PageRows, rows_in_order
from hoarfrost.cache.index.protocol import KeyPages, PageChanges, PageTable
from hoarfrost.cache.index.scoring import in_log2
from hoarfrost.cache.index.self_check import prefers_order
from hoarfrost.cache.index.sketch import random_flips
from hoarfrost.cache.index.sketched_pages import SketchedPages
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels import index as kernels

MIN_SCORED_ROWS = 512
"""However few are wanted: the best single rows lie scattered over pages whose other rows matter less."""


@dataclass(frozen=True)
class IceIndexConfig:
    """page_size: rows per page. candidates_per_page: how many pages are scored exactly for each that is wanted. candidates_per_row: how
    many rows are, in whole pages, for each row that is wanted, and `MIN_SCORED_ROWS` at the least. seed: of the rotation."""

    page_size: int = 16
    candidates_per_page: int = 4
    candidates_per_row: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_page_size(self.page_size)
        for name in ("candidates_per_page", "candidates_per_row"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; score at least the 1 that is wanted.")


class IceIndex:
    """Implements `PageIndex`; the sketches live on the CPU, keys may live anywhere."""

    only_appends: ClassVar[bool] = True

    def __init__(self, config: IceIndexConfig | None = None) -> None:
        self.config = config or IceIndexConfig()
        self._rows = PageRows(np.empty((0, 0, self.page_size), np.int32))
        self._sketches = SketchedPages(torch.empty(0, 0, 1), random_flips(1, self.config.seed), self.page_size)

    @property
    def page_size(self) -> int:
        return self.config.page_size

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    def build(self, keys: Tensor, queries: Tensor | None = None) -> None:
        check_shape(keys)
        sketched_pages = SketchedPages(keys, random_flips(keys.shape[2], self.config.seed), self.page_size)
        sketches = sketched_pages.sketch(keys)
        rows = self._group(keys, sketches.coordinates, queries)
        sketched_pages.lay_out(sketches, rows)
        self._sketches, self._rows = sketched_pages, PageRows(rows)

    def _group(self, keys: Tensor, coordinates: NDArray[np.int8], queries: Tensor | None) -> NDArray[np.int32]:
        """Row numbers by page, int32 [Hkv, P, S]; the newest rows, too few for a page, come last."""
        num_grouped = keys.shape[1] // self.page_size * self.page_size
        rows = rows_in_order(keys.shape[0], keys.shape[1], self.page_size)
        similar = kernels.group_similar(coordinates[:, :num_grouped], self.page_size).reshape(len(rows), -1, self.page_size)
        keeps_order = prefers_order(keys[:, :num_grouped], queries, similar, keys.shape[2] ** -0.5)
        rows[~keeps_order, : similar.shape[1]] = similar[~keeps_order]
        return rows

    def pages(self) -> PageTable:
        return self._rows.table

    def select(
        self, queries: Tensor, num_pages: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        num_candidates = num_pages * self.config.candidates_per_page
        return self._search(queries, num_pages, num_candidates, scale, keys, resident_log_mass, num_left_out, single_rows=False)

    def select_rows(
        self, queries: Tensor, num_rows: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        num_candidates = -(-max(num_rows * self.config.candidates_per_row, MIN_SCORED_ROWS) // self.page_size)
        return self._search(queries, num_rows, num_candidates, scale, keys, resident_log_mass, num_left_out, single_rows=True)

    def _search(
        self,
        queries: Tensor,
        num_wanted: int,
        num_candidates: int,
        scale: float,
        keys: KeyPages,
        resident_log_mass: Tensor | None,
        num_left_out: int,
        *,
        single_rows: bool,
    ) -> NDArray[np.int32]:
        """What is wanted, from among `num_candidates` pages."""
        counts = self._rows.counts_without(num_left_out)
        check_query(queries, self._sketches.shape, num_wanted)
        num_candidates = min(num_candidates, counts.shape[1])
        return self._sketches.search(queries, scale, keys, counts, in_log2(resident_log_mass), num_candidates, num_wanted, single_rows)

    def insert(self, new_keys: Tensor, keys: KeyPages) -> PageChanges:
        check_shape(new_keys, self._sketches.shape)
        first, sketches = self.num_rows, self._sketches.sketch(new_keys)
        changes = self._rows.append(new_keys.shape[1])
        self._sketches.update(changes, first, sketches)
        return changes

    def truncate(self, num_rows: int) -> PageChanges:
        check_truncation(num_rows, self.num_rows)
        changes = self._rows.truncate(num_rows)
        self._sketches.update(changes, num_rows, None)
        return changes

    def num_bytes(self) -> int:
        return self._rows.num_bytes() + self._sketches.num_bytes()
