"""Rotary positions applied in three operations: the usual "rotate half", with the sign moved into the table of sines."""

from __future__ import annotations

from torch import Tensor, addcmul


def rotate(vectors: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotates `vectors [..., D]` by tables that broadcast to it; the first half of `signed_sin` is negated."""
    return addcmul(vectors * cos, vectors.roll(vectors.shape[-1] // 2, dims=-1), signed_sin)
