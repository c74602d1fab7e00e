"""Layers over matrices in blocks of few bits, and how float matrices become such.

`QuantizedLinear` and `QuantizedEmbedding` are the plain twins: they take the blocks apart anew at every call, in float32, whatever the type
of the rows, and round the result once. They hold no parameters beside a bias, so moving or training a model leaves their matrix as it is.
Blocks of 32 inputs with one scale each (Q8_0) are what `quantize` makes; a matrix whose number of inputs is no multiple of 32 stays float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize, quants
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.quantized import QuantizedWeight

NUM_BLOCK_INPUTS = 32
NUM_CHUNK_WEIGHTS = 1 << 18  # at a time on the way to another type: they fit a cache


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


def to_float(weight: QuantizedWeight, dtype: torch.dtype) -> Tensor:
    """The matrix `[out, in]` as a tensor; its blocks are taken apart a chunk of rows at a time."""
    unpack = _unpacking(weight.kind)
    num_rows, num_inputs = weight.shape
    out = torch.empty((num_rows, num_inputs), dtype=dtype)
    step = max(1, NUM_CHUNK_WEIGHTS // num_inputs)
    for start in range(0, num_rows, step):
        values = unpack(np.ascontiguousarray(weight.blocks[start : start + step]))
        out[start : start + step] = torch.from_numpy(np.require(values, requirements="W")).view(-1, num_inputs)
    return out


def _unpacking(kind: str) -> Callable[[NDArray[np.uint8]], NDArray[Any]]:
    """Takes rows of blocks apart, all at once: `gguf.dequantize` goes by 16 rows, which for narrow matrices takes twice as long."""
    blocks: Any = getattr(quants, kind, None)
    if blocks is None:
        return partial(dequantize, qtype=GGMLQuantizationType[kind])  # plain floats, float32 as a view of the file
    return lambda rows: blocks.dequantize_blocks(rows.reshape(-1, blocks.type_size))


def can_quantize(weight: Tensor) -> bool:
    """Whether the matrix falls into whole blocks."""
    return weight.ndim == 2 and weight.shape[1] % NUM_BLOCK_INPUTS == 0


def quantize(weight: Tensor, kind: str = "Q8_0") -> QuantizedWeight:
    """The float matrix `[out, in]` in blocks of `kind`. Raises `InvalidInput` where it does not fall into whole blocks."""
    if not can_quantize(weight):
        raise InvalidInput(
            f"A matrix of shape {tuple(weight.shape)} does not fall into blocks of {NUM_BLOCK_INPUTS} inputs; keep it in floating point."
        )
    step = max(1, NUM_CHUNK_WEIGHTS // weight.shape[1])
    parts = [quants.quantize(part.detach().float().cpu().numpy(), GGMLQuantizationType[kind]) for part in torch.split(weight, step)]
    return QuantizedWeight(kind, np.concatenate(parts), weight.shape[1])


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


def _float_layers(parents: list[nn.Module], kind: type[nn.Module]) -> Iterator[tuple[nn.Module, str, Any]]:
    for parent in parents:
        for name, child in list(parent.named_children()):
            if type(child) is kind and can_quantize(child.weight):  # type: ignore[arg-type]
                yield parent, name, child
