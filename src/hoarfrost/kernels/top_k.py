"""The k best log-probabilities of rows of logits on the CPU: top-k and log-normaliser in one pass, without a float32 copy of the logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.errors import InvalidInput

_READABLE = frozenset({torch.float32, torch.bfloat16})

LogitSource = tuple[int, int, int, int, bool]
"""Logits as the kernels take them: the address, the number of rows, the entries from row to row, those of a row, and whether they are
bfloat16. An array would be made and thrown away in every call, which costs as much as reading a row."""


def can_read(logits: Tensor) -> bool:
    """Whether the kernels take these logits: float32 or bfloat16, on the CPU, the entries of a row side by side."""
    return logits.is_cpu and logits.dtype in _READABLE and logits.ndim == 2 and logits.stride(1) == 1


def source_of(logits: Tensor) -> LogitSource:
    """Where the kernels find `logits` [n, V], which must outlive the call. Raises `InvalidInput` where they cannot read them."""
    if not can_read(logits):
        raise InvalidInput(
            f"The logits are {logits.dtype} {tuple(logits.shape)} with strides {logits.stride()} on {logits.device}; "
            "the kernel takes float32 or bfloat16 [n, V] on the CPU, with the entries of a row side by side."
        )
    num_rows, vocab_size = logits.shape
    return logits.data_ptr(), num_rows, logits.stride(0), vocab_size, logits.dtype is torch.bfloat16


def top_log_probs(logits: Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` largest entries of the log-softmax of each row, best first, the lower token id first among equal logits.

    The normaliser is summed in float64. A row that holds NaN or +inf comes back as NaN throughout.

    Args:
        logits: [n, V] as `can_read` wants them; rows may lie any distance apart.
        k: 1..V.

    Returns:
        log_probs float32 [n, k], token_ids int64 [n, k].
    """
    return _native.top_log_probs(source_with(logits, k), k, torch.get_num_threads())


def best_tokens(logits: Tensor) -> NDArray[np.int64]:
    """The likeliest token of each row of logits [n, V], the lowest id among equals: int64 [n]; -1 where a row holds NaN or +inf, or nothing
    but -inf."""
    return _native.best_tokens(source_of(logits), torch.get_num_threads())


def source_with(logits: Tensor, k: int) -> LogitSource:
    """`source_of` logits whose rows have `k` entries or more."""
    source = source_of(logits)
    if not 1 <= k <= logits.shape[1]:
        raise InvalidInput(f"k is {k}; it must lie in 1..{logits.shape[1]}, the size of the vocabulary.")
    return source
