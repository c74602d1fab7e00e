"""The plain twins of the kernels in `hoarfrost.native.index`: the same signatures, all heads in a loop."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index import grouping, sketch
from hoarfrost.cache.index.scoring import Masses, page_log_masses, rank_pages
from hoarfrost.cache.index.sketch import Sketches

__all__ = ["estimate_log_masses", "group_similar", "lay_out", "page_log_masses", "rank_pages", "sketch_keys"]


def sketch_keys(keys: Tensor, centre: NDArray[np.float32], flips: NDArray[np.float32], coordinate_scale: NDArray[np.float32]) -> Sketches:
    rows = keys.detach().to("cpu", torch.float32).numpy()
    heads = [sketch.sketch(rows[head], centre[head], flips, float(coordinate_scale[head])) for head in range(len(rows))]
    codes, factors, coordinates = (np.stack(parts) for parts in zip(*heads, strict=True))
    return Sketches(codes, factors, coordinates)


def group_similar(coordinates: NDArray[np.int8], page_size: int) -> NDArray[np.int32]:
    return np.stack([grouping.group_similar(one, page_size) for one in coordinates])


def lay_out(sketches: Sketches, rows: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    heads = [sketch.lay_out(sketches.codes[head], sketches.factors[head], rows[head]) for head in range(len(rows))]
    return np.stack([blocks for blocks, _ in heads]), np.stack([factors for _, factors in heads])


def estimate_log_masses(
    blocks: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    counts: NDArray[np.int32],
    queries: Tensor,
    flips: NDArray[np.float32],
    scale: float,
) -> Masses:
    rotated = sketch.rotate(queries.detach().to("cpu", torch.float32).numpy(), flips)
    num_pages = counts.shape[1]
    heads = range(len(counts))
    return np.stack(
        [sketch.estimate_log_masses(blocks[h, :num_pages], factors[h, :num_pages], counts[h], rotated[h], scale) for h in heads]
    )
