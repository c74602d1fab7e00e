"""Keys lifted to one length, so that the largest product is the least distance; in 16-bit fixed point. The plain twins of
native/pages/dci.cpp.

A key k becomes (k, sqrt(R^2 - |k|^2)) / R * 32767 with R the length of the longest key at building; keys of the same length are as near to
each other as their product is large, and a query (q, 0) is nearest to the key with the largest q . k. Products of whole numbers do not
depend on the order of their sum: what is assigned and projected here is the same on every machine. Later keys that are longer than R are
shortened to it, for the purpose of placing them only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTH = np.float32(32767)
LARGEST_DIRECTION_ENTRY = 127

Lifted = NDArray[np.int16]
Floats = NDArray[np.float32]


def lifted_width(head_dim: int) -> int:
    """Entries of a lifted key: D, the lift, zeros up to a multiple of 2."""
    return head_dim + 2 - head_dim % 2


def squared_lengths(keys: Floats) -> Floats:
    """Of `keys [N, D]`, summed in eight lanes."""
    padded = np.zeros((len(keys), -(-keys.shape[1] // 8) * 8), np.float32)
    padded[:, : keys.shape[1]] = keys
    lanes = np.zeros((len(keys), 8), np.float32)
    for start in range(0, padded.shape[1], 8):
        lanes += padded[:, start : start + 8] * padded[:, start : start + 8]
    for half in (4, 2, 1):
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def lift(keys: Floats, squared_radius: float) -> Lifted:
    """`keys [N, D]` -> int16 `[N, lifted_width(D)]`."""
    radius = np.float32(squared_radius)
    lengths = squared_lengths(keys)
    rest = radius - lengths
    scale = LENGTH / np.sqrt(radius) if radius > 0 else np.float32(0)
    with np.errstate(divide="ignore"):
        fitting = np.where(rest < 0, LENGTH / np.sqrt(lengths), scale).astype(np.float32)
    lifted: Lifted = np.zeros((len(keys), lifted_width(keys.shape[1])), np.int16)
    lifted[:, : keys.shape[1]] = _fixed(keys * fitting[:, None])
    lifted[:, keys.shape[1]] = _fixed(np.sqrt(np.maximum(rest, np.float32(0))) * scale)
    return lifted


def _fixed(scaled: Floats) -> NDArray[np.int16]:
    fixed: NDArray[np.int16] = np.rint(np.clip(scaled, -LENGTH, LENGTH)).astype(np.int16)
    return fixed


def nearest_pivots(points: Lifted, pivots: Lifted) -> NDArray[np.int32]:
    """The pivot with the largest product for every point, the first among equals."""
    nearest: NDArray[np.int32] = (points.astype(np.int64) @ pivots.astype(np.int64).T).argmax(axis=1).astype(np.int32)
    return nearest


def project(rows: Lifted, direction: NDArray[np.int16]) -> NDArray[np.int32]:
    return (rows.astype(np.int64) @ direction.astype(np.int64)).astype(np.int32)


def random_direction(head_dim: int, seed: int) -> NDArray[np.int16]:
    """A random direction among lifted keys, its largest entry 127."""
    direction = np.zeros(lifted_width(head_dim), np.float64)
    direction[: head_dim + 1] = np.random.default_rng(seed).standard_normal(head_dim + 1)
    fixed: NDArray[np.int16] = np.rint(direction * (LARGEST_DIRECTION_ENTRY / np.abs(direction).max())).astype(np.int16)
    return fixed


def project_query(query: Floats, direction: NDArray[np.int16]) -> NDArray[np.int32]:
    """Projections of the lifted queries `[..., D]`, stretched to the length of the lifted keys: int32 `[...]`."""
    lengths = np.linalg.norm(query.astype(np.float64), axis=-1)
    products = query.astype(np.float64) @ direction[: query.shape[-1]].astype(np.float64)
    projected: NDArray[np.int32] = np.rint(products * (float(LENGTH) / np.maximum(lengths, 1e-30))).astype(np.int32)
    return projected
