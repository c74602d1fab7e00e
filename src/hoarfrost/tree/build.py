"""Building draft trees: the likeliest prefixes under the drafter's marginals, best first (DDTree, arXiv 2604.12989, section 3).

The growth itself is native (`hoarfrost.kernels`; plain twin: `hoarfrost.tree.plain`). A node of rank r needs r better siblings in the tree,
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

from hoarfrost import kernels
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels import BuiltTree, TreeHints
from hoarfrost.tree.candidates import Candidates, candidates_of
from hoarfrost.tree.draft_tree import DraftTree
from hoarfrost.tree.marginals import Marginals

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
    trees, _ = kernels.build_trees([one.arrays for one in candidates], bonus_token_ids, budget, has_more=False, hints=hints)
    return [GrownTree(draft_tree(one), one.log_probs) for one in trees]


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
    if all(kernels.can_read(one) for one in logits):
        built = kernels.build_trees_from_logits(logits, bonus_token_ids, budget, max_width=max_width)
        return [draft_tree(one, guesses.token_ids) for one, guesses in zip(built, marginals, strict=True)]
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
        best = candidates_of([marginals[index] for index in pending], num_ranks)
        roots = [bonus_token_ids[index] for index in pending]
        built, needs_more = kernels.build_trees([one.arrays for one in best], roots, budget, has_more=num_ranks < num_candidates)
        trees.update((index, draft_tree(one)) for index, one, more in zip(pending, built, needs_more, strict=True) if not more)
        pending = [index for index in pending if index not in trees]
        num_ranks = min(2 * num_ranks, num_candidates, budget)
    return [trees[index] for index in range(len(marginals))]


def draft_tree(built: BuiltTree, token_ids_of_columns: NDArray[np.int64] | None = None) -> DraftTree:
    """The tree; its guesses are columns of logits where `token_ids_of_columns` says which tokens these stand for."""
    token_ids = built.token_ids
    if token_ids_of_columns is not None:
        token_ids = np.concatenate((token_ids[:1], token_ids_of_columns[token_ids[1:]]))
    return DraftTree(token_ids, built.parents, built.depths, built.ancestors)
