"""The pages of one layer: which slot of the pool holds which page of which KV head, and how rows get there.

Rows are numbered 0.. in the order in which they left the window, alike in every head. Without an index they lie in that order, `page_size`
to a page. From `arrange` on they lie as an index groups them, and `apply` moves them as the index changes its mind. What can fail for want
of memory is `reserve`; whoever calls it first can be sure that the rest of a change succeeds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.hot_pages import HotPages
from hoarfrost.cache.index import KeyPages, PageChanges, PageTable
from hoarfrost.cache.page_pool import PagePool
from hoarfrost.cache.page_summaries import PageSummaries
from hoarfrost.kernels.page_attention import PageLists


class Choice(NamedTuple):
    """What is attended to: pages int32 `[Hkv, L, P]`, -1 for none; with `places` of the same shape, of each only the row in that place."""

    pages: NDArray[np.int32]
    places: NDArray[np.int32] | None = None


class LayerPages:
    """`slots int64 [Hkv, P]` and `counts int32 [Hkv, P]` name the slot and the number of rows of every page; a count of 0 is no page."""

    def __init__(self, num_kv_heads: int, pool: PagePool, *, hot: HotPages | None, summaries: PageSummaries | None) -> None:
        self.pool, self.hot, self.summaries = pool, hot, summaries
        self.slots = np.full((num_kv_heads, 0), -1, np.int64)
        self.counts = np.zeros((num_kv_heads, 0), np.int32)
        self.num_rows = 0

    @property
    def page_size(self) -> int:
        return self.pool.buffer.shape[2]

    def everything(self, num_rows: int) -> PageLists:
        """One list of the pages that hold the first `num_rows` rows, where rows lie in order."""
        counts = self.counts
        if num_rows < self.num_rows:
            counts = np.minimum(counts, np.clip(num_rows - np.arange(counts.shape[1]) * self.page_size, 0, None)).astype(np.int32)
        return PageLists(self.slots[:, None], counts[:, None])

    def listed(self, chosen: Choice) -> PageLists:
        """What was chosen as lists of slots."""
        pages, heads = chosen.pages, np.arange(len(chosen.pages))[:, None, None]
        counts = self.counts[heads, pages] if chosen.places is None else np.int32(1)
        return PageLists(self.slots[heads, pages], np.where(pages >= 0, counts, 0).astype(np.int32, copy=False), chosen.places)

    def fetch(self, chosen: Choice | None, num_rows: int) -> tuple[Tensor, PageLists]:
        """A pool on the compute device and the lists that say where in it lies what was chosen; None: the first `num_rows` rows."""
        lists = self.everything(num_rows) if chosen is None else self.listed(chosen)
        if self.hot is None:
            return self.pool.buffer, lists
        if chosen is not None:
            pages = chosen.pages
        else:
            pages = np.broadcast_to(np.arange(self.slots.shape[1], dtype=np.int32), self.slots.shape)[:, None]
        return self.hot.fetch(self.pool.buffer, np.where(lists.counts > 0, pages, -1).astype(np.int64), lists)

    def key_pages(self) -> KeyPages:
        """The keys, as an index reads them."""
        return KeyPages(self.pool.buffer[:, 0], torch.from_numpy(self.slots).to(self.pool.buffer.device))

    def keys(self) -> Tensor:
        """All keys `[Hkv, N, D]` while rows still lie in order."""
        pages = self.pool.buffer[self._tensor(self.slots), 0]
        return pages.flatten(1, 2)[:, : self.num_rows]

    def in_order(self, table: PageTable | None) -> Tensor:
        """A copy of all rows `[2, Hkv, N, D]` in the order of their numbers; `table` says how an index grouped them, None: in order."""
        buffer = self.pool.buffer
        rows = buffer.new_empty((2, len(self.slots), self.num_rows, buffer.shape[3]))
        for head in range(len(self.slots)):
            filled = np.nonzero(self.counts[head] > 0)[0]
            content = buffer[self._tensor(self.slots[head, filled])].transpose(1, 2).flatten(0, 1)
            if table is None:
                rows[:, head] = content[: self.num_rows].transpose(0, 1)
            else:
                numbers = table.rows[head, filled].ravel()
                rows[:, head, self._tensor(numbers[numbers >= 0])] = content[self._tensor(np.nonzero(numbers >= 0)[0])].transpose(0, 1)
        return rows

    def reserve_rows(self, num_rows: int) -> None:
        """Makes sure that `append` of so many rows succeeds."""
        num_pages = (self.num_rows + num_rows + self.page_size - 1) // self.page_size
        self.pool.reserve(len(self.slots) * max(0, num_pages - self.slots.shape[1]))

    def append(self, rows: Tensor) -> None:
        """Adds `rows [2, Hkv, m, D]` in order; for layers without an index."""
        numbers = np.arange(self.num_rows, self.num_rows + rows.shape[2])
        pages, offsets = numbers // self.page_size, numbers % self.page_size
        first, num_pages = self.num_rows // self.page_size, int(pages[-1]) + 1
        self._widen(num_pages)
        self.counts[:, first:num_pages] = np.bincount(pages - first, minlength=num_pages - first)
        self.counts[:, first] += self.num_rows % self.page_size
        self._fill_slots(*np.nonzero((self.counts > 0) & (self.slots < 0)))
        self._write(self.slots[:, pages].ravel(), np.tile(offsets, len(self.slots)), rows.permute(1, 2, 0, 3).flatten(0, 1))
        self.num_rows += rows.shape[2]
        self._note_changes(*np.nonzero(np.arange(num_pages)[None].repeat(len(self.slots), 0) >= first))

    def reserve_arrangement(self, table: PageTable) -> None:
        """Makes sure that `arrange` succeeds."""
        missing = (table.counts > 0).sum(axis=1) - (self.slots >= 0).sum(axis=1)
        self.pool.reserve(int(np.maximum(missing, 0).sum()))

    def arrange(self, table: PageTable) -> None:
        """Moves rows that lie in order to where an index wants them."""
        self._widen(table.counts.shape[1])
        for head in range(len(self.slots)):
            held = self.slots[head][self.slots[head] >= 0]
            in_order = self.pool.buffer[self._tensor(held)].transpose(1, 2).flatten(0, 1)
            filled = np.nonzero(table.counts[head] > 0)[0]
            slots = np.concatenate([held, self.pool.allocate(max(0, len(filled) - len(held)))])
            self.pool.release(slots[len(filled) :])
            self.slots[head] = -1
            self.slots[head, filled] = slots[: len(filled)]
            rows = self._tensor(np.maximum(table.rows[head, filled], 0))
            self.pool.buffer[self._tensor(self.slots[head, filled])] = in_order[rows].transpose(1, 2)
        self.counts[:] = 0
        self.counts[:, : table.counts.shape[1]] = table.counts
        self._note_changes(*np.nonzero(self.counts > 0))

    def put_in_order(self, table: PageTable) -> None:
        """Moves rows that lie where an index wanted them, as `table` says, back into the order of their numbers."""
        rows = self.in_order(table)
        self.drop(0)
        self.append(rows)

    def reserve_insertion(self, num_rows: int) -> None:
        """Makes room for the pages that splitting may add: at most one per head and row."""
        self.pool.reserve(len(self.slots) * num_rows)

    def apply(self, changes: PageChanges, new_rows: Tensor | None = None) -> None:
        """Moves rows as an index changed its pages; `new_rows [2, Hkv, m, D]` are numbered from `num_rows` on."""
        target, offset = np.nonzero(changes.rows >= 0)
        heads, numbers = changes.heads[target].astype(np.int64), changes.rows[target, offset].astype(np.int64)
        content = self._content(changes, heads, numbers, new_rows)
        self._widen(changes.num_pages)
        counts = (changes.rows >= 0).sum(axis=1, dtype=np.int32)
        emptied = (counts == 0) & (self.slots[changes.heads, changes.pages] >= 0)
        self.pool.release(self.slots[changes.heads[emptied], changes.pages[emptied]])
        self.slots[changes.heads[emptied], changes.pages[emptied]] = -1
        self.counts[changes.heads, changes.pages] = counts
        added = (counts > 0) & (self.slots[changes.heads, changes.pages] < 0)
        self._fill_slots(changes.heads[added], changes.pages[added])
        self._write(self.slots[heads, changes.pages[target]], offset, content)
        self.num_rows = int(self.counts[0].sum())
        self._note_changes(changes.heads, changes.pages)

    def drop(self, num_rows: int) -> None:
        """Forgets the rows from `num_rows` on; for layers without an index."""
        num_pages = (num_rows + self.page_size - 1) // self.page_size
        self.pool.release(self.slots[:, num_pages:][self.slots[:, num_pages:] >= 0])
        self.slots, self.counts = self.slots[:, :num_pages].copy(), self.counts[:, :num_pages].copy()
        if num_rows % self.page_size:
            self.counts[:, -1] = num_rows % self.page_size
        self.num_rows = num_rows
        if self.hot is not None:
            self.hot.clear()
        self._note_changes(*np.nonzero(self.counts > 0))

    def num_bytes(self) -> int:
        """Memory of the tables, without the pages themselves."""
        return self.slots.nbytes + self.counts.nbytes

    def _content(self, changes: PageChanges, heads: NDArray[np.int64], numbers: NDArray[np.int64], new_rows: Tensor | None) -> Tensor:
        """Keys and values `[k, 2, D]` of rows, from the pages that held them before or from among the new ones."""
        buffer = self.pool.buffer
        content = buffer.new_empty((len(heads), 2, buffer.shape[3]))
        is_new = numbers >= self.num_rows
        if is_new.any():
            assert new_rows is not None
            rows = new_rows.to(buffer.device)[:, self._tensor(heads[is_new]), self._tensor(numbers[is_new] - self.num_rows)]
            content[self._tensor(np.nonzero(is_new)[0])] = rows.transpose(0, 1)
        if not is_new.all():
            slots, offsets = self._places_before(changes, heads[~is_new], numbers[~is_new])
            content[self._tensor(np.nonzero(~is_new)[0])] = buffer[self._tensor(slots), :, self._tensor(offsets)]
        return content

    def _places_before(
        self, changes: PageChanges, heads: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Slot and offset of rows that lay in the changed pages."""
        page, offset = np.nonzero(changes.previous_rows >= 0)
        width = np.int64(1) << 32
        known = changes.heads[page] * width + changes.previous_rows[page, offset]
        order = np.argsort(known)
        found = order[np.searchsorted(known[order], heads * width + numbers)]
        return self.slots[changes.heads[page[found]], changes.pages[page[found]]], offset[found]

    def _widen(self, num_pages: int) -> None:
        missing = num_pages - self.slots.shape[1]
        if missing > 0:
            self.slots = np.pad(self.slots, ((0, 0), (0, missing)), constant_values=-1)
            self.counts = np.pad(self.counts, ((0, 0), (0, missing)))

    def _fill_slots(self, heads: NDArray[np.integer], pages: NDArray[np.integer]) -> None:
        self.slots[heads, pages] = self.pool.allocate(len(heads))

    def _write(self, slots: NDArray[np.int64], offsets: NDArray[np.integer], content: Tensor) -> None:
        buffer = self.pool.buffer
        buffer[self._tensor(slots), :, self._tensor(offsets)] = content.to(buffer.device)

    def _note_changes(self, heads: NDArray[np.integer], pages: NDArray[np.integer]) -> None:
        if self.hot is not None:
            self.hot.forget(heads, pages)
        if self.summaries is not None:
            self.summaries.update(self.pool.buffer, self.slots, self.counts, heads, pages)

    def _tensor(self, numbers: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(numbers, np.int64)).to(self.pool.buffer.device)
