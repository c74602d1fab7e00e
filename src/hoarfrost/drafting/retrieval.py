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
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoarfrost.native import SuffixIndex

NUM_SUCCESSORS = 4
MAX_PATH = 24
"""Tokens of a repetition that are proposed at most."""

GRADES = np.array([0.02, 0.05, 0.12, 0.25, 0.4, 0.6, 0.8, 0.93], np.float32)
"""The probabilities at which a successor's next grade begins. The likeliest one of a token has grades of its own, behind the others': a
greedy choice is often the same again, however probable it was."""

_MAX_MATCH = 16  # longer matches are no surer
_GRADE_PRIORS = (0.005, 0.02, 0.04, 0.08, 0.15, 0.25, 0.35, 0.45, 0.6)
_NUM_GRADES = len(_GRADE_PRIORS)
_LOG_GRADES = np.log(GRADES)
_MEMORY = 0.999
_MAX_WEIGHT = 1e6
_MAX_SHARE = 0.95


class Shares:
    """Per bucket, the share of the left-over probability that a source's token turned out to get: `values` float32 [num_buckets]."""

    def __init__(self, priors: Sequence[float], prior_weight: float = 8.0) -> None:
        self._hits = [prior * prior_weight for prior in priors]
        self._chances = [prior_weight] * len(priors)
        self._weight = 1.0  # of an observation now; that the older ones count less is that the newer ones count more
        self.values = np.array(priors, np.float32)

    def forget(self) -> None:
        """A round has passed: what was seen before counts a little less."""
        self._weight /= _MEMORY
        if self._weight > _MAX_WEIGHT:
            self._hits = [one / self._weight for one in self._hits]
            self._chances = [one / self._weight for one in self._chances]
            self._weight = 1.0

    def observe(self, bucket: int, is_hit: bool, chance: float) -> None:
        """Whether the source's token was chosen against the drafter's best, which had left over `chance` for it."""
        hits = self._hits[bucket] = self._hits[bucket] + self._weight * is_hit
        chances = self._chances[bucket] = self._chances[bucket] + self._weight * chance
        self.values[bucket] = min(hits / max(chances, 1e-3 * self._weight), _MAX_SHARE)


class Repetition:
    """The text of one sequence, and where its end occurred before."""

    def __init__(self) -> None:
        self._index = SuffixIndex()
        self._token_ids = np.empty(256, np.int64)

    def __len__(self) -> int:
        """Tokens of the text taken in so far."""
        return len(self._index)

    def extend(self, token_ids: Sequence[int]) -> None:
        """Takes in what was added to the text."""
        start, end = len(self._index), len(self._index) + len(token_ids)
        if end > len(self._token_ids):
            self._token_ids = np.concatenate((self._token_ids[:start], np.empty(max(end, 2 * start) - start, np.int64)))
        self._token_ids[start:end] = token_ids
        self._index.extend(self._token_ids[start:end])

    def path(self) -> tuple[NDArray[np.int64], int]:
        """The tokens that followed the end of the text where it occurred before, int64 [0..MAX_PATH], and how many tokens match."""
        length, end = self._index.longest_match()
        return self._token_ids[end : min(end + MAX_PATH, len(self._index))] if length else self._token_ids[:0], length


class SourceShares:
    """What both sources have turned out to be worth, for one kind of rounds."""

    def __init__(self) -> None:
        self.successors = Shares(2 * _GRADE_PRIORS)
        self._paths = Shares([0.3] * (_MAX_MATCH + 1))

    def of_path(self, matched: int, length: int) -> NDArray[np.float32]:
        """float32 [length] for the tokens of a path whose first `matched` tokens agree with the text."""
        return self._paths.values[np.minimum(np.arange(matched, matched + length), _MAX_MATCH)]

    def observe(
        self,
        successors: Sequence[Sequence[int]],
        grades: Sequence[Sequence[int]],
        chosen: Sequence[int],
        left_over: Sequence[float],
        is_open: Sequence[bool],
        path: Sequence[int],
        matched: int,
    ) -> None:
        """Learns from the m rows of one walk.

        Args:
            successors: m of at most NUM_SUCCESSORS, what was remembered behind the rows' tokens (-1: nothing further).
            grades: m of as many, the successors'.
            chosen: m, the target's choices there.
            left_over: m, the probability that the drafter's best candidates left over there.
            is_open: m, whether the choice was none of them.
            path, matched: what `Repetition.path` gave for this round.
        """
        self.successors.forget()
        self._paths.forget()
        on_path = True
        for row, token_id in enumerate(chosen):
            for successor, grade in zip(successors[row], grades[row], strict=True):
                if successor >= 0:
                    self.successors.observe(grade, is_open[row] and successor == token_id, left_over[row])
            if on_path and row < len(path):
                on_path = path[row] == token_id
                self._paths.observe(min(matched + row, _MAX_MATCH), is_open[row] and on_path, left_over[row])


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
        self.successors[token_ids, : best.shape[1]] = best
        grades = np.searchsorted(_LOG_GRADES, log_probs)
        grades[:, 0] += _NUM_GRADES
        self.grades[token_ids, : best.shape[1]] = grades
