"""Whether a checkpoint's embedding or head is that of the target it drafts for.

The target's may have been laid out anew for its products when it was loaded, or hold its weights in blocks of few bits; then the matrix is
no longer there to compare with, and what it does is: the rows that it gives for some tokens, or the logits for some random states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hoarfrost.kernels.linear import NativeLinear

NUM_PROBES = 16
ROWS_AT_A_TIME = 16384
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 1e-2}
"""Relative error that rounding the results to their type, and sums in another order, may make."""
TOLERANCE_IN_BLOCKS = 0.15
"""Relative error of weights in blocks of few bits: about 0.1 for 4 bits; unrelated matrices are 1.4 apart."""


@torch.inference_mode()
def is_embedding(module: nn.Module, own: Tensor) -> bool:
    """Whether `own [V, H]`, of any floating type, holds the rows of an embedding."""
    weight = plain_weight(module)
    if weight is not None:
        return is_equal(weight, own)
    token_ids = torch.randint(len(own), (NUM_PROBES,), generator=torch.Generator().manual_seed(0)).to(own.device)
    return is_near(module(token_ids), own[token_ids], TOLERANCE_IN_BLOCKS)


@torch.inference_mode()
def is_head(module: nn.Module, own: Tensor, dtype: torch.dtype) -> bool:
    """Whether `own [V, H]`, of any floating type, holds the weights of a head that takes states of `dtype`."""
    weight = plain_weight(module)
    if weight is not None:
        return is_equal(weight, own)
    states = torch.randn(NUM_PROBES, own.shape[1], generator=torch.Generator().manual_seed(0)).to(own.device, dtype)
    logits = torch.cat([states.float() @ part.to(dtype).float().T for part in torch.split(own, ROWS_AT_A_TIME)], -1)
    is_rounded_only = isinstance(module, NativeLinear) and not module.is_quantized
    return is_near(module(states), logits, TOLERANCE[dtype] if is_rounded_only else TOLERANCE_IN_BLOCKS)


def plain_weight(module: nn.Module) -> Tensor | None:
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.is_floating_point() else None


def is_equal(weight: Tensor, own: Tensor) -> bool:
    return weight.shape == own.shape and torch.equal(own.to(weight.dtype), weight)


def is_near(found: Tensor, wanted: Tensor, tolerance: float) -> bool:
    """Whether two results lie within a relative error of each other, over all their numbers."""
    return found.shape == wanted.shape and float((found.float() - wanted.float()).norm()) <= tolerance * float(wanted.float().norm())
