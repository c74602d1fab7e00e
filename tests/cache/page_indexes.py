"""An index for tests of the store: it groups rows at random, and checks against its own copy of the keys that the store follows."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index import KeyPages, PageChanges, PageTable


class RandomIndex:
    """Random pages, split when they are full; `select` takes the pages of most softmax mass, by its own keys."""

    only_appends = False

    def __init__(self, page_size: int) -> None:
        self.page_size = page_size
        self._random = np.random.default_rng(0)
        self._pages: list[list[list[int]]] = []
        self._keys: Tensor | None = None

    @property
    def num_rows(self) -> int:
        return 0 if self._keys is None else self._keys.shape[1]

    def build(self, keys: Tensor, queries: Tensor | None = None) -> None:
        assert queries is None or queries.shape[0] == keys.shape[0]
        self._keys = keys.cpu().clone()
        self._pages = []
        for _ in range(len(keys)):
            order = self._random.permutation(keys.shape[1]).tolist()
            pages = []
            while order:
                fill = int(self._random.integers(max(1, self.page_size // 2), self.page_size + 1))
                pages.append(order[:fill])
                order = order[fill:]
            self._pages.append(pages)

    def pages(self) -> PageTable:
        num_pages = max(map(len, self._pages))
        rows = np.full((len(self._pages), num_pages, self.page_size), -1, np.int32)
        for head, pages in enumerate(self._pages):
            for page, members in enumerate(pages):
                rows[head, page, : len(members)] = members
        return PageTable(rows, (rows >= 0).sum(axis=2, dtype=np.int32))

    def select(
        self, queries: Tensor, num_pages: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        self.check(keys)
        assert not num_left_out
        assert self._keys is not None
        assert resident_log_mass is not None
        scores = queries.double().cpu() @ self._keys.double().transpose(1, 2)[:, None] * scale
        total = torch.logaddexp(scores.logsumexp(-1), resident_log_mass.double().cpu())
        mass = (scores - total[..., None]).exp().sum(2)
        chosen = np.full((*mass.shape[:2], num_pages), -1, np.int32)
        for head, one in np.ndindex(*mass.shape[:2]):
            sums = [(-float(mass[head, one, members].sum()), page) for page, members in enumerate(self._pages[head]) if members]
            best = [page for _, page in sorted(sums)[:num_pages]]
            chosen[head, one, : len(best)] = best
        return chosen

    def insert(self, new_keys: Tensor, keys: KeyPages) -> PageChanges:
        self.check(keys)
        assert self._keys is not None
        before = [[list(page) for page in pages] for pages in self._pages]
        for row in range(self.num_rows, self.num_rows + new_keys.shape[1]):
            for pages in self._pages:
                page = int(self._random.integers(len(pages)))
                pages[page].insert(int(self._random.integers(len(pages[page]) + 1)), row)
                if len(pages[page]) > self.page_size:
                    half = len(pages[page]) // 2
                    pages.append(pages[page][half:])
                    del pages[page][half:]
        self._keys = torch.cat([self._keys, new_keys.cpu()], dim=1)
        return self._changes(before)

    def truncate(self, num_rows: int) -> PageChanges:
        assert self._keys is not None
        before = [[list(page) for page in pages] for pages in self._pages]
        self._pages = [[[row for row in page if row < num_rows] for page in pages] for pages in self._pages]
        self._keys = self._keys[:, :num_rows]
        return self._changes(before)

    def num_bytes(self) -> int:
        return 0

    def check(self, keys: KeyPages) -> None:
        """The store's pages hold the keys of the rows that this index put there."""
        assert self._keys is not None
        for head, pages in enumerate(self._pages):
            for page, members in enumerate(pages):
                if members:
                    assert torch.equal(keys.pool[keys.slots[head, page], : len(members)].cpu(), self._keys[head, members])

    def _changes(self, before: list[list[list[int]]]) -> PageChanges:
        found = []
        for head, (pages, old) in enumerate(zip(self._pages, before, strict=True)):
            for page, members in enumerate(pages):
                previous = old[page] if page < len(old) else []
                if members != previous:
                    found.append((head, page, self._padded(members), self._padded(previous)))
        heads, changed, rows, previous_rows = (list(part) for part in zip(*found, strict=True))
        as_int = (np.array(part, np.int32) for part in (heads, changed, rows, previous_rows))
        return PageChanges(*as_int, num_pages=max(map(len, self._pages)))

    def _padded(self, members: list[int]) -> list[int]:
        return [*members, *[-1] * (self.page_size - len(members))]
