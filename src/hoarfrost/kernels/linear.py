"""Linear layers on a CPU: products over weights that are laid out for it once, at load.

Decoding multiplies 1 to 60 rows with every weight matrix. The stock product rearranges the matrix at each call, which at so few rows takes
as long as multiplying. Ours (native/decoder/matrix.hpp) reads the weights once, in their own width; it also gives a row the same bits
whatever rows stand beside it. float32 and bfloat16 weights are summed in float32, the latter with rows rounded to bfloat16 where the
processor multiplies such numbers; quantised ones are multiplied with rows of 8 bits, in whole numbers. Packed layers are for inference only
and keep no plain weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost import _native
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.quantized import QuantizedWeight

Product = Callable[[Tensor], Tensor]
"""Rows `[..., in]` -> `[..., out]`: multiplication by one weight matrix, its bias added."""
MakeProduct = Callable[[Tensor, Tensor | None], Product]
"""(weight, bias) -> the product with them."""
Matrix = _native.Matrix
Weight = Tensor | QuantizedWeight
Weights = Weight | Sequence[Weight]
"""A matrix `[out, in]`, or several of the same inputs, their outputs one behind the other."""


def can_multiply(weight: Weight) -> bool:
    """Whether our product exists for this weight: on a CPU, float32, bfloat16 or in blocks."""
    if isinstance(weight, QuantizedWeight):
        return True
    return weight.device.type == "cpu" and weight.numel() > 0 and weight.dtype in (torch.float32, torch.bfloat16)


def to_bits(tensor: Tensor) -> Tensor:
    """bfloat16 as uint16, which numpy has; anything else as it is. Contiguous, without gradient."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor


def stacked_weights(weights: Sequence[Weight]) -> Weights:
    """Matrices of the same inputs as one: in one piece where they are of one kind."""
    if len(weights) == 1:
        return weights[0]
    tensors = [weight for weight in weights if isinstance(weight, Tensor)]
    blocks = [weight for weight in weights if isinstance(weight, QuantizedWeight)]
    if len(tensors) == len(weights):
        return torch.cat(tensors)
    if len(blocks) == len(weights) and len({weight.kind for weight in blocks}) == 1:
        return QuantizedWeight(blocks[0].kind, np.concatenate([weight.blocks for weight in blocks]), blocks[0].num_inputs)
    return tuple(weights)


def make_matrix(weight: Weights, bias: Tensor | None = None, instruction_set: str | None = None) -> Matrix:
    """`weight`, float32, bfloat16 or quantised, on the CPU, laid out for products; copied. `bias [out]` is kept in float32."""
    if not isinstance(weight, (Tensor, QuantizedWeight)):
        sizes = [part.shape[0] for part in weight]
        biases = [None] * len(sizes) if bias is None else torch.split(bias, sizes)
        return _native.stack_matrices([make_matrix(*pair, instruction_set) for pair in zip(weight, biases, strict=True)])
    offsets = None if bias is None else to_bits(bias.float()).numpy()
    if isinstance(weight, QuantizedWeight):
        return _native.matrix_quantized(weight.kind, np.ascontiguousarray(weight.blocks), weight.num_inputs, offsets, instruction_set)
    make = _native.matrix_bfloat16 if weight.dtype == torch.bfloat16 else _native.matrix_float32
    return make(to_bits(weight).numpy(), offsets, instruction_set)


def multiply(matrix: Matrix, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """`rows [..., in]` times the matrix, in `dtype`: `[..., out]`."""
    rows = rows.contiguous()
    out = rows.new_empty((*rows.shape[:-1], matrix.num_outputs), dtype=dtype)
    num_rows, halves = rows.numel() // matrix.num_inputs, torch.bfloat16
    matrix.multiply(rows.data_ptr(), rows.dtype == halves, num_rows, out.data_ptr(), dtype == halves, torch.get_num_threads())
    return out


def read_rows(matrix: Matrix, outputs: Sequence[int]) -> Tensor:
    """The weights of some outputs, float32 `[n, in]`."""
    rows = torch.empty((len(outputs), matrix.num_inputs))
    matrix.read_rows(outputs, rows.data_ptr())
    return rows


class NativeLinear(nn.Module):
    """`x @ weight.T + bias` for `x [..., in]`, summed in float32 and rounded once, to the type of `x`; the plain twin is
    `torch.nn.functional.linear` over float32 copies.

    Over a quantised weight the result stays float32, whatever the rows are: a head's logits are as fine as its sums.
    `instruction_set` picks a variant other than the processor's best, for tests.
    """

    def __init__(self, weight: Weights | Matrix, bias: Tensor | None = None, instruction_set: str | None = None) -> None:
        super().__init__()
        self.matrix = weight if isinstance(weight, Matrix) else make_matrix(weight, bias, instruction_set)
        self.out_features, self.in_features = self.matrix.num_outputs, self.matrix.num_inputs
        self.dtypes: tuple[torch.dtype, ...] = (weight.dtype,) if isinstance(weight, Tensor) else (torch.float32, torch.bfloat16)
        self.is_quantized = not isinstance(weight, Tensor)

    def forward(self, rows: Tensor) -> Tensor:
        if rows.dtype not in self.dtypes or rows.shape[-1] != self.in_features or rows.device.type != "cpu":
            raise InvalidInput(
                f"The rows are {rows.dtype} {tuple(rows.shape)} on {rows.device}; "
                f"this layer takes {' or '.join(map(str, self.dtypes))} [..., {self.in_features}] on the CPU."
            )
        return multiply(self.matrix, rows, torch.float32 if self.is_quantized else rows.dtype)


class NativeEmbedding(nn.Module):
    """The rows of a matrix as embeddings of type `dtype`: `[...]` token ids -> `[..., width]`. A tied head multiplies with the same."""

    def __init__(self, matrix: Matrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix, self.dtype = matrix, dtype

    def forward(self, token_ids: Tensor) -> Tensor:
        rows = read_rows(self.matrix, token_ids.flatten().tolist())
        return rows.to(self.dtype).view(*token_ids.shape, self.matrix.num_inputs)


def plain_product(weight: Tensor, bias: Tensor | None = None) -> Product:
    """The stock product: differentiable, on any device."""
    return partial(functional.linear, weight=weight, bias=bias)


def fastest_product(weight: Weights, bias: Tensor | None = None) -> Product:
    """The fastest product with this weight; for inference."""
    if isinstance(weight, Tensor) and not can_multiply(weight):
        return plain_product(weight, bias)
    return NativeLinear(weight, bias)


def pack_linears(model: nn.Module, kinds: tuple[type[nn.Module], ...] = (nn.Linear,)) -> None:
    """Replaces every layer of these kinds below `model` by its packed form, where there is one."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in kinds and can_multiply(child.weight):  # type: ignore[arg-type]
                setattr(parent, name, NativeLinear(child.weight, child.bias))  # type: ignore[arg-type]
