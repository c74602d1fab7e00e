"""One DCI-tree: which row is a pivot of which level, whose child every row is, and in which pages the children of a pivot lie.

Rows are promoted in the order they come, so that a level has a fixed share of the one below it (`levels_of`). Every row lies on exactly
one level and is a child of the nearest row of the level above; the top level hangs from the root. The children of a node, a *cell*, are
sorted along a projection and cut into pages of nearly equal size. A row that comes later joins the lowest level, at its place in the
nearest pivot's cell; a full page is split in halves.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hoarfrost.cache.index.lift import Lifted
from hoarfrost.native import index as kernels

ROOT = 0


@lru_cache(maxsize=4)
def levels_of(num_rows: int, first_ratio: float, other_ratio: float) -> NDArray[np.int8]:
    """The level of each of `num_rows` rows: a counter promotes the next row as soon as a level has enough rows below it."""
    counts, following = [0], 0
    levels = np.empty(num_rows, np.int8)
    for row in range(num_rows):
        level, following = following, 0
        levels[row] = level
        ratio = first_ratio if level == 0 else other_ratio
        if level == len(counts):
            counts.append(1)
            continue
        counts[level] += 1
        wanted = math.ceil(1 / ratio) if level == len(counts) - 1 else counts[level + 1] / ratio
        following = level + 1 if counts[level] + 1 >= wanted else 0
    return levels


class DciTree:
    """The tree of one KV head. `rows int32 [P, S]` are its pages as built; what they hold later is the caller's to know."""

    def __init__(self, lifted: Lifted, projections: NDArray[np.int32], levels: NDArray[np.int8], page_size: int) -> None:
        self.projections = projections
        self.child_cells = np.full(len(levels), -1, np.int32)
        self.levels = levels
        self._lowest_pivots, self._lowest_cells = lifted[:0], np.empty(0, np.int32)
        self.cell_pages: list[list[int]] = [[]]
        self._flat_cells: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None
        parts: list[NDArray[np.int32]] = []
        num_pages = 0
        members = [np.flatnonzero(levels == level).astype(np.int32) for level in range(int(levels.max(initial=-1)) + 1)]
        for level in range(len(members) - 1, -1, -1):
            cells = self._cells_for(lifted, members, level)
            pages, owners = kernels.cut_cells(members[level], cells, len(self.cell_pages), projections, page_size)
            for page, cell in enumerate(owners.tolist(), num_pages):
                self.cell_pages[cell].append(page)
            num_pages += len(pages)
            parts.append(pages)
        self.rows = np.concatenate(parts) if parts else np.empty((0, page_size), np.int32)

    def _cells_for(self, lifted: Lifted, members: list[NDArray[np.int32]], level: int) -> NDArray[np.int32]:
        """The cell of each row of a level; the level above gets its cells now."""
        if level == len(members) - 1:
            return np.zeros(len(members[level]), np.int32)
        pivots = members[level + 1]
        first = len(self.cell_pages)
        self.child_cells[pivots] = np.arange(first, first + len(pivots))
        self.cell_pages += [[] for _ in pivots]
        if level == 0:
            self._lowest_pivots, self._lowest_cells = lifted[pivots], self.child_cells[pivots]
        points = lifted if len(members[level]) * 2 > len(lifted) else lifted[members[level]]
        nearest = kernels.nearest_pivots(points, lifted[pivots])
        return self.child_cells[pivots][nearest[members[level]] if points is lifted else nearest]

    def cells_of(self, lifted: Lifted) -> NDArray[np.int32]:
        """The cells that new rows belong to."""
        if len(self._lowest_pivots) == 0:
            return np.zeros(len(lifted), np.int32)
        return self._lowest_cells[kernels.nearest_pivots(lifted, self._lowest_pivots)]

    def extend(self, projections: NDArray[np.int32]) -> None:
        """New rows, on the lowest level; the caller puts them into `cell_pages`."""
        self._flat_cells = None
        self.projections = np.concatenate((self.projections, projections))
        self.child_cells = np.concatenate((self.child_cells, np.full(len(projections), -1, np.int32)))
        self.levels = np.concatenate((self.levels, np.zeros(len(projections), np.int8)))

    def truncate(self, num_rows: int) -> None:
        """Forgets the rows from `num_rows` on; what hung from a forgotten pivot hangs from the last one left of its level, or the root."""
        self._flat_cells = None
        for row in range(num_rows, len(self.levels)):
            cell = int(self.child_cells[row])
            if cell < 0:
                continue
            left = np.flatnonzero(self.levels[:num_rows] == self.levels[row])
            heir = int(self.child_cells[left[-1]]) if left.size else ROOT
            self.cell_pages[heir] += self.cell_pages[cell]
            self.cell_pages[cell] = []
        kept = np.isin(self._lowest_cells, self.child_cells[:num_rows])
        self._lowest_pivots, self._lowest_cells = self._lowest_pivots[kept], self._lowest_cells[kept]
        self.projections, self.child_cells = self.projections[:num_rows].copy(), self.child_cells[:num_rows].copy()
        self.levels = self.levels[:num_rows].copy()

    def flat_cells(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Where the pages of each cell start, and the pages of all cells one after the other."""
        if self._flat_cells is None:
            self._flat_cells = self._flatten_cells()
        return self._flat_cells

    def _flatten_cells(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        starts = np.concatenate(([0], np.cumsum([len(pages) for pages in self.cell_pages]))).astype(np.int32)
        return starts, np.array([page for pages in self.cell_pages for page in pages], np.int32)

    def num_bytes(self) -> int:
        num_listed = sum(map(len, self.cell_pages)) + len(self.cell_pages)
        arrays = (self.projections, self.child_cells, self.levels, self._lowest_pivots, self._lowest_cells)
        return sum(array.nbytes for array in arrays) + 16 * num_listed
