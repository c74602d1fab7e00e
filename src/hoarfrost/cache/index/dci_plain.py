"""The plain twins of native/pages/dci_pages.cpp: cells cut into pages, and the lists of several queries merged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hoarfrost.kernels.index import Masses


def cut_cells(
    rows: NDArray[np.int32], cells: NDArray[np.int32], projections: NDArray[np.int32], page_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pages `[P, S]` of the rows of each cell, along their projections, cells in order; and the cell of each page."""
    order = np.argsort(cells.astype(np.int64) << 32 | (projections[rows].astype(np.int64) + 2**31), kind="stable")
    owners, starts, sizes = np.unique(cells[order], return_index=True, return_counts=True)
    num_pages = -(-sizes // page_size)
    place = np.arange(len(rows)) - np.repeat(starts, sizes)
    size, cut = np.repeat(sizes, sizes), np.repeat(num_pages, sizes)
    page = place * cut // size
    slot = place - -(-page * size // cut)
    pages = np.full((int(num_pages.sum()), page_size), -1, np.int32)
    pages[np.repeat(np.cumsum(num_pages) - num_pages, sizes) + page, slot] = rows[order]
    return pages, np.repeat(owners, num_pages).astype(np.int32)


def merge_by_rank(scores: Masses, counts: NDArray[np.int32], num_pages: int) -> NDArray[np.int32]:
    """The best pages of the lists `scores [R, P]` of one set of queries in turn, repeats left out: int32 `[num_pages]`, -1 = none."""
    order = np.argsort(np.where(counts > 0, -np.maximum(scores, np.finfo(np.float32).min), np.inf), axis=1, kind="stable")
    ranked = order[:, :num_pages].T.ravel()
    _, first = np.unique(ranked, return_index=True)
    distinct = ranked[np.sort(first)]
    found = np.full(num_pages, -1, np.int32)
    chosen = distinct[counts[distinct] > 0][:num_pages]
    found[: len(chosen)] = chosen
    return found
