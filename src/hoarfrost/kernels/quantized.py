"""Weights in blocks of few bits: matrices as GGUF files hold them, and as float weights become when they are quantised here.

A row of a matrix is cut into blocks along its inputs; a block has a scale (and, by type, an offset) and one small whole number per weight.
The layouts are those of ggml, which the `gguf` package documents and takes apart. Blocks of 32 inputs with one scale each (Q8_0) are what
`quantize` makes; a matrix whose number of inputs is no multiple of 32 stays float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from gguf import GGMLQuantizationType, dequantize, quants
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.errors import InvalidInput

NUM_BLOCK_INPUTS = 32
NUM_CHUNK_WEIGHTS = 1 << 18  # at a time on the way to another type: they fit a cache


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A matrix `[out, in]` of the ggml type `kind` ("Q4_0", "Q6_K", ...).

    `blocks`, uint8 `[out, bytes per row]`, holds each row's blocks one behind the other, as a file does, and may be mapped from one. Rows
    may be picked and reordered like those of any array; blocks run along the inputs and know nothing of other rows.
    """

    kind: str
    blocks: NDArray[np.uint8]
    num_inputs: int

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.blocks), self.num_inputs


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


def in_blocks(weight: Tensor) -> Tensor | QuantizedWeight:
    """The float matrix in 8-bit blocks, or as it is where it does not fall into whole ones."""
    return quantize(weight) if can_quantize(weight) else weight


def quantize(weight: Tensor, kind: str = "Q8_0") -> QuantizedWeight:
    """The float matrix `[out, in]` in blocks of `kind`. Raises `InvalidInput` where it does not fall into whole blocks."""
    if not can_quantize(weight):
        raise InvalidInput(
            f"A matrix of shape {tuple(weight.shape)} does not fall into blocks of {NUM_BLOCK_INPUTS} inputs; keep it in floating point."
        )
    step = max(1, NUM_CHUNK_WEIGHTS // weight.shape[1])
    parts = [quants.quantize(part.detach().float().cpu().numpy(), GGMLQuantizationType[kind]) for part in torch.split(weight, step)]
    return QuantizedWeight(kind, np.concatenate(parts), weight.shape[1])
