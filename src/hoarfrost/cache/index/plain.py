"""The plain twins of the kernels in `hoarfrost.kernels.index`, all heads at once.

`page_log_masses` also serves keys that those cannot read.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index import grouping, sketch
from hoarfrost.cache.index.protocol import KeyPages
from hoarfrost.kernels.index import Masses, Sketches

_LOG2_E = math.log2(math.e)
_PAGES_AT_ONCE = 1024


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


def page_log_masses(queries: Tensor, scale: float, keys: KeyPages, counts: NDArray[np.int32], pages: NDArray[np.int32]) -> Masses:
    """See `scoring.page_log_masses`; keys of any dtype, on any device."""
    num_heads = counts.shape[0]
    places = torch.from_numpy(np.maximum(pages, 0).astype(np.int64))
    held = torch.from_numpy(np.where(pages >= 0, np.take_along_axis(counts, np.maximum(pages, 0), axis=1), 0))
    device = keys.pool.device
    slots = torch.gather(keys.slots.to(device), 1, places.to(device)).clamp_min(0)
    scaled = queries.to(device, torch.float32) * (scale * _LOG2_E)
    parts = []
    for start in range(0, pages.shape[1], _PAGES_AT_ONCE):
        rows = keys.pool[slots[:, start : start + _PAGES_AT_ONCE]].float()
        scores = torch.matmul(scaled, rows.flatten(1, 2).transpose(1, 2)).view(*scaled.shape[:2], *rows.shape[1:3])
        empty = torch.arange(rows.shape[2]) >= held[:, start : start + _PAGES_AT_ONCE, None]
        scores.masked_fill_(empty.to(device)[:, None], -torch.inf)
        parts.append(_log2_sum(scores).cpu())
    if not parts:
        return np.empty((num_heads, queries.shape[1], 0), np.float32)
    return torch.cat(parts, dim=2).numpy()


def _log2_sum(scores: Tensor) -> Tensor:
    return torch.logsumexp(scores / _LOG2_E, dim=-1) * _LOG2_E


def sum_log_masses(log_masses: Masses) -> Masses:
    totals: Masses = np.logaddexp2.reduce(log_masses, axis=2)
    return totals


def rank_pages(log_masses: Masses, totals: Masses, num_pages: int) -> NDArray[np.int32]:
    shares = np.exp2(log_masses - np.maximum(totals, np.float32(-1e30))[:, :, None]).sum(axis=1)
    ranked = np.where(np.isfinite(log_masses).any(axis=1), shares, np.float32(-1))
    found = np.full((len(log_masses), num_pages), -1, np.int32)
    best = np.argsort(-ranked, axis=1, kind="stable")[:, :num_pages]
    found[:, : best.shape[1]] = np.where(np.take_along_axis(ranked, best, axis=1) >= 0, best, -1)
    return found
