"""Attention over pages that stay where they are, on the CPU: what a query sees is read in place and merged by log-sum-exp.

Threads share the KV heads. Arithmetic is float32 whatever is stored. The result does not depend on the number of threads; it does in the
last bits on the instruction set, since products and sums are fused where the processor can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.errors import InvalidInput


class PageLists(NamedTuple):
    """The pages that queries see: slots int64 and counts int32, both `[Hkv, L, P]`; L is 1 (all rows see the same) or the number of rows.

    A slot is an index into a pool `[slots, 2, S, D]` (keys, then values). A page's rows fill it from the front; a count of 0 is no page.
    With `places int32 [Hkv, L, P]` an entry is not a page but the row in that place of it, and its count is 1, or 0 for none.
    """

    slots: NDArray[np.int64]
    counts: NDArray[np.int32]
    places: NDArray[np.int32] | None = None


class HiddenRows(NamedTuple):
    """Local rows that some queries do not see: of row i the `counts[i]` rows from `first` on; counts int32 `[n]`. None of the last n is."""

    first: int
    counts: NDArray[np.int32]


class Summaries(NamedTuple):
    """Pages as their means: mean_keys, mean_values float32 `[Hkv, M, D]`; log_counts float32 `[Hkv, L, M]`, -inf for what is left out.

    A page adds `count * exp(q . mean_key * scale)` to the softmax's denominator and so much of its mean value to the result.
    """

    mean_keys: Tensor
    mean_values: Tensor
    log_counts: Tensor


def can_attend(queries: Tensor, keys: Tensor, pool: Tensor) -> bool:
    """Whether `attend_pages` takes these: all float32 or all bfloat16, on the CPU, the rows of a head one after the other."""
    dtype = queries.dtype
    return (
        dtype in (torch.float32, torch.bfloat16)
        and all(tensor.device.type == "cpu" and tensor.dtype == dtype for tensor in (queries, keys, pool))
        and queries.stride(2) == keys.stride(2) == 1
        and keys.stride(1) == keys.shape[2]
        and pool.is_contiguous()
    )


def attend_pages(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    pool: Tensor,
    pages: PageLists,
    *,
    visible: Tensor | None,
    scale: float,
    hidden: HiddenRows | None = None,
    summaries: Summaries | None = None,
) -> Tensor:
    """`softmax(q k^T scale) v` over local rows, pages and summaries; see `can_attend` for what it takes.

    Args:
        queries: `[H, n, D]`.
        keys, values: the local rows `[Hkv, T, D]`; the last n of them belong to the queries, the others are seen by all but for `hidden`.
        pool: `[slots, 2, S, D]`.
        visible: bool `[n, n]` among the last n local rows; None: causal.

    Returns:
        `[n, H, D]` in the dtype of the queries.
    """
    if not can_attend(queries, keys, pool):
        raise InvalidInput(
            f"The kernel takes contiguous rows of float32 or bfloat16 on the CPU, not {queries.dtype} on {queries.device} with strides "
            f"{queries.stride()} and {keys.stride()}."
        )
    num_heads, num_rows, head_dim = queries.shape
    out = torch.empty((num_rows, num_heads, head_dim), dtype=queries.dtype)
    kernel: Callable[..., None] = _native.attend_pages if queries.dtype == torch.float32 else _native.attend_pages_bfloat16
    try:
        kernel(
            *(_array(tensor) for tensor in (queries, keys, values, pool)),
            *pages,
            None if visible is None else visible.numpy(),
            *((0, None) if hidden is None else hidden),
            *((None, None, None) if summaries is None else (tensor.numpy() for tensor in summaries)),
            scale,
            _array(out),
            torch.get_num_threads(),
        )
    except ValueError as error:
        raise InvalidInput(str(error)) from None
    return out


def _array(tensor: Tensor) -> NDArray[Any]:
    """The tensor's memory as numpy sees it; bfloat16, which numpy lacks, as its bits."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
