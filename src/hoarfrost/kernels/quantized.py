"""Weights in blocks of few bits: matrices as GGUF files hold them, and as float weights become when they are quantised here.

A row of a matrix is cut into blocks along its inputs; a block has a scale (and, by type, an offset) and one small whole number per weight.
The layouts are those of ggml, which the `gguf` package documents and takes apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
