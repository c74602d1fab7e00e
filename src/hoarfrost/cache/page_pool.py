"""Where pages are kept: a growing array of slots `[num_slots, 2, S, D]` (keys, then values) with a free list, in memory or in a file.

A page of one KV head of one layer is one contiguous record, so that reading it is one run of memory. Slots are handed out and taken back
in any order. Growing may fail for want of memory or disk; then the pool is as it was, and the error says what to do.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.errors import InvalidInput


class Memory(Protocol):
    """A kind of memory that can hold one growing tensor."""

    def grow(self, held: Tensor, num_rows: int) -> Tensor:
        """A tensor of `num_rows` rows that begins with those of `held`. Raises `InvalidInput` where there is no room."""
        ...


class DeviceMemory:
    """Memory of a device; `pinned` host memory is copied from faster by accelerators."""

    def __init__(self, device: torch.device, *, pinned: bool = False) -> None:
        self.device, self.pinned = device, pinned

    def grow(self, held: Tensor, num_rows: int) -> Tensor:
        try:
            grown = torch.empty((num_rows, *held.shape[1:]), dtype=held.dtype, device=self.device, pin_memory=self.pinned)
        except RuntimeError as error:
            wanted = num_rows * held[:1].nbytes if len(held) else num_rows
            raise InvalidInput(
                f"The cache could not grow by {wanted >> 20} MiB on {self.device} ({str(error).splitlines()[0]}); "
                "shorten the context, or keep the cold tier in a file (cold_tier=FOLDER)."
            ) from None
        grown[: len(held)] = held
        return grown


class FileMemory:
    """A memory-mapped file in `folder` that goes with this object, and with the process however it ends: it has no name where the system
    allows that. Its blocks are claimed before they are used: a full disk is an error."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        try:
            self._file = tempfile.TemporaryFile(prefix="hoarfrost-", suffix=".pages", dir=folder)  # noqa: SIM115
        except OSError as error:
            raise InvalidInput(f"The cold tier's folder {folder!r} takes no file: {error.strerror}; choose another.") from None

    def grow(self, held: Tensor, num_rows: int) -> Tensor:
        file, num_bytes = self._file.fileno(), num_rows * held.shape[1:].numel() * held.element_size()
        if not num_bytes:
            return held
        size_before = os.fstat(file).st_size
        try:
            _claim(file, size_before, num_bytes - size_before)
        except OSError as error:
            os.truncate(file, size_before)
            raise InvalidInput(
                f"The cold tier in {self.folder} could not grow to {num_bytes >> 20} MiB: {error.strerror}; "
                "free some space or choose another folder."
            ) from None
        return torch.frombuffer(mmap.mmap(file, num_bytes), dtype=held.dtype).view(num_rows, *held.shape[1:])


def _claim(file: int, start: int, num_bytes: int) -> None:
    """Gives the file blocks for `num_bytes` from `start` on."""
    if num_bytes <= 0:
        return
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, num_bytes)
        return
    zeros = bytes(1 << 20)
    os.lseek(file, start, os.SEEK_SET)
    while num_bytes > 0:
        num_bytes -= os.write(file, zeros[: min(num_bytes, len(zeros))])


class PagePool:
    """Slots for pages of `page_size` rows; `buffer` is replaced when the pool grows."""

    def __init__(self, page_size: int, head_dim: int, dtype: torch.dtype, memory: Memory) -> None:
        self._memory = memory
        self.buffer = memory.grow(torch.empty((0, 2, page_size, head_dim), dtype=dtype), 0)
        self._free: list[int] = []

    @property
    def num_used(self) -> int:
        return len(self.buffer) - len(self._free)

    def reserve(self, num_slots: int) -> None:
        """Makes sure that `num_slots` can be allocated without growing."""
        missing = num_slots - len(self._free)
        if missing > 0:
            capacity = len(self.buffer)
            grown = max(capacity + missing, capacity + capacity // 8)
            self.buffer = self._memory.grow(self.buffer, grown)
            self._free[:0] = range(grown - 1, capacity - 1, -1)

    def allocate(self, num_slots: int) -> NDArray[np.int64]:
        """Takes `num_slots` slots, lowest first where the pool is fresh. Growing may raise `InvalidInput`; then nothing is taken."""
        self.reserve(num_slots)
        taken = self._free[len(self._free) - num_slots :]
        del self._free[len(self._free) - num_slots :]
        return np.array(taken[::-1], np.int64)

    def release(self, slots: NDArray[np.int64]) -> None:
        """Gives slots back."""
        self._free.extend(slots[::-1].tolist())
