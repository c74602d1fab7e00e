"""Linear layers for a handful of rows on a CPU: oneDNN products over weights that are laid out for it once, at load.

Verifying a tree multiplies 10 to 60 rows with every weight matrix. The stock product rearranges the matrix at each call, which at so few
rows takes as long as multiplying; with the matrix rearranged beforehand the same pass takes about half the time (benchmarks/linear.py).
These are the operators that `torch.compile` uses for frozen weights. A packed layer is for inference only and keeps no plain weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

Product = Callable[[Tensor], Tensor]
"""Rows `[..., in]` -> `[..., out]`: multiplication by one weight matrix, its bias added."""
MakeProduct = Callable[[Tensor, Tensor | None], Product]
"""(weight, bias) -> the product with them."""


def can_pack(weight: Tensor) -> bool:
    """Whether the packed product exists for this weight: a CPU with oneDNN, float32, or bfloat16 where that is native."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32


class PackedLinear(nn.Module):
    """`x @ weight.T + bias` for `x [..., in]`; the plain twin is `torch.nn.functional.linear`."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 16)
        self._bias = None if bias is None else bias.detach()

    def forward(self, rows: Tensor) -> Tensor:
        if rows.numel() == self.in_features:  # one row misses the blocked kernels and takes twice as long as two
            row = rows.view(1, self.in_features)
            return self._multiply(torch.cat((row, row)))[:1].view(*rows.shape[:-1], self.out_features)
        return self._multiply(rows)

    def _multiply(self, rows: Tensor) -> Tensor:
        out: Tensor = torch.ops.mkldnn._linear_pointwise.default(rows, self._packed, self._bias, "none", [], "")
        return out


def plain_product(weight: Tensor, bias: Tensor | None = None) -> Product:
    """The stock product: differentiable, on any device."""
    return partial(functional.linear, weight=weight, bias=bias)


def fastest_product(weight: Tensor, bias: Tensor | None = None) -> Product:
    """The packed product where there is one, else the stock one; for inference."""
    return PackedLinear(weight, bias) if can_pack(weight) else plain_product(weight, bias)


def pack_linears(model: nn.Module) -> None:
    """Replaces every `nn.Linear` below `model` by its packed form, where there is one."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and can_pack(child.weight):
                setattr(parent, name, PackedLinear(child.weight, child.bias))
