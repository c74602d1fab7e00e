"""A store in miniature for tests of the indexes: it keeps keys where the index wants them, and follows its changes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hoarfrost.cache.index import KeyPages, PageChanges, PageIndex, PageTable


class MiniStore:
    """Keys `[Hkv, N, D]` by page, every page of every head in a slot of its own; NaN where no key belongs."""

    def __init__(self, index: PageIndex, keys: Tensor, queries: Tensor | None = None) -> None:
        self.index, self.keys = index, keys
        index.build(keys, queries)
        self.check()

    def key_pages(self) -> KeyPages:
        """As laid out by `index.pages()`; slots are far apart and in no order, as in a real pool."""
        table = self.index.pages()
        num_heads, num_pages, page_size = table.rows.shape
        slots = torch.from_numpy(np.random.default_rng(0).permutation(num_heads * num_pages).reshape(num_heads, num_pages))
        pool = torch.full((num_heads * num_pages, 2, page_size, self.keys.shape[2]), torch.nan, dtype=self.keys.dtype)
        for head in range(num_heads):
            page, offset = np.nonzero(table.rows[head] >= 0)
            pool[slots[head, page], 0, offset] = self.keys[head, table.rows[head, page, offset].astype(np.int64)]
        return KeyPages(pool[:, 0], slots)

    def insert(self, new_keys: Tensor) -> None:
        before = copy_of(self.index.pages())
        changes = self.index.insert(new_keys, self.key_pages())
        self.keys = torch.cat((self.keys, new_keys), dim=1)
        self.check_changes(before, changes)

    def truncate(self, num_rows: int) -> None:
        before = copy_of(self.index.pages())
        changes = self.index.truncate(num_rows)
        self.keys = self.keys[:, :num_rows]
        self.check_changes(before, changes)

    def check(self) -> None:
        """Every row lies in exactly one page of every head; pages are filled from the front; counts are right."""
        table = self.index.pages()
        num_heads, num_rows, _ = self.keys.shape
        assert self.index.num_rows == num_rows
        assert table.rows.dtype == table.counts.dtype == np.int32
        assert table.rows.shape == (num_heads, table.counts.shape[1], self.index.page_size)
        held = table.rows >= 0
        np.testing.assert_array_equal(held, np.arange(self.index.page_size) < table.counts[:, :, None])
        for head in range(num_heads):
            np.testing.assert_array_equal(np.sort(table.rows[head][held[head]]), np.arange(num_rows))

    def check_changes(self, before: PageTable, changes: PageChanges) -> None:
        self.check()
        after = self.index.pages()
        assert changes.num_pages == after.rows.shape[1] >= before.rows.shape[1]
        rows = np.pad(before.rows, ((0, 0), (0, changes.num_pages - before.rows.shape[1]), (0, 0)), constant_values=-1)
        np.testing.assert_array_equal(changes.previous_rows, rows[changes.heads, changes.pages])
        rows[changes.heads, changes.pages] = changes.rows
        np.testing.assert_array_equal(rows, after.rows)
        order = changes.heads.astype(np.int64) * changes.num_pages + changes.pages
        assert (np.diff(order) > 0).all(), "ordered by head and page, none twice"


def copy_of(table: PageTable) -> PageTable:
    return PageTable(table.rows.copy(), table.counts.copy())


def clustered_keys(num_heads: int, num_rows: int, head_dim: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn((num_heads, 24, head_dim), generator=generator)
    chosen = torch.randint(24, (num_rows,), generator=generator)
    return centres[:, chosen] + 0.5 * torch.randn((num_heads, num_rows, head_dim), generator=generator)
