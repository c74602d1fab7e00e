"""One bit per dimension: sketches of keys from which products with queries are estimated (after RaBitQ, arXiv 2405.12497).

A key less the mean of its head (which changes no softmax) is turned by a random rotation, so that no channel stands out, and only the signs
of its entries are kept, with their mean size:

    q . k ~ factor(k) / D' * sum_d y(q)_d * sign y(k)_d        y = unnormalised Walsh-Hadamard transform of the flipped, padded vector

For the scan of all keys (after Andre et al., Quicker ADC, 2018), four signs are a nibble, the sums of four entries of a query under the 16
sign patterns are tabulated in six bits, and an estimate is a sum of D'/4 small whole numbers. Sketches lie by page in units of 16 rows,
`[pages, units, D'/8, 16]` bytes: a register of 32 bytes holds four nibbles of 16 rows, and the tables are looked up by byte shuffles.

All of this is arithmetic whose order is fixed; the native kernels give the same bits. D' is D rounded up to a power of two, at least 16.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from hoarfrost.kernels.index import MAX_COORDINATES, UNIT_ROWS, Masses

_LOG2_E = math.log2(math.e)
_LARGEST_ENTRY = np.float32(63)
_SUM_LANES = 32

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def padded_dim(head_dim: int) -> int:
    """D'."""
    return max(16, 1 << (head_dim - 1).bit_length())


def random_flips(head_dim: int, seed: int) -> Floats:
    """The random signs of the rotation, float32 `[D']` of 1 and -1."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), padded_dim(head_dim))


def rotate(rows: Floats, flips: Floats) -> Floats:
    """`rows [..., D]` -> `y [..., D']`."""
    y = np.zeros((*rows.shape[:-1], flips.size), np.float32)
    y[..., : rows.shape[-1]] = rows * flips[: rows.shape[-1]]
    half = 1
    while half < flips.size:
        pairs = y.reshape(*y.shape[:-1], flips.size // (2 * half), 2, half)
        y = np.stack((pairs[..., 0, :] + pairs[..., 1, :], pairs[..., 0, :] - pairs[..., 1, :]), axis=-2).reshape(y.shape)
        half *= 2
    return y


def sketch(keys: Floats, centre: Floats, flips: Floats, coordinate_scale: float) -> tuple[Bytes, NDArray[np.uint16], NDArray[np.int8]]:
    """Sketches of the keys of one head, `keys [N, D]`.

    Returns:
        codes uint8 `[N, D'/8]`: bit d is set where y_d >= 0.
        factors uint16 `[N]`: the mean of |y_d| as the bits of a bfloat16.
        coordinates int8 `[N, min(64, D')]`: the first entries of y times `coordinate_scale`, rounded; for grouping.
    """
    y = rotate(keys - centre, flips)
    codes = np.packbits(y >= 0, axis=-1, bitorder="little")
    factors = to_bfloat16_bits(_sum_in_lanes(np.abs(y)) / np.float32(flips.size))
    scaled = y[:, : min(MAX_COORDINATES, flips.size)] * np.float32(coordinate_scale)
    coordinates = np.rint(np.clip(scaled, np.float32(-127), np.float32(127))).astype(np.int8)
    return codes, factors, coordinates


def _sum_in_lanes(entries: Floats) -> Floats:
    """The sum over `entries [N, D']`, 32 lanes side by side."""
    lanes = np.zeros((len(entries), min(_SUM_LANES, entries.shape[1])), np.float32)
    for start in range(0, entries.shape[1], _SUM_LANES):
        lanes += entries[:, start : start + _SUM_LANES]
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def to_bfloat16_bits(values: Floats) -> NDArray[np.uint16]:
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bfloat16_bits(bits: NDArray[np.uint16]) -> Floats:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def num_units(page_size: int) -> int:
    return -(-page_size // UNIT_ROWS)


def lay_out(codes: Bytes, factors: NDArray[np.uint16], rows: NDArray[np.int32]) -> tuple[Bytes, NDArray[np.uint16]]:
    """Sketches by page: blocks uint8 `[P, U, D'/8, 16]` and factors uint16 `[P, U, 16]` of `rows int32 [P, S]`; 0 in empty slots."""
    num_pages, page_size = rows.shape
    slots = np.full((num_pages, num_units(page_size) * UNIT_ROWS), -1, np.int32)
    slots[:, :page_size] = rows
    held = (slots >= 0)[:, :, None]
    units = np.where(held, codes[slots], 0).astype(np.uint8).reshape(num_pages, -1, UNIT_ROWS, codes.shape[1])
    placed = np.where(held[:, :, 0], factors[slots], 0).astype(np.uint16).reshape(num_pages, -1, UNIT_ROWS)
    return np.ascontiguousarray(units.swapaxes(2, 3)), placed


def query_tables(y: Floats) -> tuple[NDArray[np.int32], Floats, Floats]:
    """The tables of rotated queries `y [R, D']`: entries int32 `[R, D'/4, 16]` in 0..63, step and offset float32 `[R]`.

    `step * (sum of entries) - offset` approximates `sum_d y_d * sign_d`.
    """
    a, b, c, d = (y.reshape(len(y), -1, 4)[:, :, place] for place in range(4))
    widths = (np.abs(a) + np.abs(b)) + (np.abs(c) + np.abs(d))
    step = widths.max(axis=1) * np.float32(2) / _LARGEST_ENTRY
    offset = np.zeros(len(y), np.float32)
    for width in widths.T:
        offset += width
    sign = np.where(np.arange(16)[None, :] >> np.arange(4)[:, None] & 1, np.float32(1), np.float32(-1))
    sums = (a[..., None] * sign[0] + b[..., None] * sign[1]) + (c[..., None] * sign[2] + d[..., None] * sign[3])
    inverse = np.where(step > 0, np.float32(1) / np.maximum(step, np.finfo(np.float32).tiny), np.float32(0)).astype(np.float32)
    entries = ((sums + widths[..., None]) * inverse[:, None, None] + np.float32(0.5)).astype(np.int32)
    return np.minimum(entries, 63), step, offset


def estimate_log_masses(blocks: Bytes, factors: NDArray[np.uint16], counts: NDArray[np.int32], queries: Floats, scale: float) -> Masses:
    """Estimated log2 masses of the pages of one head, float32 `[R, P]`, -inf for empty pages.

    Powers and logarithms are taken piecewise linearly (within 6%): far less than what a sketch leaves open.

    Args:
        blocks, factors: as `lay_out` returns them. counts: int32 `[P]`.
        queries: rotated, `[R, D']`.
    """
    num_pages, units, num_bytes, _ = blocks.shape
    entries, step, offset = query_tables(queries)
    nibbles = np.stack((blocks & 15, blocks >> 4), axis=3).reshape(num_pages, units, 2 * num_bytes, UNIT_ROWS)
    weights = from_bfloat16_bits(factors) * np.float32(scale * _LOG2_E / queries.shape[1])
    filled = np.arange(units * UNIT_ROWS).reshape(units, UNIT_ROWS) < counts[:, None, None]
    masses = np.empty((len(queries), num_pages), np.float32)
    for row in range(len(queries)):
        sums = entries[row][np.arange(2 * num_bytes)[:, None], nibbles].sum(axis=2).astype(np.float32)
        scores = np.where(filled, (sums * step[row] - offset[row]) * weights, -np.inf).astype(np.float32)
        largest = scores.max(axis=(1, 2), initial=-np.inf)
        with np.errstate(invalid="ignore"):
            powers = np.where(filled, rough_exp2(scores - largest[:, None, None]), np.float32(0))
        lanes = np.zeros((num_pages, UNIT_ROWS), np.float32)
        for unit in range(units):
            lanes += powers[:, unit]
        while lanes.shape[1] > 1:
            half = lanes.shape[1] // 2
            lanes = lanes[:, :half] + lanes[:, half:]
        masses[row] = np.where(counts > 0, largest + rough_log2(lanes[:, 0]), -np.inf)
    return masses


def rough_exp2(x: Floats) -> Floats:
    """2^x for x <= 0, linear between whole x; 2^-126 at the least."""
    bounded = np.maximum(x, np.float32(-126))
    return ((np.nan_to_num(bounded, nan=-126) + np.float32(127)) * np.float32(2**23)).astype(np.int32).view(np.float32)


def rough_log2(x: Floats) -> Floats:
    """The inverse of `rough_exp2`."""
    return x.view(np.int32).astype(np.float32) * np.float32(2**-23) - np.float32(127)
