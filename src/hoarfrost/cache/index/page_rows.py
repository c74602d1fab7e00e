"""Which row lies in which page: the bookkeeping that every index shares.

Arrays `rows [Hkv, capacity, S]` and `counts [Hkv, capacity]`, of which the first `num_pages` pages count. They grow by half of themselves
at least. Every change goes through `replace`, which notes what the pages held before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hoarfrost.cache.index.protocol import PageChanges, PageTable

Rows = NDArray[np.int32]


class PageRows:
    """The pages of all KV heads of one layer; rows are numbered in the order they came."""

    def __init__(self, rows: Rows) -> None:
        """Takes over `rows` int32 [Hkv, P, S]: each page filled from slot 0 on, -1 behind."""
        self._rows = rows
        self._counts: NDArray[np.int32] = (rows >= 0).sum(-1, dtype=np.int32)
        self.num_pages = rows.shape[1]
        self.num_rows = int(self._counts[0].sum()) if rows.shape[0] else 0

    @property
    def page_size(self) -> int:
        return int(self._rows.shape[2])

    @property
    def table(self) -> PageTable:
        return PageTable(self._rows[:, : self.num_pages], self._counts[:, : self.num_pages])

    def counts_without(self, num_left_out: int) -> NDArray[np.int32]:
        """Rows per page of all pages in use but the last `num_left_out`; where none are left out, of the emptied ones behind as well."""
        num_counted = self.num_pages
        if num_left_out:
            num_counted = int(np.flatnonzero(self._counts.any(axis=0))[-1]) + 1 - num_left_out
        counts: NDArray[np.int32] = self._counts[:, :num_counted]
        return counts

    def num_bytes(self) -> int:
        return int(self._rows.nbytes + self._counts.nbytes)

    def append(self, num_new: int) -> PageChanges:
        """Puts the next `num_new` row numbers behind the last page in use, in order, on new pages where that one is full."""
        num_heads, _, page_size = self._rows.shape
        new_rows = np.arange(self.num_rows, self.num_rows + num_new, dtype=np.int32)
        heads, pages, contents = [], [], []
        for head in range(num_heads):
            page, held = self._open_page(head)
            filled = np.concatenate((self._rows[head, page, :held], new_rows)) if held else new_rows
            num_touched = -(-filled.size // page_size)
            heads.append(np.full(num_touched, head))
            pages.append(np.arange(page, page + num_touched))
            contents.append(_padded(filled, num_touched, page_size))
        changes = self.replace(np.concatenate(heads), np.concatenate(pages), np.concatenate(contents))
        self.num_rows += num_new
        return changes

    def truncate(self, num_rows: int) -> PageChanges:
        """Forgets the rows from `num_rows` on; the others close ranks within their pages."""
        heads, pages = np.nonzero((self.table.rows >= num_rows).any(-1))
        contents = self._rows[heads, pages]
        kept = (contents >= 0) & (contents < num_rows)
        order = np.argsort(~kept, axis=-1, kind="stable")
        contents = np.take_along_axis(np.where(kept, contents, -1), order, axis=-1)
        self.num_rows = num_rows
        return self.replace(heads, pages, contents.astype(np.int32))

    def replace(self, heads: NDArray[np.intp], pages: NDArray[np.intp], rows: Rows) -> PageChanges:
        """Gives page `pages[i]` of head `heads[i]` the rows `rows[i]`; pages beyond `num_pages` are new. Ordered by head and page."""
        needed = int(pages.max(initial=-1)) + 1
        self._reserve(needed)
        previous = self._rows[heads, pages]
        self._rows[heads, pages] = rows
        self._counts[heads, pages] = (rows >= 0).sum(-1)
        self.num_pages = max(self.num_pages, needed)
        return PageChanges(heads.astype(np.int32), pages.astype(np.int32), rows, previous, self.num_pages)

    def _open_page(self, head: int) -> tuple[int, int]:
        """The page that takes the head's next row, and how many rows it holds."""
        used = np.flatnonzero(self._counts[head, : self.num_pages])
        if used.size == 0:
            return 0, 0
        last = int(used[-1])
        held = int(self._counts[head, last])
        return (last, held) if held < self.page_size else (last + 1, 0)

    def _reserve(self, num_pages: int) -> None:
        num_heads, capacity, page_size = self._rows.shape
        if num_pages <= capacity:
            return
        grown = max(num_pages, capacity + capacity // 2)
        rows = np.full((num_heads, grown, page_size), -1, np.int32)
        counts = np.zeros((num_heads, grown), np.int32)
        rows[:, :capacity], counts[:, :capacity] = self._rows, self._counts
        self._rows, self._counts = rows, counts


def rows_in_order(num_heads: int, num_rows: int, page_size: int) -> Rows:
    """Pages of consecutive rows: int32 [Hkv, ceil(N / S), S]."""
    pages = _padded(np.arange(num_rows, dtype=np.int32), -(-num_rows // page_size), page_size)
    return np.repeat(pages[None], num_heads, axis=0)


def _padded(rows: Rows, num_pages: int, page_size: int) -> Rows:
    padded = np.full(num_pages * page_size, -1, np.int32)
    padded[: rows.size] = rows
    return padded.reshape(num_pages, page_size)
