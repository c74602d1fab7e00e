"""The rows that are always attended to, on the compute device: a dense store from whose middle rows can be taken away."""

from __future__ import annotations

from torch import Tensor

from hoarfrost.cache.dense import DenseStore

SPARE_ROWS = 1024  # a buffer with more idle rows than this is given back: a long prompt passed through it


class LocalRows(DenseStore):
    """Sinks, window and the rows of the current round, in this order; `length` counts those that are committed."""

    def rows(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values `[Hkv, T, D]` of a layer, uncommitted rows included."""
        end = self._length + self._num_appended
        return self._buffer[0, layer, :, :end], self._buffer[1, layer, :, :end]

    def take(self, start: int, num_rows: int) -> Tensor:
        """A view of committed rows, all layers: `[2, layers, Hkv, num_rows, D]`."""
        return self._buffer[:, :, :, start : start + num_rows]

    def remove(self, start: int, num_rows: int) -> None:
        """Closes the gap that `num_rows` committed rows leave; nothing may be uncommitted."""
        self._length -= num_rows
        moved = self._buffer[:, :, :, start + num_rows : self._length + num_rows].clone()
        self._buffer[:, :, :, start : self._length] = moved
        if self.capacity - self._length > SPARE_ROWS:
            self.trim()

    def trim(self, spare: int = 64) -> None:
        """Gives back what is not needed for the committed rows and `spare` more; nothing may be uncommitted."""
        self._buffer = self._buffer[:, :, :, : self._length + spare].clone()
