"""Rotary positions: tables of cosines and sines, and their use in three operations, the usual "rotate half" with the sign moved into the
table of sines."""

from __future__ import annotations

import torch
from torch import Tensor, addcmul

LEAST_POSITIONS = 1024


def cos_sin(positions: Tensor, frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, float32 `[..., D / 2]`, of the angles of int64 `positions [...]`; `scale` multiplies both (YaRN)."""
    angles = positions.unsqueeze(-1) * frequencies
    return angles.cos() * scale, angles.sin() * scale


class RotaryTable:
    """Cosines and sines of all positions up to the last one asked for: to look a position up takes a fraction of computing it."""

    def __init__(self, frequencies: Tensor, scale: float) -> None:
        self._frequencies, self._scale = frequencies.float(), scale
        self.cos = self.sin = self._frequencies.new_empty((0, len(frequencies)))

    def reserve(self, num_positions: int) -> None:
        """Afterwards `cos` and `sin`, float32 `[P, D / 2]`, cover that many positions."""
        if num_positions > len(self.cos):
            positions = torch.arange(max(num_positions, 2 * len(self.cos), LEAST_POSITIONS), device=self._frequencies.device)
            self.cos, self.sin = cos_sin(positions, self._frequencies, self._scale)


def rotate(vectors: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotates `vectors [..., D]` by tables that broadcast to it; the first half of `signed_sin` is negated."""
    return addcmul(vectors * cos, vectors.roll(vectors.shape[-1] // 2, dims=-1), signed_sin)
