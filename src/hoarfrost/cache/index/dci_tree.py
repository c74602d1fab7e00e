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
from hoarfrost.kernels import index as kernels

ROOT = 0

FlatCells = tuple[NDArray[np.int32], NDArray[np.int32]]


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
        members = [np.flatnonzero(levels == level).astype(np.int32) for level in range(int(levels.max(initial=-1)) + 1)]
        num_pages_of = np.zeros(1 + sum(map(len, members[1:])), np.intp)  # of each cell; they come in order, level by level
        num_cells, parts = 0, [np.empty((0, page_size), np.int32)]
        for level in range(len(members) - 1, -1, -1):
            cells, num_cells = self._cells_for(lifted, members, level, num_cells)
            pages, owners = kernels.cut_cells(members[level], cells, num_cells, projections, page_size)
            num_pages_of += np.bincount(owners, minlength=len(num_pages_of))
            parts.append(pages)
        self.rows = np.concatenate(parts)
        starts = np.concatenate(([0], np.cumsum(num_pages_of))).astype(np.int32)
        self._flat_cells: FlatCells = (starts, np.arange(len(self.rows), dtype=np.int32))
        self._changed: dict[int, list[int]] = {}

    def pages_of(self, cell: int) -> list[int]:
        """The pages of a cell, to be changed. Only such are lists: one for every cell would set off Python's garbage collector."""
        if cell not in self._changed:
            starts, pages = self._flat_cells
            self._changed[cell] = pages[starts[cell] : starts[cell + 1]].tolist()
        return self._changed[cell]

    def _cells_for(self, lifted: Lifted, members: list[NDArray[np.int32]], level: int, first: int) -> tuple[NDArray[np.int32], int]:
        """The cell of each row of a level, and the number of cells so far; the level above gets its cells now, numbered from `first` on."""
        if level == len(members) - 1:
            return np.zeros(len(members[level]), np.int32), 1
        pivots = members[level + 1]
        self.child_cells[pivots] = np.arange(first, first + len(pivots))
        if level == 0:
            self._lowest_pivots, self._lowest_cells = lifted[pivots], self.child_cells[pivots]
        points = lifted if len(members[level]) * 2 > len(lifted) else lifted[members[level]]
        nearest = kernels.nearest_pivots(points, lifted[pivots])
        return self.child_cells[pivots][nearest[members[level]] if points is lifted else nearest], first + len(pivots)

    def cells_of(self, lifted: Lifted) -> NDArray[np.int32]:
        """The cells that new rows belong to."""
        if len(self._lowest_pivots) == 0:
            return np.zeros(len(lifted), np.int32)
        return self._lowest_cells[kernels.nearest_pivots(lifted, self._lowest_pivots)]

    def extend(self, projections: NDArray[np.int32]) -> None:
        """New rows, on the lowest level; the caller puts them into the pages of their cells."""
        self.projections = np.concatenate((self.projections, projections))
        self.child_cells = np.concatenate((self.child_cells, np.full(len(projections), -1, np.int32)))
        self.levels = np.concatenate((self.levels, np.zeros(len(projections), np.int8)))

    def truncate(self, num_rows: int) -> None:
        """Forgets the rows from `num_rows` on; what hung from a forgotten pivot hangs from the last one left of its level, or the root."""
        for row in range(num_rows, len(self.levels)):
            cell = int(self.child_cells[row])
            if cell < 0:
                continue
            left = np.flatnonzero(self.levels[:num_rows] == self.levels[row])
            heir = int(self.child_cells[left[-1]]) if left.size else ROOT
            self.pages_of(heir).extend(self.pages_of(cell))
            self.pages_of(cell).clear()
        kept = np.isin(self._lowest_cells, self.child_cells[:num_rows])
        self._lowest_pivots, self._lowest_cells = self._lowest_pivots[kept], self._lowest_cells[kept]
        self.projections, self.child_cells = self.projections[:num_rows].copy(), self.child_cells[:num_rows].copy()
        self.levels = self.levels[:num_rows].copy()

    def flat_cells(self) -> FlatCells:
        """Where the pages of each cell start, and the pages of all cells one after the other."""
        if self._changed:
            starts, pages = self._flat_cells
            cells = np.split(pages, starts[1:-1])
            for cell, changed in self._changed.items():
                cells[cell] = np.array(changed, np.int32)
            starts = np.concatenate(([0], np.cumsum([len(one) for one in cells]))).astype(np.int32)
            self._flat_cells, self._changed = (starts, np.concatenate(cells)), {}
        return self._flat_cells

    def num_bytes(self) -> int:
        num_listed = sum(map(len, self.flat_cells())) - 1
        arrays = (self.projections, self.child_cells, self.levels, self._lowest_pivots, self._lowest_cells)
        return sum(array.nbytes for array in arrays) + 16 * num_listed
