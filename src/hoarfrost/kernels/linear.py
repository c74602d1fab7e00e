"""Linear layers for a handful of rows on a CPU: products over weights that are laid out for it once, at load.

Decoding multiplies 1 to 60 rows with every weight matrix. The stock product rearranges the matrix at each call, which at so few rows takes
as long as multiplying, and without bfloat16 instructions it is slower still by ten times. Ours (native/decoder/matrix.hpp) reads the
weights once, in their own width, and sums in float32; it also gives a row the same bits whatever rows stand beside it.

Where the processor multiplies bfloat16 itself, oneDNN's packed product does better on many rows and is used for that type. Packed layers
are for inference only and keep no plain weight.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost import _native
from hoarfrost.errors import InvalidInput

Product = Callable[[Tensor], Tensor]
"""Rows `[..., in]` -> `[..., out]`: multiplication by one weight matrix, its bias added."""
MakeProduct = Callable[[Tensor, Tensor | None], Product]
"""(weight, bias) -> the product with them."""
Matrix = _native.MatrixFloat32 | _native.MatrixBFloat16


def has_bfloat16_instructions() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def can_multiply(weight: Tensor) -> bool:
    """Whether our product exists for this weight and is the fastest: on a CPU, float32, or bfloat16 without instructions for it."""
    if weight.device.type != "cpu" or weight.numel() == 0:
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and not has_bfloat16_instructions())


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN's packed product is the fastest for this weight: bfloat16 on a CPU that has instructions for it."""
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not has_bfloat16_instructions():
        return False
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def to_bits(tensor: Tensor) -> Tensor:
    """bfloat16 as uint16, which numpy has; anything else as it is. Contiguous, without gradient."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor


def make_matrix(weight: Tensor, bias: Tensor | None = None, instruction_set: str | None = None) -> Matrix:
    """`weight [out, in]`, float32 or bfloat16 on the CPU, laid out for products; copied. `bias [out]` is kept in float32."""
    kind = _native.MatrixBFloat16 if weight.dtype == torch.bfloat16 else _native.MatrixFloat32
    return kind(to_bits(weight).numpy(), None if bias is None else to_bits(bias.float()).numpy(), instruction_set)


class NativeLinear(nn.Module):
    """`x @ weight.T + bias` for `x [..., in]` of the weight's type, summed in float32 and rounded once; the plain twin is
    `torch.nn.functional.linear` over float32 copies. `instruction_set` picks a variant other than the processor's best, for tests."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, instruction_set: str | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype
        self._matrix = make_matrix(weight, bias, instruction_set)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.dtype != self.dtype or rows.shape[-1] != self.in_features or rows.device.type != "cpu":
            raise InvalidInput(
                f"The rows are {rows.dtype} {tuple(rows.shape)} on {rows.device}; "
                f"this layer takes {self.dtype} [..., {self.in_features}] on the CPU."
            )
        rows = rows.contiguous()
        out = rows.new_empty((*rows.shape[:-1], self.out_features))
        self._matrix.multiply(rows.data_ptr(), rows.numel() // self.in_features, out.data_ptr(), torch.get_num_threads())
        return out


class PackedLinear(nn.Module):
    """`x @ weight.T + bias` for `x [..., in]` by oneDNN; the operators are those that `torch.compile` uses for frozen weights."""

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


def packed_linear(weight: Tensor, bias: Tensor | None = None) -> NativeLinear | PackedLinear | None:
    """The fastest layer for this weight, or None where that is the stock one."""
    if can_multiply(weight):
        return NativeLinear(weight, bias)
    return PackedLinear(weight, bias) if can_pack(weight) else None


def fastest_product(weight: Tensor, bias: Tensor | None = None) -> Product:
    """The fastest product with this weight; for inference."""
    return packed_linear(weight, bias) or plain_product(weight, bias)


def pack_linears(model: nn.Module) -> None:
    """Replaces every `nn.Linear` below `model` by its packed form, where there is one."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            packed = packed_linear(child.weight, child.bias) if type(child) is nn.Linear else None
            if packed is not None:
                setattr(parent, name, packed)
