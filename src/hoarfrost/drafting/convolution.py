"""The grouped dynamic causal convolutions of DFlash 2: a cheap sense of order within a block, whose slots attend without any.

Around each sublayer (attention, MLP) stand two: one on the normed rows that it reads, one on the rows that it gives. Slot t becomes

    y_t = sum over taps i of (base[i] + delta_t[i]) * x_{t - i},          x before the block's first slot being 0,

where `base` has a value for every channel and `delta_t`, one linear map of the normed row t, has one for every group of channels. Both
convolutions take their kernels from the *normed* row. Context rows pass through none. (z-lab's blog "Keep Drafting Parallel", Aug 2026.)

Shapes: H hidden size, N block rows (whole blocks side by side), `...` optional batch dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.kernels.linear import MakeProduct, Product


@dataclass(frozen=True)
class ConvolutionWeights:
    """`base [2, taps, H]` of the two convolutions around a sublayer, and the product that gives `[..., 2 * taps * groups]`."""

    base: Tensor
    dynamic: Product


class Convolution(nn.Module):
    """Holds the parameters of both convolutions around one sublayer under their released names. New ones change nothing."""

    def __init__(self, hidden_size: int, kernel_size: int, group_size: int) -> None:
        super().__init__()
        self.base_kernel = nn.Parameter(torch.empty(2, kernel_size, hidden_size))
        self.kernel_projection = nn.Linear(hidden_size, 2 * kernel_size * (hidden_size // group_size), bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.kernel_projection.weight)
        nn.init.zeros_(self.base_kernel)
        nn.init.ones_(self.base_kernel[:, 0])

    def weights(self, product: MakeProduct) -> ConvolutionWeights:
        return ConvolutionWeights(self.base_kernel, product(self.kernel_projection.weight, None))


def convolve_around(weights: ConvolutionWeights | None, normed: Tensor, block_size: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """What a sublayer is to read instead of `normed [..., N, H]`, and what is to be done to the rows it gives; None: nothing changes."""
    if weights is None:
        return normed, _unchanged
    num_taps = weights.base.shape[1]
    dynamic = weights.dynamic(normed)
    dynamic = dynamic.view(*dynamic.shape[:-1], 2, num_taps, -1)
    bases = weights.base.view(2, num_taps, dynamic.shape[-1], -1)
    before, after = (partial(_convolve, base=bases[i], dynamic=dynamic[..., i, :, :], block_size=block_size) for i in range(2))
    return before(normed), after


def _unchanged(rows: Tensor) -> Tensor:
    return rows


def _convolve(rows: Tensor, base: Tensor, dynamic: Tensor, block_size: int) -> Tensor:
    """`rows [..., N, H]` under kernels `base [taps, groups, H / groups] + dynamic [..., N, taps, groups]`."""
    blocks = rows.view(*rows.shape[:-2], -1, block_size, rows.shape[-1])
    convolved = torch.zeros_like(rows)
    for tap in range(len(base)):
        shifted = functional.pad(blocks[..., : block_size - tap, :], (0, 0, tap, 0)).flatten(-3, -2)
        kernels = base[tap] + dynamic[..., tap, :].unsqueeze(-1)
        convolved = convolved + kernels.flatten(-2) * shifted
    return convolved
