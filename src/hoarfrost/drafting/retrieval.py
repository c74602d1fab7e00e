"""Guesses that need no drafter: what the text so far and the target's earlier choices suggest. They cost a look-up, and no token depends
on them.

Two sources (arXiv 2304.04487 and 2408.08696 for the ideas):

- *Repetition*: where the longest repeated suffix of prompt and output occurred before, the text may go on as it did there. One path of
tokens.
- *Successors*: for every token of the vocabulary, the target's own best next tokens where that token was verified last, in rejected rows
  as well, and how probable they were there. A few children for every node. The table is shared by all requests of an engine.

What a source is worth is learnt: of the probability that the drafter's best candidates left over, the share that the source's token got.
That share is kept per matched length (repetition; a path's token at step j has j more tokens matched) and per grade (successors; steps of
the probability that they had).

The arithmetic is native (native/tree/retrieval.hpp; plain twin: `hoarfrost.drafting.plain`).
"""

from __future__ import annotations

import numpy as np

from hoarfrost import kernels

NUM_SUCCESSORS = 4

GRADES = np.array([0.02, 0.05, 0.12, 0.25, 0.4, 0.6, 0.8, 0.93], np.float32)
"""The probabilities at which a successor's next grade begins. The likeliest one of a token has grades of its own, behind the others': a
greedy choice is often the same again, however probable it was."""

GRADE_PRIORS = (0.005, 0.02, 0.04, 0.08, 0.15, 0.25, 0.35, 0.45, 0.6)
MAX_MATCH = 16
"""Tokens that match; more of them make a path no surer."""

PATH_PRIOR = 0.3
PRIOR_WEIGHT = 8.0


class Retrieval:
    """Both sources for one target: the table of successors, which all requests share, and what the sources are worth.

    That is kept apart for rounds with and without a drafter (whose guesses leave other things over) and for every temperature. The
    repetitions are the sequences' own (`kernels.Repetition`).
    """

    def __init__(self, vocab_size: int) -> None:
        self.table = kernels.SuccessorTable(vocab_size, NUM_SUCCESSORS, np.log(GRADES).tolist())
        self._shares: dict[tuple[bool, float], kernels.SourceShares] = {}

    def shares(self, is_drafted: bool, temperature: float) -> kernels.SourceShares:
        key = is_drafted, temperature
        if key not in self._shares:
            self._shares[key] = kernels.SourceShares(2 * GRADE_PRIORS, [PATH_PRIOR] * (MAX_MATCH + 1), PRIOR_WEIGHT)
        return self._shares[key]
