"""Building draft trees: the likeliest prefixes under the drafter's marginals, best first (DDTree, arXiv 2604.12989, section 3).

The growth itself is native (`hoarfrost.native`; plain twin: `hoarfrost.tree.plain`). A node of rank r needs r better siblings in the tree,
so most trees ask for a few candidates per depth only. On the CPU the kernel reads logits as it grows; from another device the candidates
are fetched for the whole batch, few at first and twice as many whenever a tree asks for one that was not fetched. Either way the tree is
the one that all candidates at hand would give.

`build_trees` is the published method. `grow_trees` starts from candidates that are on the host and may have been coupled, adds calibration
and further sources (`TreeHints`), and says how likely it finds every node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hoarfrost import native
from hoarfrost.errors import InvalidInput
from hoarfrost.native import TreeBatch, TreeHints
from hoarfrost.tree.candidates import Candidates
from hoarfrost.tree.draft_tree import DraftTree
from hoarfrost.tree.marginals import Marginals, top_of

INITIAL_NUM_RANKS = 32


class GrownTree(NamedTuple):
    """A tree, and float32 [n]: the log-probabilities that its rows are accepted, as far as the guesses are to be believed."""

    tree: DraftTree
    log_probs: NDArray[np.float32]


def grow_trees(
    candidates: Sequence[Candidates], bonus_token_ids: Sequence[int], budget: int, hints: Sequence[TreeHints] = ()
) -> list[GrownTree]:
    """One tree per sequence, of at most `budget` nodes below its bonus token, over the candidates and what the hints add.

    Nodes come in the order of falling calibrated log-probability; the greedy spine never later than its uncalibrated one would have it.
    `hints` holds one for each sequence, or none.
    """
    log_probs, token_ids, places = padded(candidates)
    batch = native.build_trees(log_probs, token_ids, bonus_token_ids, budget, has_more=False, places=places, hints=hints)
    return [GrownTree(tree_at(batch, index), batch.log_probs[index, : batch.num_rows[index]]) for index in range(len(candidates))]


def padded(candidates: Sequence[Candidates]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32] | None]:
    """The candidates of all sequences as arrays [S, L, P, K], filled up with what can never be a node."""
    if len(candidates) == 1:
        [one] = candidates
        places = None if one.places is None else np.ascontiguousarray(one.places[None])
        return np.ascontiguousarray(one.log_probs[None]), np.ascontiguousarray(one.token_ids[None]), places
    shape = (len(candidates), *(max(extents) for extents in zip(*(one.log_probs.shape for one in candidates), strict=True)))
    log_probs, token_ids = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
    places = np.zeros(shape, np.int32) if any(one.places is not None for one in candidates) else None
    for index, one in enumerate(candidates):
        horizon, num_predecessors, num_ranks = one.log_probs.shape
        at = np.s_[index, :horizon, :num_predecessors, :num_ranks]
        log_probs[at], token_ids[at] = one.log_probs, one.token_ids
        if places is not None and one.places is not None:
            places[at] = one.places
    return log_probs, token_ids, places


def build_trees(
    marginals: Sequence[Marginals], bonus_token_ids: Sequence[int], budget: int, max_width: int | None = None
) -> list[DraftTree]:
    """One tree per sequence, of at most `budget` nodes below its bonus token and at most `max_width` candidates per depth (None: no limit).

    Of all trees with that many nodes, each has the largest expected number of accepted tokens under its marginals (proposition 2 there).
    Equal cumulative log-probabilities are ordered by depth, parent row and rank. Candidates of probability 0 are left out, so a tree may be
    smaller than the budget.

    Args:
        marginals: S of them over one vocabulary, on one device.
        bonus_token_ids: S roots.

    Raises:
        InvalidInput: if the lengths differ, the vocabularies differ, or logits that are read hold NaN or +inf.
    """
    if len(marginals) != len(bonus_token_ids):
        raise InvalidInput(f"There are {len(marginals)} marginals and {len(bonus_token_ids)} bonus tokens; each sequence needs both.")
    if budget == 0:
        return [DraftTree.single(token_id) for token_id in bonus_token_ids]
    logits = [one.logits for one in marginals]
    if all(native.can_read(one) for one in logits) and len({one.dtype for one in logits}) <= 1:
        batch = native.build_trees_from_logits(logits, bonus_token_ids, budget, max_width=max_width)
        return [tree_at(batch, index) for index in range(len(logits))]
    return _build_by_widening(marginals, bonus_token_ids, budget, max_width)


def _build_by_widening(
    marginals: Sequence[Marginals], bonus_token_ids: Sequence[int], budget: int, max_width: int | None
) -> list[DraftTree]:
    vocab_size = marginals[0].vocab_size
    num_candidates = min(vocab_size, max_width or vocab_size)
    num_ranks = min(num_candidates, budget, INITIAL_NUM_RANKS)
    trees: dict[int, DraftTree] = {}
    pending = list(range(len(marginals)))
    while pending:
        log_probs, token_ids = top_of([marginals[index] for index in pending], num_ranks)
        roots = [bonus_token_ids[index] for index in pending]
        batch = native.build_trees(log_probs, token_ids, roots, budget, has_more=num_ranks < num_candidates)
        trees.update((index, tree_at(batch, place)) for place, index in enumerate(pending) if not batch.needs_more[place])
        pending = [index for index in pending if index not in trees]
        num_ranks = min(2 * num_ranks, num_candidates, budget)
    return [trees[index] for index in range(len(marginals))]


def tree_at(batch: TreeBatch, index: int) -> DraftTree:
    """Tree `index` of the batch: views, no copies."""
    num_rows = batch.num_rows[index]
    num_words = (num_rows + 63) // 64
    return DraftTree(
        batch.token_ids[index, :num_rows],
        batch.parents[index, :num_rows],
        batch.depths[index, :num_rows],
        batch.ancestors[index, :num_rows, :num_words],
    )
