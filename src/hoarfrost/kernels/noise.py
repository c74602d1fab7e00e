"""Counter-based noise per (seed, position, token id): a hash, and the standard Gumbel value made of it.

    key  = mix(seed ^ mix(position + 0x9E3779B97F4A7C15))
    bits = mix(key ^ mix(token_id + 0xD1B54A32D192ED03))
    u    = ((bits >> 11) + 0.5) * 2^-53, at most 1 - 2^-53
    g    = float32(-log(-log(u))), the logarithms in float64

with all integers modulo 2^64 and `mix` the finaliser of splitmix64 (Steele, Lea, Flood 2014). The values do not depend on the machine.
Seeds and positions may be any Python integers; they count modulo 2^64.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.top_k import source_with

ALL_BITS = 2**64 - 1  # seeds and positions count modulo 2^64


def noise_bits(seed: int, position: int, token_ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The 64 hash bits of each of `token_ids` int64 [m]: uint64 [m]."""
    return _native.noise_bits(seed & ALL_BITS, position & ALL_BITS, _checked(token_ids))


def gumbel_noise(seed: int, position: int, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The standard Gumbel value of each of `token_ids` int64 [m]: float32 [m]."""
    return _native.gumbel_noise(seed & ALL_BITS, position & ALL_BITS, _checked(token_ids))


def gumbel_noise_range(seed: int, position: int, vocab_size: int) -> NDArray[np.float32]:
    """The standard Gumbel values of the token ids 0 .. vocab_size - 1: float32 [vocab_size]."""
    if vocab_size < 0:
        raise InvalidInput(f"vocab_size is {vocab_size}; it must be 0 or more.")
    return _native.gumbel_noise_range(seed & ALL_BITS, position & ALL_BITS, vocab_size)


def gumbel_noise_rows(seed: int, first_position: int, token_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The standard Gumbel values of `token_ids` int64 [n, m], row i at position `first_position + i`: float32 [n, m]."""
    if token_ids.dtype != np.int64 or token_ids.ndim != 2:
        raise InvalidInput(f"token_ids is {token_ids.dtype} of shape {token_ids.shape}; noise of rows takes int64 of two dimensions.")
    return _native.gumbel_noise_rows(seed & ALL_BITS, first_position & ALL_BITS, np.ascontiguousarray(token_ids))


def best_with_noise(
    logits: Tensor, temperature: float, seed: int, first_position: int, k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of each row the `k` best of (logit - largest logit) / temperature + noise, the noise of row i being that of `first_position + i`.

    The whole vocabulary takes part, but only tokens that their hash may lift so far get their noise computed. Arithmetic is in float32.

    Args:
        logits: [n, V] as `can_read` wants them.
        temperature: above 0.
        k: 1..V.

    Returns:
        Scores float32 and token ids int64 [n, k], best first, the lower id first among equals; -inf where the logit is. Token ids are -1
        throughout where a row holds NaN or +inf, or nothing but -inf.
    """
    source = source_with(logits, k)
    return _native.best_with_noise(source, temperature, seed & ALL_BITS, first_position & ALL_BITS, k, torch.get_num_threads())


def _checked(token_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    if token_ids.dtype != np.int64 or token_ids.ndim != 1:
        raise InvalidInput(f"token_ids is {token_ids.dtype} of shape {token_ids.shape}; noise takes int64 of one dimension.")
    return np.ascontiguousarray(token_ids)
