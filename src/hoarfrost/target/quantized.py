"""Layers over matrices in blocks of few bits.

`QuantizedLinear` and `QuantizedEmbedding` are the plain twins: they take the blocks apart anew at every call, in float32, whatever the type
of the rows, and round the result once. They hold no parameters beside a bias, so moving or training a model leaves their matrix as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.kernels.linear import NativeEmbedding, NativeLinear, make_matrix
from hoarfrost.kernels.quantized import QuantizedWeight, can_quantize, quantize, to_float


class QuantizedLinear(nn.Module):
    """`x @ weight.T + bias` for `x [..., in]`, in the type of `x`."""

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight
        self.out_features, self.in_features = weight.shape
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(rows.float(), to_float(self.weight, torch.float32), bias).to(rows.dtype)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, kind={self.weight.kind}"


class QuantizedEmbedding(nn.Module):
    """Rows `[..., width]` of type `dtype` for token ids `[...]`."""

    def __init__(self, weight: QuantizedWeight, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight, self.dtype = weight, dtype
        self.num_embeddings, self.embedding_dim = weight.shape

    def forward(self, token_ids: Tensor) -> Tensor:
        picked = QuantizedWeight(self.weight.kind, self.weight.blocks[token_ids.flatten().numpy()], self.embedding_dim)
        return to_float(picked, self.dtype).view(*token_ids.shape, self.embedding_dim)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}, kind={self.weight.kind}"


def quantize_layers(model: nn.Module) -> None:
    """Puts every embedding and linear layer below `model` into 8-bit blocks, in place and one after the other, so that none is long held
    twice. A head that shares its matrix with the embedding goes on sharing it."""
    parents = [module for module in model.modules() if next(module.children(), None) is not None]
    shared: list[tuple[Tensor, QuantizedWeight]] = []
    for parent, name, embedding in _float_layers(parents, nn.Embedding):
        shared.append((embedding.weight, quantize(embedding.weight)))
        setattr(parent, name, QuantizedEmbedding(shared[-1][1], embedding.weight.dtype))
    for parent, name, linear in _float_layers(parents, nn.Linear):
        same = next((blocks for weight, blocks in shared if weight is linear.weight), None)
        setattr(parent, name, QuantizedLinear(same or quantize(linear.weight), linear.bias))


def pack_vocabulary(model: Any) -> None:
    """Lays a quantised embedding out for the CPU's kernels, once for embedding and head where they share it."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if type(embedding) is not QuantizedEmbedding:
        return
    matrix = make_matrix(embedding.weight)
    model.set_input_embeddings(NativeEmbedding(matrix, embedding.dtype))
    if type(head) is QuantizedLinear and head.weight is embedding.weight and head.bias is None:
        model.set_output_embeddings(NativeLinear(matrix))


def _float_layers(parents: list[nn.Module], kind: type[nn.Module]) -> Iterator[tuple[nn.Module, str, Any]]:
    for parent in parents:
        for name, child in list(parent.named_children()):
            if type(child) is kind and can_quantize(child.weight):  # type: ignore[arg-type]
                yield parent, name, child
