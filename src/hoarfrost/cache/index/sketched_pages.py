"""The sketches of one layer's keys, by page: `blocks [Hkv, capacity, U, D'/8, 16]` and `factors [Hkv, capacity, U, 16]`."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index.checks import not_finite
from hoarfrost.cache.index.protocol import KeyPages, PageChanges
from hoarfrost.cache.index.scoring import search
from hoarfrost.cache.index.sketch import num_units
from hoarfrost.kernels import index as kernels
from hoarfrost.kernels.index import UNIT_ROWS, Masses, Sketches

_SAMPLE_ROWS = 256
_INFINITE_FACTOR = 0x7F80  # the bits of infinity, below those of NaN
_SPREAD = 4  # standard deviations that the 8 bits of a coordinate reach


class SketchedPages:
    """`centre` float32 `[Hkv, D]` is what keys are taken less of, `flips` float32 `[D']` are the signs of the rotation."""

    def __init__(self, keys: Tensor, flips: NDArray[np.float32], page_size: int) -> None:
        """Settles the centre on an even sample of `keys [Hkv, N, D]`; holds no sketches yet."""
        sample = keys[:, :: max(1, keys.shape[1] // _SAMPLE_ROWS)].detach().to("cpu", torch.float32)
        self.flips, self.page_size = flips, page_size
        self.centre = (sample.mean(dim=1) if sample.shape[1] else sample.new_zeros(len(sample), sample.shape[2])).numpy()
        # the transform makes every entry as large on average as the whole vector was long
        deviations = sample - torch.from_numpy(self.centre)[:, None]
        lengths = deviations.square().sum(dim=2).mean(dim=1).nan_to_num()
        self._coordinate_scale = (127 / _SPREAD / lengths.sqrt().clamp_min(1e-30)).clamp_max(1e30).numpy()
        self._blocks = np.zeros((len(sample), 0, num_units(page_size), flips.size // 8, UNIT_ROWS), np.uint8)
        self._factors = np.zeros((*self._blocks.shape[:3], UNIT_ROWS), np.uint16)

    @property
    def shape(self) -> tuple[int, int]:
        """KV heads and dimensions."""
        return self.centre.shape[0], self.centre.shape[1]

    def num_bytes(self) -> int:
        return self._blocks.nbytes + self._factors.nbytes + self.centre.nbytes + self.flips.nbytes

    def sketch(self, keys: Tensor) -> Sketches:
        """Raises `InvalidInput` if the keys hold NaN or infinity: the mean size of such a key's entries is not finite either."""
        sketches = kernels.sketch_keys(keys, self.centre, self.flips, self._coordinate_scale)
        if (sketches.factors >= _INFINITE_FACTOR).any():
            raise not_finite()
        return sketches

    def lay_out(self, sketches: Sketches, rows: NDArray[np.int32]) -> None:
        """Takes the sketches of all rows, of which `rows int32 [Hkv, P, S]` says where they lie."""
        self._blocks, self._factors = kernels.lay_out(sketches, rows)

    def search(
        self,
        queries: Tensor,
        scale: float,
        keys: KeyPages,
        counts: NDArray[np.int32],
        resident: Masses | None,
        num_candidates: int,
        num_wanted: int,
        single_rows: bool,
    ) -> NDArray[np.int32]:
        """The best pages or rows int32 `[Hkv, L, num_wanted]` for `queries [Hkv, L, R, D]`; see `scoring.search`."""
        sketches = (self._blocks, self._factors)
        if kernels.can_score(keys.pool):
            return kernels.search_pages(
                *sketches, self.flips, counts, keys.pool, keys.slots, queries, scale, resident, num_candidates, num_wanted, single_rows
            )
        estimates = kernels.estimate_log_masses(*sketches, counts, queries.flatten(1, 2), self.flips, scale)
        return search(
            estimates.reshape(*queries.shape[:3], -1), queries, scale, keys, counts, resident, num_candidates, num_wanted, single_rows
        )

    def update(self, changes: PageChanges, first_new: int, new: Sketches | None) -> None:
        """Follows changes in which rows stay in their page; those of `new` are numbered from `first_new` on."""
        if changes.pages.size == 0:
            return
        self._reserve(changes.num_pages)
        places = (changes.heads, changes.pages)
        page, offset = np.nonzero(changes.rows >= 0)
        numbers = changes.rows[page, offset]
        codes = np.zeros((len(changes.heads), self._blocks.shape[2] * UNIT_ROWS, self._blocks.shape[3]), np.uint8)
        factors = np.zeros(codes.shape[:2], np.uint16)
        kept = numbers < first_new
        if kept.any():
            before = (changes.previous_rows[page[kept]] == numbers[kept, None]).argmax(axis=1)
            held = self._blocks[places].swapaxes(2, 3).reshape(codes.shape)
            codes[page[kept], offset[kept]] = held[page[kept], before]
            factors[page[kept], offset[kept]] = self._factors[places].reshape(factors.shape)[page[kept], before]
        if new is not None:
            heads, rows = changes.heads[page[~kept]], numbers[~kept] - first_new
            codes[page[~kept], offset[~kept]] = new.codes[heads, rows]
            factors[page[~kept], offset[~kept]] = new.factors[heads, rows]
        self._blocks[places] = codes.reshape(len(codes), -1, UNIT_ROWS, codes.shape[2]).swapaxes(2, 3)
        self._factors[places] = factors.reshape(len(codes), -1, UNIT_ROWS)

    def _reserve(self, num_pages: int) -> None:
        capacity = self._blocks.shape[1]
        if num_pages <= capacity:
            return
        grown = max(num_pages, capacity + capacity // 2)
        for name in ("_blocks", "_factors"):
            held = getattr(self, name)
            wider = np.zeros((held.shape[0], grown, *held.shape[2:]), held.dtype)
            wider[:, :capacity] = held
            setattr(self, name, wider)
