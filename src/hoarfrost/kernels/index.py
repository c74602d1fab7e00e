"""The kernels of the page indexes: sketches, groups, estimated and exact masses of pages, ranking. Heads are shared out among threads.

The formulas, and the plain twins of the same names, are in `hoarfrost.cache.index` (`sketch`, `grouping`, `scoring`, all heads at once in
`plain`). `instruction_set` names one of `hoarfrost.kernels.instruction_sets()`; tests compare them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.errors import InvalidInput

UNIT_ROWS = 16
MAX_COORDINATES = 64

Masses = NDArray[np.float32]


class DciBreadth(NamedTuple):
    """How far a search of the DCI-tree goes: nodes kept per level; of a cell of more than `batch` rows the share that is scored."""

    field_of_view: int
    scored_share: float
    batch: int


class Tree(Protocol):
    """A DCI-tree as the search reads it; see `hoarfrost.cache.index.dci_tree`."""

    child_cells: NDArray[np.int32]
    projections: NDArray[np.int32]

    def flat_cells(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]: ...


class Sketches(NamedTuple):
    """Of all heads: codes uint8 `[Hkv, N, D'/8]`, factors uint16 `[Hkv, N]`, coordinates int8 `[Hkv, N, min(64, D')]`."""

    codes: NDArray[np.uint8]
    factors: NDArray[np.uint16]
    coordinates: NDArray[np.int8]


def sketch_keys(
    keys: Tensor,
    centre: NDArray[np.float32],
    flips: NDArray[np.float32],
    coordinate_scale: NDArray[np.float32],
    instruction_set: str | None = None,
) -> Sketches:
    """Sketches of `keys [Hkv, N, D]` on any device; `centre [Hkv, D]`, `flips [D']`, `coordinate_scale [Hkv]`."""
    held = _on_cpu(keys)
    num_heads, num_rows, _ = held.shape
    codes = np.empty((num_heads, num_rows, flips.size // 8), np.uint8)
    factors = np.empty((num_heads, num_rows), np.uint16)
    coordinates = np.empty((num_heads, num_rows, min(MAX_COORDINATES, flips.size)), np.int8)
    kernel, array = (
        (_native.index_sketch_keys_bfloat16, held.view(torch.uint16).numpy())
        if held.dtype == torch.bfloat16
        else (_native.index_sketch_keys, held.numpy())
    )
    kernel(array, centre, flips, coordinate_scale, codes, factors, coordinates, torch.get_num_threads(), instruction_set)
    return Sketches(codes, factors, coordinates)


def group_similar(coordinates: NDArray[np.int8], page_size: int, instruction_set: str | None = None) -> NDArray[np.int32]:
    """Row numbers int32 `[Hkv, N]`, page after page, for `coordinates int8 [Hkv, N, C]`; N is a multiple of the page size."""
    if page_size < 1 or coordinates.shape[1] % page_size:
        raise InvalidInput(f"{coordinates.shape[1]} rows do not fill pages of {page_size}; give a multiple of the page size.")
    rows = np.empty(coordinates.shape[:2], np.int32)
    _native.index_group_similar(coordinates, page_size, rows, torch.get_num_threads(), instruction_set)
    return rows


def lay_out(sketches: Sketches, rows: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Sketches by page: blocks uint8 `[Hkv, P, U, D'/8, 16]` and factors uint16 `[Hkv, P, U, 16]` of `rows int32 [Hkv, P, S]`."""
    num_heads, num_pages, page_size = rows.shape
    num_units = -(-page_size // UNIT_ROWS)
    blocks = np.empty((num_heads, num_pages, num_units, sketches.codes.shape[2], UNIT_ROWS), np.uint8)
    placed = np.empty((num_heads, num_pages, num_units, UNIT_ROWS), np.uint16)
    _native.index_lay_out_sketches(sketches.codes, sketches.factors, rows, blocks, placed, torch.get_num_threads())
    return blocks, placed


def estimate_log_masses(
    blocks: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    counts: NDArray[np.int32],
    queries: Tensor,
    flips: NDArray[np.float32],
    scale: float,
    instruction_set: str | None = None,
) -> Masses:
    """Estimated log2 masses of all pages, float32 `[Hkv, R, P]`, for `queries [Hkv, R, D]` and `counts int32 [Hkv, P]`."""
    wanted = queries.detach().to("cpu", torch.float32).contiguous().numpy()
    masses = np.empty((*wanted.shape[:2], counts.shape[1]), np.float32)
    weight = scale * _LOG2_E / flips.size
    threads = torch.get_num_threads()
    _native.index_estimate_log_masses(
        blocks, factors, np.ascontiguousarray(counts), wanted, flips, weight, masses, threads, instruction_set
    )
    return masses


def can_score(pool: Tensor) -> bool:
    """Whether `page_log_masses` takes keys from this pool `[slots, S, D]`: float32 or bfloat16 on the CPU, whole pages in one piece."""
    _, page_size, head_dim = pool.shape
    dense = (head_dim == 1 or pool.stride(2) == 1) and (page_size == 1 or pool.stride(1) == head_dim)
    return dense and pool.device.type == "cpu" and pool.dtype in (torch.float32, torch.bfloat16)


def page_log_masses(
    scaled_queries: NDArray[np.float32],
    pool: Tensor,
    slots: Tensor,
    counts: NDArray[np.int32],
    pages: NDArray[np.int32],
    instruction_set: str | None = None,
) -> Masses:
    """Exact log2 masses float32 `[Hkv, R, C]` of `pages int32 [Hkv, C]` (-1 = none), for queries times scale times log2 e."""
    if not can_score(pool):
        raise InvalidInput(f"The pool is {pool.dtype} {tuple(pool.shape)} on {pool.device}; the kernel reads whole pages on the CPU.")
    masses = np.empty((*scaled_queries.shape[:2], pages.shape[1]), np.float32)
    kernel, array = (
        (_native.index_page_log_masses_bfloat16, pool.detach().view(torch.uint16).numpy())
        if pool.dtype == torch.bfloat16
        else (_native.index_page_log_masses, pool.detach().numpy())
    )
    places, threads = slots.contiguous().numpy(), torch.get_num_threads()
    kernel(array, places, np.ascontiguousarray(counts), pages, scaled_queries, masses, threads, instruction_set)
    return masses


def search_pages(
    blocks: NDArray[np.uint8],
    factors: NDArray[np.uint16],
    flips: NDArray[np.float32],
    counts: NDArray[np.int32],
    pool: Tensor,
    slots: Tensor,
    queries: Tensor,
    scale: float,
    resident: NDArray[np.float32] | None,
    num_candidates: int,
    num_wanted: int,
    single_rows: bool,
    instruction_set: str | None = None,
) -> NDArray[np.int32]:
    """The search of the `ice` index in one call, int32 `[Hkv, L, num_wanted]`, from a pool that `can_score` accepts.

    Args:
        single_rows: whether rows are wanted, each as its page times the page size plus its place in it, or pages.
        blocks, factors, flips, counts: as `estimate_log_masses` takes them. pool, slots: as in `KeyPages`.
        queries: `[Hkv, L, R, D]`. resident: log2 masses `[Hkv, L, R]`.
    """
    wanted = queries.detach().to("cpu", torch.float32).contiguous().numpy()
    chosen = np.empty((*wanted.shape[:2], num_wanted), np.int32)
    is_half = pool.dtype == torch.bfloat16
    kernel = _native.index_search_pages_bfloat16 if is_half else _native.index_search_pages
    array = pool.detach().view(torch.uint16).numpy() if is_half else pool.detach().numpy()
    kernel(
        blocks, factors, flips, np.ascontiguousarray(counts), array, slots.contiguous().numpy(), wanted, resident, scale * _LOG2_E,
        num_candidates, single_rows, chosen, torch.get_num_threads(), instruction_set,
    )  # fmt: skip
    return chosen


def sum_log_masses(log_masses: Masses, instruction_set: str | None = None) -> Masses:
    """The log2 of the summed masses, float32 `[Hkv, R]`, of `log_masses [Hkv, R, C]`."""
    totals = np.empty(log_masses.shape[:2], np.float32)
    _native.index_total_log_masses(np.ascontiguousarray(log_masses), totals, instruction_set)
    return totals


def rank_pages(log_masses: Masses, totals: Masses, num_pages: int, instruction_set: str | None = None) -> NDArray[np.int32]:
    """The places of the `num_pages` pages with the largest summed share of `totals [Hkv, R]`: int32 `[Hkv, num_pages]`, -1 behind."""
    places = np.empty((log_masses.shape[0], num_pages), np.int32)
    _native.index_rank_pages(np.ascontiguousarray(log_masses), totals, places, torch.get_num_threads(), instruction_set)
    return places


def largest_squared_lengths(keys: Tensor, instruction_set: str | None = None) -> NDArray[np.float32]:
    """The largest squared length of a key of each head, float32 `[Hkv]`, of `keys [Hkv, N, D]`; NaN where one is not finite."""
    held = _on_cpu(keys)
    lengths = np.zeros(len(held), np.float32)
    if held.dtype == torch.bfloat16:
        _native.index_largest_squared_lengths_bfloat16(held.view(torch.uint16).numpy(), lengths, torch.get_num_threads(), instruction_set)
    else:
        _native.index_largest_squared_lengths(held.numpy(), lengths, torch.get_num_threads(), instruction_set)
    return lengths


def lift_keys(
    keys: Tensor, squared_radii: NDArray[np.float32], direction: NDArray[np.int16], instruction_set: str | None = None
) -> tuple[NDArray[np.int16], NDArray[np.int32]]:
    """Lifted keys int16 `[Hkv, N, W]` of `keys [Hkv, N, D]`, in fixed point; and their products with `direction [W]`, whose entries lie in
    -127..127: int32 `[Hkv, N]`."""
    held = _on_cpu(keys)
    lifted, projections = np.empty((*held.shape[:2], len(direction)), np.int16), np.empty(held.shape[:2], np.int32)
    kernel = _native.index_lift_keys_bfloat16 if held.dtype == torch.bfloat16 else _native.index_lift_keys
    array = held.view(torch.uint16).numpy() if held.dtype == torch.bfloat16 else held.numpy()
    kernel(array, squared_radii, direction, lifted, projections, torch.get_num_threads(), instruction_set)
    return lifted, projections


def nearest_pivots(points: NDArray[np.int16], pivots: NDArray[np.int16], instruction_set: str | None = None) -> NDArray[np.int32]:
    """The pivot `[M, W]` with the largest product for every point `[N, W]`, the first among equals: int32 `[N]`. M is 1 or more."""
    nearest = np.empty(len(points), np.int32)
    _native.index_nearest_pivots(points, pivots, nearest, torch.get_num_threads(), instruction_set)
    return nearest


def cut_cells(
    rows: NDArray[np.int32], cells: NDArray[np.int32], num_cells: int, projections: NDArray[np.int32], page_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pages int32 `[P, S]` of `rows [n]` in `cells [n]`, along their projections, cells in order; and the cell of each page."""
    limit = len(rows) // page_size + min(num_cells, len(rows))
    pages, owners = np.empty((limit, page_size), np.int32), np.empty(limit, np.int32)
    num_pages = _native.index_cut_cells(rows, cells, num_cells, projections, pages, owners)
    return pages[:num_pages], owners[:num_pages]


def merge_by_rank(scores: Masses, counts: NDArray[np.int32], num_pages: int) -> NDArray[np.int32]:
    """The best pages of the R lists `scores [Hkv, L, R, P]` in turn, repeats left out: int32 `[Hkv, L, num_pages]`, -1 = none.

    Pages that no query came across follow, so that as many are returned as there are.
    """
    chosen = np.empty((*scores.shape[:2], num_pages), np.int32)
    _native.index_merge_by_rank(scores, np.ascontiguousarray(counts), chosen)
    return chosen


def search_trees(
    trees: Sequence[Tree],
    rows: NDArray[np.int32],
    counts: NDArray[np.int32],
    pool: Tensor,
    slots: Tensor,
    queries: NDArray[np.float32],
    projected_queries: NDArray[np.int32],
    breadth: DciBreadth,
    instruction_set: str | None = None,
) -> Masses:
    """The best product that each query met in each page, float32 `[Hkv, R, P]`, -inf where it met none.

    Args:
        rows, counts: the page table. pool, slots: the keys, as in `KeyPages`.
        queries: `[Hkv, R, D]`. projected_queries: int32 `[Hkv, R]`.
    """
    held = pool if can_score(pool) else pool.detach().to("cpu", torch.float32).contiguous()
    scores = np.empty((*queries.shape[:2], counts.shape[1]), np.float32)
    is_half = held.dtype == torch.bfloat16
    kernel = _native.index_search_tree_bfloat16 if is_half else _native.index_search_tree
    array = held.detach().view(torch.uint16).numpy() if is_half else held.detach().numpy()
    places = slots.cpu().contiguous().numpy()
    for head, tree in enumerate(trees):
        starts, pages = tree.flat_cells()
        kernel(
            starts, pages, tree.child_cells, tree.projections, np.ascontiguousarray(rows[head]), np.ascontiguousarray(counts[head]),
            array, places[head], queries[head], projected_queries[head], *breadth, scores[head], torch.get_num_threads(), instruction_set,
        )  # fmt: skip
    return scores


_LOG2_E = float(np.log2(np.e))


def _on_cpu(keys: Tensor) -> Tensor:
    """Keys as the kernel reads them: float32 or bfloat16 on the CPU, the entries of a key side by side."""
    dtype = torch.bfloat16 if keys.dtype == torch.bfloat16 else torch.float32
    held = keys.detach().to("cpu", dtype)
    return held if held.stride(2) == 1 else held.contiguous()
