"""Best-first growth of draft trees (DDTree, arXiv 2604.12989, section 3), from sorted candidates or straight from logits on the CPU.

Nodes come in the order of falling cumulative log-probability (float64 sum of float32 values); among equals the shallower depth, then the
lower parent row, then the better rank comes first. A candidate of probability 0 never becomes a node.

`TreeHints` is what the search for one tree may use beside the candidates (native/tree.hpp says how):

- `calibration` float32 [2, 2, D]: slopes, then intercepts; first for children of rows on the greedy spine, then for those of other rows; D
  depths or more. A candidate of probability p counts as sigmoid(slope * logit(p) + intercept); slopes must be positive.
- `path` int64 [m], `path_shares` float32 [m]: a continuation of the committed text, each token with its share of the probability that the
  drafter's four best candidates leave over.
- `successors` int32 [V, M], `grades` uint8 [V, M], `grade_shares` float32: tokens seen after each token (-1: none further), best first, how
  sure each seemed, and such a share for every grade.
- `max_depth`: the greatest depth, for guesses of the last two kinds may lie below the last candidate.
- `noise`: the seed and the position of depth 1, if the tokens will be chosen with Gumbel noise that may be looked at. A share s of the last
  two kinds then counts as exp(-(1 - s) / s * exp(-g)) for a token with noise g: the probability that it is the choice, given g.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost._native import TreeHints
from hoarfrost.errors import InvalidInput
from hoarfrost.native.top_k import can_read

_NO_LIMIT = 2**62


class TreeBatch(NamedTuple):
    """S trees in arrays with room for R rows each; tree i fills its first `num_rows[i]` rows, what follows is undefined.

    token_ids int64 [S, R]; parents, depths int32 [S, R]; log_probs float32 [S, R], how likely all rows down to this one are accepted;
    ancestors uint64 [S, R, ceil(R / 64)]. `needs_more[i]`: tree i is unfinished, since its next node may be a candidate that was not given.
    """

    token_ids: NDArray[np.int64]
    parents: NDArray[np.int32]
    depths: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    ancestors: NDArray[np.uint64]
    num_rows: list[int]
    needs_more: list[bool]


def build_trees(
    log_probs: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    bonus_token_ids: Sequence[int],
    budget: int,
    *,
    has_more: bool,
    places: NDArray[np.int32] | None = None,
    hints: Sequence[TreeHints] = (),
) -> TreeBatch:
    """Grows one tree of at most `budget` nodes per sequence from its candidates.

    Args:
        log_probs: float32 [S, L, K], each row falling, no NaN; or [S, L, P, K] where each of P predecessors has its own row.
        token_ids: int64 of the same shape, the tokens of `log_probs`.
        bonus_token_ids: S roots; as predecessors they have place 0.
        has_more: whether the vocabulary goes on behind rank K, at no higher log-probabilities.
        places: int32 of the same shape, with predecessors: which of the next depth's P each candidate is.
        hints: one for each tree, or none at all.
    """
    log_probs, token_ids = _checked(log_probs, token_ids)
    _check_roots(bonus_token_ids, log_probs.shape[0], budget)
    return TreeBatch(*_native.build_trees(log_probs, token_ids, places, list(bonus_token_ids), budget, has_more, list(hints)))


def grow_worthwhile(
    log_probs: NDArray[np.float32],
    token_ids: NDArray[np.int64],
    bonus_token_ids: Sequence[int],
    row_ms: NDArray[np.float64],
    fixed_ms: float,
    *,
    places: NDArray[np.int32] | None = None,
    hints: Sequence[TreeHints] = (),
) -> tuple[TreeBatch, float, float]:
    """Grows one tree per sequence from all its candidates, each as large as is worth its rows (`tree.allocation`); and the tokens that are
    expected of the round, and its milliseconds. The arguments are those of `build_trees`, and those of `tree.grow_worthwhile`."""
    log_probs, token_ids = _checked(log_probs, token_ids)
    _check_roots(bonus_token_ids, log_probs.shape[0])
    arrays, expected, milliseconds = _native.grow_worthwhile(
        log_probs, token_ids, places, list(bonus_token_ids), row_ms, fixed_ms, list(hints)
    )
    return TreeBatch(*arrays), expected, milliseconds


def build_trees_from_logits(
    logits: Sequence[Tensor],
    bonus_token_ids: Sequence[int],
    budget: int,
    *,
    max_width: int | None = None,
) -> TreeBatch:
    """Grows one tree of at most `budget` nodes per sequence, reading its logits only as far as the tree asks.

    A row is read once, when a node first leads to its depth; of each row only as many of the best candidates are sorted out as are needed,
    at most `max_width`. The result is that of `build_trees` with all candidates given; every tree is finished.

    Args:
        logits: S tensors [L, V] as `can_read` wants them, of one dtype.
        bonus_token_ids: S roots.

    Raises:
        InvalidInput: also where a row that was read holds NaN or +inf.
    """
    _check_roots(bonus_token_ids, len(logits), budget)
    dtypes = {one.dtype for one in logits}
    if len(dtypes) > 1 or not all(can_read(one) for one in logits):
        raise InvalidInput("The kernel takes logits of one dtype, float32 or bfloat16, on the CPU, with the entries of a row side by side.")
    width = _NO_LIMIT if max_width is None else max_width
    try:
        if torch.bfloat16 in dtypes:
            bits = [one.detach().view(torch.uint16).numpy() for one in logits]
            return TreeBatch(*_native.build_trees_from_bfloat16(bits, list(bonus_token_ids), budget, width))
        rows = [one.detach().numpy() for one in logits]
        return TreeBatch(*_native.build_trees_from_logits(rows, list(bonus_token_ids), budget, width))
    except ValueError as error:
        raise InvalidInput(f"{error} Check the drafter's weights, or load it in a wider dtype.") from error


def _checked(log_probs: NDArray[np.float32], token_ids: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Both as [S, L, P, K]."""
    for name, array, dtype in (("log_probs", log_probs, np.float32), ("token_ids", token_ids, np.int64)):
        if array.dtype != dtype or array.ndim not in (3, 4) or not array.flags.c_contiguous:
            raise InvalidInput(f"{name} is {array.dtype} of shape {array.shape}; it must be contiguous {np.dtype(dtype)} [S, L, K].")
    return (log_probs[:, :, None], token_ids[:, :, None]) if log_probs.ndim == token_ids.ndim == 3 else (log_probs, token_ids)


def _check_roots(bonus_token_ids: Sequence[int], num_trees: int, budget: int = 0) -> None:
    if len(bonus_token_ids) != num_trees:
        raise InvalidInput(f"There are {len(bonus_token_ids)} bonus tokens for {num_trees} sequences; each needs one.")
    if budget < 0:
        raise InvalidInput(f"The budget is {budget}; it must be 0 or more.")
