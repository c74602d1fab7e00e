"""Copies of cold pages on the compute device, for one layer: what a round wants and does not find is fetched in one gathered copy.

Per KV head there are as many slots as the largest round so far wanted. A page that is wanted again stays where it is; the others give way.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.kernels.page_attention import PageLists


class HotPages:
    """`buffer [Hkv * C, 2, S, D]` on the compute device; `_held [Hkv, C]` names the page in each slot, -1 for none."""

    def __init__(self, num_kv_heads: int, device: torch.device) -> None:
        self._device = device
        self._held = np.full((num_kv_heads, 0), -1, np.int64)
        self.buffer: Tensor | None = None
        self.num_fetched = 0

    def forget(self, heads: NDArray[np.integer], pages: NDArray[np.integer]) -> None:
        """These pages changed: their copies are no longer good."""
        changed = np.zeros((len(self._held), int(pages.max(initial=-1)) + 2), np.bool_)
        changed[heads, pages] = True
        known = np.where(self._held < changed.shape[1], self._held, -1)
        self._held[np.take_along_axis(changed, known, axis=1) & (known >= 0)] = -1

    def clear(self) -> None:
        """Every copy is no longer good."""
        self._held[:] = -1

    def fetch(self, pool: Tensor, pages: NDArray[np.int64], cold: PageLists) -> tuple[Tensor, PageLists]:
        """Brings `pages int64 [Hkv, L, P]` (-1: none), which lie in the slots of `cold`, here; returns the hot pool and its lists."""
        num_kv_heads = len(pages)
        wanted = pages.reshape(num_kv_heads, -1)
        once, cold_slots = _without_repeats(wanted, cold.slots.reshape(num_kv_heads, -1))
        self._make_room(once.shape[1], pool)
        assert self.buffer is not None
        found = (self._held[:, None] == once[:, :, None]) & (once >= 0)[:, :, None]
        missing = (once >= 0) & ~found.any(axis=2)
        # The j-th missing page of a head takes the j-th slot that nobody wants.
        idle = np.argsort(found.any(axis=1), axis=1, kind="stable")
        place = np.take_along_axis(idle, np.maximum(missing.cumsum(axis=1) - 1, 0), axis=1)
        heads = np.nonzero(missing)[0]
        self._held[heads, place[missing]] = once[missing]
        if len(heads):
            self._copy(pool, cold_slots[missing], heads * self._held.shape[1] + place[missing])
        slots = (self._held[:, None] == wanted[:, :, None]).argmax(axis=2) + np.arange(num_kv_heads)[:, None] * self._held.shape[1]
        return self.buffer, cold._replace(slots=slots.reshape(pages.shape))

    def num_bytes(self) -> int:
        return 0 if self.buffer is None else self.buffer.nbytes

    def _copy(self, pool: Tensor, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        assert self.buffer is not None
        gathered = pool[torch.from_numpy(sources).to(pool.device)]
        self.buffer[torch.from_numpy(targets).to(self._device)] = gathered.to(self._device, non_blocking=True)
        self.num_fetched += len(sources)

    def _make_room(self, num_pages: int, pool: Tensor) -> None:
        num_kv_heads, capacity = self._held.shape
        if num_pages <= capacity and self.buffer is not None:
            return
        grown = max(num_pages, capacity + capacity // 2, 1)
        buffer = torch.zeros((num_kv_heads, grown, *pool.shape[1:]), dtype=pool.dtype, device=self._device)
        if self.buffer is not None:
            buffer[:, :capacity] = self.buffer.view(num_kv_heads, capacity, *pool.shape[1:])
        self.buffer = buffer.flatten(0, 1)
        self._held = np.pad(self._held, ((0, 0), (0, grown - capacity)), constant_values=-1)


def _without_repeats(pages: NDArray[np.int64], slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each page of a head once, -1 in place of the others; and the slots in the same order. Both `[Hkv, most pages of a head]`."""
    order = np.argsort(pages, axis=1, kind="stable")
    once = np.take_along_axis(pages, order, axis=1)
    once[:, 1:][once[:, 1:] == once[:, :-1]] = -1
    return once, np.take_along_axis(slots, order, axis=1)
