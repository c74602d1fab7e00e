"""Whether a head's keys should stay in order of position: a test with the prompt's last queries."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHECK_QUERIES = 16
CHECK_PAGES = 12


def prefers_order(keys: Tensor, queries: Tensor | None, rows: NDArray[np.int32], scale: float) -> NDArray[np.bool_]:
    """For every head, whether the best pages of consecutive rows capture at least the softmax mass that those of `rows` do.

    Args:
        keys: `[Hkv, N, D]`, N a multiple of S.
        queries: `[Hkv, R, D]`, or None: then similar keys stay together.
        rows: int32 `[Hkv, N / S, S]`.
    """
    if queries is None or queries.shape[1] == 0 or rows.shape[1] == 0:
        return np.zeros(len(rows), np.bool_)
    picked = queries[:, :: max(1, queries.shape[1] // CHECK_QUERIES)].float() * scale
    verdicts = []
    for head in range(len(rows)):
        shares = torch.softmax(picked[head] @ keys[head].float().T, dim=-1)
        places = torch.from_numpy(rows[head].astype(np.int64)).to(shares.device)
        in_order, grouped = shares.view(-1, *places.shape).sum(dim=-1), shares[:, places].sum(dim=-1)
        num_pages = min(CHECK_PAGES, len(places))
        verdicts.append(bool(in_order.topk(num_pages).values.sum() >= grouped.topk(num_pages).values.sum()))
    return np.array(verdicts)
