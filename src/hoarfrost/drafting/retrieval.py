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

The arithmetic is native (native/retrieval.hpp; plain twin: `hoarfrost.drafting.plain`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoarfrost import native

NUM_SUCCESSORS = 4
MAX_PATH = 24
"""Tokens of a repetition that are proposed at most."""

GRADES = np.array([0.02, 0.05, 0.12, 0.25, 0.4, 0.6, 0.8, 0.93], np.float32)
"""The probabilities at which a successor's next grade begins. The likeliest one of a token has grades of its own, behind the others': a
greedy choice is often the same again, however probable it was."""

MAX_MATCH = 16
"""Tokens that match; more of them make a path no surer."""

LOG_GRADES = np.log(GRADES)
GRADE_PRIORS = (0.005, 0.02, 0.04, 0.08, 0.15, 0.25, 0.35, 0.45, 0.6)
PATH_PRIOR = 0.3


def path_of(text: native.Repetition) -> tuple[NDArray[np.int64], int]:
    """The tokens that followed the end of a text where it occurred before, int64 [0..MAX_PATH], and how many tokens match."""
    return text.continuation(MAX_PATH), text.longest_match()[0]


class SourceShares:
    """What both sources have turned out to be worth, for one kind of rounds: of the probability that the drafter left over, the share that
    a successor of each grade got, and the next token of a path behind each number of matching tokens."""

    def __init__(self) -> None:
        self.successors = native.Shares(2 * GRADE_PRIORS)
        self._paths = native.Shares([PATH_PRIOR] * (MAX_MATCH + 1))

    def of_path(self, matched: int, length: int) -> NDArray[np.float32]:
        """float32 [length] for the tokens of a path whose first `matched` tokens agree with the text."""
        return self._paths.tail(matched, length)

    def observe(
        self,
        retrieval: Retrieval,
        root: int,
        chosen: Sequence[int],
        path: NDArray[np.int64],
        matched: int,
        left_over: NDArray[np.float64] | None = None,
        is_open: NDArray[np.bool_] | None = None,
    ) -> None:
        """Learns from the m rows of one walk.

        Args:
            retrieval: what was remembered behind the rows' tokens when the guesses were made.
            root, chosen: the token of the root; m, the target's choices. The tokens of the other rows are those chosen before them.
            path, matched: what `path_of` gave for this round.
            left_over: float64 [m], the probability that the drafter's best candidates left over there; None: all of it.
            is_open: bool [m], whether the choice was none of them; None: everywhere.
        """
        native.judge_sources(
            retrieval.successors, retrieval.grades, self.successors, self._paths, path, matched, root, chosen, left_over, is_open
        )


class Retrieval:
    """Both sources for one target: the table of successors, which all requests share, and what the sources are worth.

    That is kept apart for rounds with and without a drafter (whose guesses leave other things over) and for every temperature.
    """

    def __init__(self, vocab_size: int) -> None:
        self.successors = np.full((vocab_size, NUM_SUCCESSORS), -1, np.int32)
        self.grades = np.zeros((vocab_size, NUM_SUCCESSORS), np.uint8)
        self._shares: dict[tuple[bool, float], SourceShares] = {}

    def shares(self, is_drafted: bool, temperature: float) -> SourceShares:
        key = is_drafted, temperature
        if key not in self._shares:
            self._shares[key] = SourceShares()
        return self._shares[key]

    def remember(self, token_ids: NDArray[np.int64], best: NDArray[np.int64], log_probs: NDArray[np.float32]) -> None:
        """Notes the target's best next tokens `best [n, NUM_SUCCESSORS]` behind the verified `token_ids [n]`, and `log_probs` of these."""
        native.remember(self.successors, self.grades, token_ids, best, log_probs, LOG_GRADES)
