"""The dense store: every key and value in one preallocated buffer, exact attention over all of them.

Buffer `[2, layers, Hkv, capacity, D]`, so that keeping the accepted rows of a tree is one gather and one copy for all layers, and touches
nothing but those rows. It grows by half of itself at least; nothing is re-concatenated per step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hoarfrost.cache.attention import PREFILL_ROWS, attend_all, attend_causal, attend_tail, attend_with_mask
from hoarfrost.cache.store import Visibility
from hoarfrost.kernels.decoder import Layout, append_rows, attend_dense, can_append, can_attend


class DenseStore:
    """Implements `Store` for one sequence; see there for the contract."""

    def __init__(
        self, num_layers: int, num_kv_heads: int, head_dim: int, *, dtype: torch.dtype, device: torch.device | str, capacity: int = 256
    ) -> None:
        self._buffer = torch.empty((2, num_layers, num_kv_heads, capacity, head_dim), dtype=dtype, device=device)
        self.layout = Layout(num_layers, num_kv_heads, head_dim, dtype, self._buffer.device.type)
        self._is_native = can_attend(self._buffer)
        self._length = 0
        self._num_appended = 0

    @property
    def length(self) -> int:
        return self._length

    @property
    def capacity(self) -> int:
        return self._buffer.shape[3]

    @property
    def buffer(self) -> Tensor:
        """`[2, layers, Hkv, capacity, D]`, for passes that write and read it themselves; replaced when the store grows."""
        return self._buffer

    @property
    def max_depth(self) -> None:
        return None

    def reserve(self, num_rows: int) -> None:
        if num_rows <= self.capacity:
            return
        shape = list(self._buffer.shape)
        shape[3] = max(num_rows, self.capacity + self.capacity // 2)
        grown = self._buffer.new_empty(shape)
        held = self._length + self._num_appended
        grown[:, :, :, :held] = self._buffer[:, :, :, :held]
        self._buffer = grown

    def attends_natively(self, num_rows: int) -> bool:
        """Whether attention of so many appended rows, without a window, is that of the native kernel."""
        return num_rows < PREFILL_ROWS and self._is_native

    def lend(self, num_rows: int) -> Tensor:
        """The buffer, with room for `num_rows` rows that the caller writes, for every layer, behind the committed ones; they count as
        appended."""
        self.reserve(self._length + num_rows)
        self._num_appended = num_rows
        return self._buffer

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        start, num_rows = self._length, keys.shape[1]
        end = start + num_rows
        self.reserve(end)
        self._num_appended = num_rows
        if can_append(self._buffer, keys) and can_append(self._buffer, values):
            append_rows(self._buffer, layer, start, keys, values)
            return
        self._buffer[0, layer, :, start:end] = keys
        self._buffer[1, layer, :, start:end] = values

    def attend(self, layer: int, queries: Tensor, visible: Visibility, *, scale: float, window: int | None = None) -> Tensor:
        num_rows = queries.shape[1]
        end = self._length + num_rows
        keys, values = self._buffer[0, layer, :, :end], self._buffer[1, layer, :, :end]
        if window is not None and end > window:
            first = max(0, self._length - window + 1)  # nothing before it is visible to any of the rows
            mask = self._full_mask(visible, num_rows, end - first, window)
            return attend_with_mask(queries, keys[:, first:], values[:, first:], mask, scale)
        if self.attends_natively(num_rows):
            return attend_dense(queries, keys, values, visible, scale)
        if num_rows == 1 or (isinstance(visible, str) and visible == "all"):
            return attend_all(queries, keys, values, scale)
        if isinstance(visible, str) and self._length == 0:
            return attend_causal(queries, keys, values, scale)
        if num_rows >= PREFILL_ROWS:
            return attend_with_mask(queries, keys, values, self._full_mask(visible, num_rows, end, None), scale)
        hidden = ~self._square(visible, num_rows)
        return attend_tail(queries, keys, values, hidden, scale)

    def start_decoding(self) -> None:
        pass

    def commit(self, rows: Sequence[int]) -> None:
        in_place = 0
        while in_place < len(rows) and rows[in_place] == in_place:
            in_place += 1
        start = self._length + in_place
        self._length += len(rows)
        self._num_appended = 0
        if in_place < len(rows):
            sources = torch.tensor(rows[in_place:], device=self._buffer.device) + (start - in_place)
            self._buffer[:, :, :, start : self._length] = self._buffer.index_select(3, sources)

    def truncate(self, length: int) -> None:
        if not 0 <= length <= self._length:
            raise ValueError(f"Cannot truncate {self._length} rows to {length}; give a length between 0 and {self._length}.")
        self._length, self._num_appended = length, 0

    def copy_rows(self, start: int, stop: int) -> Tensor:
        """A copy of committed rows `[2, layers, Hkv, stop - start, D]`."""
        return self._buffer[:, :, :, start:stop].clone()

    def restore(self, rows: Tensor) -> None:
        """Commits copied rows behind the committed ones."""
        start, self._num_appended = self._length, 0
        self.reserve(start + rows.shape[3])
        self._buffer[:, :, :, start : start + rows.shape[3]] = rows
        self._length = start + rows.shape[3]

    def bytes_by_tier(self) -> dict[str, int]:
        return {self._buffer.device.type: self._buffer.nbytes}

    def _square(self, visible: Visibility, num_rows: int) -> Tensor:
        if isinstance(visible, Tensor):
            return visible
        square = torch.ones((num_rows, num_rows), dtype=torch.bool, device=self._buffer.device)
        return square.tril() if visible == "causal" else square

    def _full_mask(self, visible: Visibility, num_rows: int, num_keys: int, window: int | None) -> Tensor:
        """The mask `[n, num_keys]` over the last `num_keys` rows, which end with the n appended ones."""
        mask = torch.ones((num_rows, num_keys), dtype=torch.bool, device=self._buffer.device)
        mask[:, num_keys - num_rows :] = self._square(visible, num_rows)
        if window is not None:
            distance = torch.arange(num_keys - num_rows, num_keys, device=mask.device)[:, None] - torch.arange(num_keys, device=mask.device)
            mask &= distance < window
        return mask
