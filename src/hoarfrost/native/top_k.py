"""The k best log-probabilities of rows of logits on the CPU: top-k and log-normaliser in one pass, without a float32 copy of the logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.errors import InvalidInput


def can_read(logits: Tensor) -> bool:
    """Whether `top_log_probs` takes these logits: float32 or bfloat16, on the CPU, the entries of a row side by side."""
    return logits.device.type == "cpu" and logits.dtype in (torch.float32, torch.bfloat16) and logits.ndim == 2 and logits.stride(1) == 1


def top_log_probs(logits: Tensor, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The `k` largest entries of the log-softmax of each row, best first, the lower token id first among equal logits.

    The normaliser is summed in float64. A row that holds NaN or +inf comes back as NaN throughout.

    Args:
        logits: [n, V] as `can_read` wants them; rows may lie any distance apart.
        k: 1..V.

    Returns:
        log_probs float32 [n, k], token_ids int64 [n, k].
    """
    check_rows(logits, k)
    if logits.dtype == torch.bfloat16:
        return _native.top_log_probs_bfloat16(logits.detach().view(torch.uint16).numpy(), k, torch.get_num_threads())
    return _native.top_log_probs(logits.detach().numpy(), k, torch.get_num_threads())


def best_tokens(logits: Tensor) -> NDArray[np.int64]:
    """The likeliest token of each row of logits [n, V], the lowest id among equals: int64 [n]; -1 where a row holds NaN or +inf, or nothing
    but -inf."""
    check_readable(logits)
    if logits.dtype == torch.bfloat16:
        return _native.best_tokens_bfloat16(logits.detach().view(torch.uint16).numpy(), torch.get_num_threads())
    return _native.best_tokens(logits.detach().numpy(), torch.get_num_threads())


def check_readable(logits: Tensor) -> None:
    """Raises `InvalidInput` where a kernel cannot read the rows."""
    if not can_read(logits):
        raise InvalidInput(
            f"The logits are {logits.dtype} {tuple(logits.shape)} with strides {logits.stride()} on {logits.device}; "
            "the kernel takes float32 or bfloat16 [n, V] on the CPU, with the entries of a row side by side."
        )


def check_rows(logits: Tensor, k: int) -> None:
    """Raises `InvalidInput` where a kernel cannot read the `k` best of each row."""
    check_readable(logits)
    if not 1 <= k <= logits.shape[1]:
        raise InvalidInput(f"k is {k}; it must lie in 1..{logits.shape[1]}, the size of the vocabulary.")
