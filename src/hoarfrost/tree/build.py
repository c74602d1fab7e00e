"""Building draft trees: the likeliest prefixes under the drafter's marginals, best first (DDTree, arXiv 2604.12989, section 3).

The growth itself is native (`hoarfrost.native`; plain twin: `hoarfrost.tree.plain`). A node of rank r needs r better siblings in the tree,
so most trees ask for a few candidates per depth only. On the CPU the kernel reads logits as it grows; from another device the candidates
are fetched for the whole batch, few at first and twice as many whenever a tree asks for one that was not fetched. Either way the tree is
the one that all candidates at hand would give.
"""

from __future__ import annotations

from collections.abc import Sequence

from hoarfrost import native
from hoarfrost.errors import InvalidInput
from hoarfrost.native import TreeBatch
from hoarfrost.tree.config import TreeConfig
from hoarfrost.tree.draft_tree import DraftTree
from hoarfrost.tree.marginals import Marginals, top_of

INITIAL_NUM_RANKS = 32


def build_trees(marginals: Sequence[Marginals], bonus_token_ids: Sequence[int], config: TreeConfig) -> list[DraftTree]:
    """One tree per sequence, of at most `config.budget` nodes below its bonus token.

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
    if config.budget == 0:
        return [DraftTree.single(token_id) for token_id in bonus_token_ids]
    logits = [one.logits for one in marginals]
    if all(native.can_read(one) for one in logits) and len({one.dtype for one in logits}) <= 1:
        batch = native.build_trees_from_logits(logits, bonus_token_ids, config.budget, max_width=config.max_width)
        return [_tree_at(batch, index) for index in range(len(logits))]
    return _build_by_widening(marginals, bonus_token_ids, config)


def _build_by_widening(marginals: Sequence[Marginals], bonus_token_ids: Sequence[int], config: TreeConfig) -> list[DraftTree]:
    vocab_size = marginals[0].vocab_size
    num_candidates = min(vocab_size, config.max_width or vocab_size)
    num_ranks = min(num_candidates, config.budget, INITIAL_NUM_RANKS)
    trees: dict[int, DraftTree] = {}
    pending = list(range(len(marginals)))
    while pending:
        log_probs, token_ids = top_of([marginals[index] for index in pending], num_ranks)
        roots = [bonus_token_ids[index] for index in pending]
        batch = native.build_trees(log_probs, token_ids, roots, config.budget, has_more=num_ranks < num_candidates)
        trees.update((index, _tree_at(batch, place)) for place, index in enumerate(pending) if not batch.needs_more[place])
        pending = [index for index in pending if index not in trees]
        num_ranks = min(2 * num_ranks, num_candidates, config.budget)
    return [trees[index] for index in range(len(marginals))]


def _tree_at(batch: TreeBatch, index: int) -> DraftTree:
    """Tree `index` of the batch: views, no copies."""
    num_rows = batch.num_rows[index]
    num_words = (num_rows + 63) // 64
    return DraftTree(
        batch.token_ids[index, :num_rows],
        batch.parents[index, :num_rows],
        batch.depths[index, :num_rows],
        batch.ancestors[index, :num_rows, :num_words],
    )
