"""The `dci` index: the DCI-tree with the settings of the IceCache paper (arXiv 2604.10539), one tree per KV head.

Keys are lifted to one length (`lift.py`), promoted in shares of 0.01 and 0.2, assigned to the nearest pivot of the level above, and cut
into pages along a random projection (`dci_tree.py`). A query follows the tree: of every level it keeps the best `max(0.001 N, 30)` nodes by
exact product, scores the children of each (of more than 128 only those with the nearest projections, in steps of 128, 80% at the least),
and a page counts with the best product seen in it. The lists of the queries of a group are merged by rank.

What the published index gets wrong, and this one does not: it projects queries on another scale than keys, and attributes projections to
the wrong rows when it cuts the pages of a prompt; its build and its query end the process for some thread counts and breadths, or return
fewer pages than there are; its result depends on how threads interleave; its shortcut in assigning rows misses the nearest pivot. As its
16-bit branch does, rows that come while decoding become no pivots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index.checks import check_keys, check_page_size, check_query, check_shape, check_truncation
from hoarfrost.cache.index.dci_tree import DciTree, levels_of
from hoarfrost.cache.index.lift import project_query, random_direction
from hoarfrost.cache.index.page_rows import PageRows
from hoarfrost.cache.index.protocol import KeyPages, PageChanges, PageTable
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels import index as kernels


@dataclass(frozen=True)
class DciConfig:
    """first_ratio, other_ratio: shares of rows promoted from the lowest level, and from the others. min_field_of_view, view_share: nodes
    kept per level, at least and per row. scored_share, batch: of a large cell. seed: of the projection."""

    page_size: int = 16
    first_ratio: float = 0.01
    other_ratio: float = 0.2
    min_field_of_view: int = 30
    view_share: float = 1e-3
    scored_share: float = 0.8
    batch: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check_page_size(self.page_size)
        for name in ("first_ratio", "other_ratio"):
            if not 0 < getattr(self, name) <= 0.5:
                raise InvalidInput(f"{name} is {getattr(self, name)}; promote a share above 0 and up to 0.5.")
        if self.min_field_of_view < 1 or self.batch < 1 or not 0 < self.scored_share <= 1:
            raise InvalidInput("A search keeps at least 1 node, goes in steps of at least 1 row, and scores a share above 0 and up to 1.")

    def breadth(self, num_rows: int, num_pages: int) -> kernels.DciBreadth:
        """Wide enough to reach `num_pages` where there are so many."""
        return kernels.DciBreadth(max(int(self.view_share * num_rows), self.min_field_of_view, num_pages), self.scored_share, self.batch)


class DciIndex:
    """Implements `PageIndex`; keys are scored on the CPU."""

    only_appends: ClassVar[bool] = False

    def __init__(self, config: DciConfig | None = None) -> None:
        self.config = config or DciConfig()
        self._rows = PageRows(np.empty((0, 0, self.page_size), np.int32))
        self._trees: list[DciTree] = []
        self._squared_radii = np.empty(0, np.float32)
        self._direction = random_direction(1, self.config.seed)
        self._head_dim = 1

    @property
    def page_size(self) -> int:
        return self.config.page_size

    @property
    def num_rows(self) -> int:
        return self._rows.num_rows

    def build(self, keys: Tensor, queries: Tensor | None = None) -> None:
        check_shape(keys)
        squared_radii = kernels.largest_squared_lengths(keys)
        if not np.isfinite(squared_radii).all():
            check_keys(keys)
        num_heads, num_rows, self._head_dim = keys.shape
        self._direction = random_direction(self._head_dim, self.config.seed)
        self._squared_radii = squared_radii
        levels = levels_of(num_rows, self.config.first_ratio, self.config.other_ratio)
        self._trees = []
        for head in range(num_heads):
            lifted, projections = kernels.lift_keys(keys[head : head + 1], self._squared_radii[head : head + 1], self._direction)
            self._trees.append(DciTree(lifted[0], projections[0], levels, self.page_size))
        num_pages = max((len(tree.rows) for tree in self._trees), default=0)
        rows = np.full((num_heads, num_pages, self.page_size), -1, np.int32)
        for head, tree in enumerate(self._trees):
            rows[head, : len(tree.rows)] = tree.rows
        self._rows = PageRows(rows)

    def pages(self) -> PageTable:
        return self._rows.table

    def select(
        self, queries: Tensor, num_pages: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        """As published, neither `scale` nor `resident_log_mass` matters."""
        check_query(queries, (len(self._trees), self._head_dim), num_pages)
        wanted = queries.detach().to("cpu", torch.float32).contiguous().numpy()
        table = self._rows.table
        projected = project_query(wanted, self._direction)
        breadth = self.config.breadth(self.num_rows, num_pages)
        num_heads, num_sets, num_queries, head_dim = wanted.shape
        scores = kernels.search_trees(
            self._trees, table.rows, table.counts, keys.pool, keys.slots, wanted.reshape(num_heads, -1, head_dim),
            projected.reshape(num_heads, -1), breadth,
        )  # fmt: skip
        return kernels.merge_by_rank(scores.reshape(num_heads, num_sets, num_queries, -1), table.counts, num_pages)

    def insert(self, new_keys: Tensor, keys: KeyPages) -> PageChanges:
        check_keys(new_keys, (len(self._trees), self._head_dim))
        edits: dict[tuple[int, int], list[int]] = {}
        num_pages = [len_of_used(self._rows.table.counts[head]) for head in range(len(self._trees))]
        lifted, projections = kernels.lift_keys(new_keys, self._squared_radii, self._direction)
        for head, tree in enumerate(self._trees):
            cells = tree.cells_of(lifted[head])
            tree.extend(projections[head])
            for place, cell in enumerate(cells.tolist()):
                num_pages[head] = self._place(head, tree.pages_of(cell), self.num_rows + place, edits, num_pages[head])
        return self._apply(edits, new_keys.shape[1])

    def truncate(self, num_rows: int) -> PageChanges:
        check_truncation(num_rows, self.num_rows)
        for tree in self._trees:
            tree.truncate(num_rows)
        return self._rows.truncate(num_rows)

    def num_bytes(self) -> int:
        return self._rows.num_bytes() + sum(tree.num_bytes() for tree in self._trees)

    def _place(self, head: int, pages: list[int], row: int, edits: dict[tuple[int, int], list[int]], num_pages: int) -> int:
        """Puts a row into the page of its cell whose projections it falls among. Returns the number of pages afterwards."""
        projections = self._trees[head].projections
        contents = [self._content(head, page, edits) for page in pages]
        held = [index for index, content in enumerate(contents) if content]
        if not held:
            page = pages[0] if pages else num_pages
            pages[:] = pages or [page]
            edits[head, page] = [row]
            return max(num_pages, page + 1)
        behind = [index for index in held if projections[contents[index][0]] <= projections[row]]
        chosen = behind[-1] if behind else held[0]
        content, page = contents[chosen], pages[chosen]
        keys = [(int(projections[one]), one) for one in content]
        place = sum(key < (int(projections[row]), row) for key in keys)
        content.insert(place, row)
        edits[head, page] = content
        if len(content) > self.page_size:
            half = len(content) // 2
            edits[head, page], edits[head, num_pages] = content[:half], content[half:]
            pages.insert(chosen + 1, num_pages)
            num_pages += 1
        return num_pages

    def _content(self, head: int, page: int, edits: dict[tuple[int, int], list[int]]) -> list[int]:
        if (head, page) in edits:
            return edits[head, page]
        table = self._rows.table
        content: list[int] = table.rows[head, page, : table.counts[head, page]].tolist()
        return content

    def _apply(self, edits: dict[tuple[int, int], list[int]], num_new: int) -> PageChanges:
        places = sorted(edits)
        rows = np.full((len(places), self.page_size), -1, np.int32)
        for index, place in enumerate(places):
            rows[index, : len(edits[place])] = edits[place]
        heads, pages = np.array(places, np.intp).reshape(-1, 2).T
        self._rows.num_rows += num_new
        return self._rows.replace(heads, pages, rows)


def len_of_used(counts: NDArray[np.int32]) -> int:
    """One more than the last page in use."""
    return int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
