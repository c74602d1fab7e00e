"""Walks down a draft tree in one call, for choices that are known or that a kernel can make (`tree.walk` is the general walk)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.kernels.noise import ALL_BITS
from hoarfrost.kernels.top_k import source_of


def walk_along(parents: NDArray[np.int32], token_ids: NDArray[np.int64], choices: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """The accepted rows of a tree, and the tokens chosen at them, where all rows' `choices` int64 [n] are known.

    Args:
        parents, token_ids: [n] of the tree, as `tree.DraftTree` has them.
    """
    return _native.walk_along(parents, token_ids, choices)


def walk_with_noise(
    parents: NDArray[np.int32],
    token_ids: NDArray[np.int64],
    logits: Tensor,
    first_row: int,
    temperature: float,
    seed: int,
    first_position: int,
) -> tuple[list[int], list[int]]:
    """The accepted rows of a tree, and the tokens chosen at them: the best of `best_with_noise` at each, one position further per depth.

    Rows that are not accepted are not read. A row that cannot be ranked is the last, with -1 for its token.

    Args:
        parents, token_ids: [n] of the tree, as `tree.DraftTree` has them.
        logits: [N, V] as `can_read` wants them; the tree's rows are n of them, from `first_row` on.
        temperature: above 0.
    """
    seed, position = seed & ALL_BITS, first_position & ALL_BITS
    return _native.walk_with_noise(parents, token_ids, source_of(logits), first_row, temperature, seed, position, torch.get_num_threads())
