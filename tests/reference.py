"""Plain twins that more than one test file compares against."""

from __future__ import annotations

from torch import Tensor


def plain_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`softmax(q k^T scale) v` in float64 under a bool mask `[n, T]`, K and V repeated for every head. Returns `[n, H, D]`."""
    group = queries.shape[0] // keys.shape[0]
    keys, values = (x.double().repeat_interleave(group, 0) for x in (keys, values))
    scores = (queries.double() @ keys.transpose(1, 2) * scale).masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ values).transpose(0, 1)
