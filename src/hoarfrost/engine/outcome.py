"""What comes of a plan, sequence by sequence: accepted rows and chosen tokens, or a fault. Nothing is changed here.

This is the only place where tokens are chosen, and only rows that a walk visits are judged. A row that no token can be chosen from ends the
walk before it; the next round begins there. Where it is the root of a tree, the guesses behind it may be to blame (what is masked in
attention is multiplied by zero, and zero times NaN is NaN): nothing is accepted then, and the next round goes without guesses. A root that
stands alone has no excuse: its sequence ends with a fault.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import kernels
from hoarfrost.drafting.retrieval import NUM_SUCCESSORS
from hoarfrost.engine.plan import Part, Plan
from hoarfrost.errors import ModelFault
from hoarfrost.sampling import BestTokens, best_rows, likeliest_rows, not_finite
from hoarfrost.tree import DraftTree, Walk, walk

NO_TOKEN = -1


class Outcome(NamedTuple):
    """The accepted rows of a part, increasing; the tokens chosen, the last of which has no row yet; or the fault that ends the sequence."""

    rows: list[int]
    token_ids: list[int]
    fault: Exception | None = None


def best_tokens(plan: Plan, logits: Tensor) -> BestTokens | None:
    """The likeliest tokens behind every row `[n, V]`, as many as are wanted, `NO_TOKEN` where a row is not finite; nothing else is read of
    all rows."""
    if any(part.candidates is not None and part.sequence.tree.retrieval for part in plan.parts):
        return likeliest_rows(logits, min(NUM_SUCCESSORS, logits.shape[1]))
    is_greedy = any(part.sequence.chooser.is_greedy(len(part.sequence.token_ids)) for part in plan.parts)
    return BestTokens(best_rows(logits)[:, None]) if is_greedy else None


def accept(plan: Plan, logits: Tensor | None, best: BestTokens | None) -> list[Outcome]:
    """The outcome of every part, of the target's `logits [n, V]` and the likeliest tokens of all rows, if somebody asked for them."""
    likeliest = best.token_ids[:, 0] if best is not None else None
    outcomes, start = [], 0
    for part in plan.parts:
        if part.tree is None or logits is None:
            outcomes.append(Outcome(list(range(part.num_rows)), []))
            continue
        try:
            outcomes.append(_outcome(part, _walk(part, part.tree, logits, start, likeliest)))
        except Exception as error:  # a logits processor of the caller's may raise anything
            outcomes.append(Outcome([], [], error))
        start += part.num_logits
    return outcomes


def _outcome(part: Part, walked: Walk) -> Outcome:
    rows, token_ids = walked.rows, walked.token_ids
    if token_ids[-1] == NO_TOKEN:
        rows, token_ids = rows[:-1], token_ids[:-1]
        if not rows and part.num_logits == 1:
            return Outcome([], [], not_finite())
    return Outcome(rows if part.chunk is None else list(range(len(part.chunk))), token_ids)


def _walk(part: Part, tree: DraftTree, logits: Tensor, start: int, likeliest: NDArray[np.int64] | None) -> Walk:
    """Walks one tree, whose rows begin at `start` of the logits; the last token is `NO_TOKEN` where none can be chosen.

    One native call where the choices are plain argmaxes, of logits alone or of logits with noise. Anything else (filters, suppressed ends,
    processors of transformers, logits on another device) is asked for row by row.
    """
    sequence = part.sequence
    chooser, num_generated = sequence.chooser, len(sequence.token_ids)
    position = len(sequence.prompt_ids) + num_generated
    if likeliest is not None and chooser.is_greedy(num_generated):
        return Walk(*kernels.walk_along(tree.parents, tree.token_ids, likeliest[start : start + tree.num_rows]))
    if chooser.takes_all(num_generated) and kernels.can_read(logits):
        params = chooser.params
        return Walk(*kernels.walk_with_noise(tree.parents, tree.token_ids, logits, start, params.temperature, params.seed, position))
    depths = tree.depths.tolist()

    def choose(row: int) -> int:
        try:
            return chooser.choose(logits[start + row], position + depths[row], num_generated + depths[row])
        except ModelFault:
            return NO_TOKEN

    return walk(tree, choose)
