"""Best-first growth of draft trees (DDTree, arXiv 2604.12989, section 3), from sorted candidates or straight from logits on the CPU.

Nodes come in the order of falling cumulative log-probability (float64 sum of float32 values); among equals the shallower depth, then the
lower parent row, then the better rank comes first. A candidate of probability 0 never becomes a node.

`TreeHints` is what the search for one tree may use beside the candidates (native/tree/tree.hpp says how):

- `calibration` float32 [2, 2, D]: slopes, then intercepts; first for children of rows on the greedy spine, then for those of other rows; D
  depths or more. A candidate of probability p counts as sigmoid(slope * logit(p) + intercept); slopes must be positive.
- `table`, `repetition`, `shares`: the sources of `drafting.retrieval`, and what they are worth; all of them or none.
- `max_depth`: the greatest depth, for their guesses may lie below the last candidate.
- `noise`: the seed and the position of depth 1, if the tokens will be chosen with Gumbel noise that may be looked at. A source's share s
  then counts as exp(-(1 - s) / s * exp(-g)) for a token with noise g: the probability that it is the choice, given g.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost._native import TreeHints
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.top_k import source_of

_NO_LIMIT = 2**62


CandidateArrays = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32] | None]
"""Of one sequence: log_probs float32 [L, P, K], each row falling, no NaN; token_ids int64 of the same shape; and int32, which of the next
depth's P predecessors each candidate is, unless P is 1. The entries of a row lie side by side; the bonus token is predecessor 0."""


class BuiltTree(NamedTuple):
    """token_ids int64 [n]; parents, depths int32 [n]; ancestors uint64 [n, ceil(n / 64)], as `tree.DraftTree` has them; log_probs float32
    [n], how likely all rows down to this one are accepted."""

    token_ids: NDArray[np.int64]
    parents: NDArray[np.int32]
    depths: NDArray[np.int32]
    ancestors: NDArray[np.uint64]
    log_probs: NDArray[np.float32]


def build_trees(
    candidates: Sequence[CandidateArrays],
    bonus_token_ids: Sequence[int],
    budget: int,
    *,
    has_more: bool,
    hints: Sequence[TreeHints] = (),
) -> tuple[list[BuiltTree], list[bool]]:
    """Grows one tree of at most `budget` nodes per sequence from its candidates. Also says which trees are unfinished: the next node of
    such a tree may be a candidate that was not given.

    Args:
        bonus_token_ids: a root for each.
        has_more: whether the vocabulary goes on behind rank K, at no higher log-probabilities.
        hints: for each, or none at all.
    """
    _check_roots(bonus_token_ids, len(candidates), budget)
    trees, needs_more = _native.build_trees(list(candidates), list(bonus_token_ids), budget, has_more, list(hints))
    return [BuiltTree(*tree) for tree in trees], needs_more


def grow_worthwhile(
    candidates: Sequence[CandidateArrays],
    bonus_token_ids: Sequence[int],
    row_ms: NDArray[np.float64],
    fixed_ms: float,
    hints: Sequence[TreeHints] = (),
) -> tuple[list[BuiltTree], float, float]:
    """Grows one tree per sequence from all its candidates, each as large as is worth its rows; and says how many tokens are expected of the
    round, and how many milliseconds. The further arguments are those of `tree.grow_worthwhile`."""
    _check_roots(bonus_token_ids, len(candidates))
    trees, expected, milliseconds = _native.grow_worthwhile(list(candidates), list(bonus_token_ids), row_ms, fixed_ms, list(hints))
    return [BuiltTree(*tree) for tree in trees], expected, milliseconds


def build_trees_from_logits(
    logits: Sequence[Tensor],
    bonus_token_ids: Sequence[int],
    budget: int,
    *,
    max_width: int | None = None,
) -> list[BuiltTree]:
    """Grows one tree of at most `budget` nodes per sequence, reading its logits only as far as the tree asks.

    A row is read once, when a node first leads to its depth; of each row only as many of the best candidates are sorted out as are needed,
    at most `max_width`. The result is that of `build_trees` with all candidates given; every tree is finished.

    Args:
        logits: S tensors [L, V] as `can_read` wants them.
        bonus_token_ids: S roots.

    Raises:
        InvalidInput: also where a row that was read holds NaN or +inf.
    """
    _check_roots(bonus_token_ids, len(logits), budget)
    sources, width = [source_of(one) for one in logits], _NO_LIMIT if max_width is None else max_width
    try:
        return [BuiltTree(*tree) for tree in _native.build_trees_from_logits(sources, list(bonus_token_ids), budget, width)]
    except ValueError as error:
        raise InvalidInput(f"{error} Check the drafter's weights, or load it in a wider dtype.") from error


def _check_roots(bonus_token_ids: Sequence[int], num_trees: int, budget: int = 0) -> None:
    if len(bonus_token_ids) != num_trees:
        raise InvalidInput(f"There are {len(bonus_token_ids)} bonus tokens for {num_trees} sequences; each needs one.")
    if budget < 0:
        raise InvalidInput(f"The budget is {budget}; it must be 0 or more.")
