"""Pages of similar keys, all of them full: the rows are halved again and again, each time across the direction in which they differ most.

A half ends at a whole number of pages, so that with S dividing the number of rows every page holds S of them. The direction is that of
balanced two-means: from the mean of the older rows to that of the newer ones at first, then twice from the mean of the rows below average
along it to that of the rows above. Large sets find it on an even sample. Everything is whole-number arithmetic on coordinates of 8 bits
(`sketch.py`), ties go by row number: the result is the same on every machine, and that of the native kernel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SAMPLE_ROWS = 512
NUM_REFINEMENTS = 2
_LARGEST_ENTRY = 32767

Coordinates = NDArray[np.int8]


def group_similar(coordinates: Coordinates, page_size: int) -> NDArray[np.int32]:
    """Pages of the rows with `coordinates int8 [N, C]`: row numbers int32 `[N]`, page after page, ascending within a page.

    N must be a multiple of the page size.
    """
    wide = coordinates.astype(np.int64)
    grouped: list[NDArray[np.int64]] = []
    waiting = [np.arange(len(coordinates))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= page_size:
            grouped.append(rows)
            continue
        num_left = len(rows) // page_size // 2 * page_size
        heights = wide[rows] @ _direction(wide[rows[:: -(-len(rows) // SAMPLE_ROWS)]])
        order = np.argsort(heights, kind="stable")
        waiting += [rows[np.sort(order[num_left:])], rows[np.sort(order[:num_left])]]
    return np.concatenate(grouped).astype(np.int32) if grouped else np.empty(0, np.int32)


def _direction(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the halves of `rows [n, C]` lie apart, entries of 16 bits."""
    direction = _between_means(rows, np.arange(len(rows)) >= len(rows) // 2)
    for _ in range(NUM_REFINEMENTS):
        heights = rows @ direction
        upper = heights * len(rows) > heights.sum()
        if not upper.any():
            break
        direction = _between_means(rows, upper)
    return direction


def _between_means(rows: NDArray[np.int64], upper: NDArray[np.bool_]) -> NDArray[np.int64]:
    """From the mean of the lower rows to that of the upper ones, scaled to 16 bits."""
    num_upper = int(upper.sum())
    upper_sum = rows[upper].sum(axis=0)
    difference = upper_sum * (len(rows) - num_upper) - (rows.sum(axis=0) - upper_sum) * num_upper
    shift = max(0, int(np.abs(difference).max(initial=0)).bit_length() - _LARGEST_ENTRY.bit_length())
    direction: NDArray[np.int64] = difference >> shift
    return direction
