"""Guesses that need no drafter: what the text so far and the target's earlier choices suggest. They cost a look-up, and no token depends
on them.

Two sources (arXiv 2304.04487 and 2408.08696 for the ideas):

- *Repetition*: where the longest repeated suffix of prompt and output occurred before, the text may go on as it did there. One path of
tokens.
- *Successors*: for every token of the vocabulary, the target's own best next tokens where that token was verified last, in rejected rows
  as well. A few children for every node. The table is shared by all requests of an engine.

What a source is worth is learnt: of the probability that the drafter's best candidates left over, the share that the source's token got.
That share is kept per matched length (repetition; a path's token at step j has j more tokens matched) and per rank (successors).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoarfrost.native import SuffixIndex

NUM_SUCCESSORS = 4
MAX_PATH = 24
"""Tokens of a repetition that are proposed at most."""

_MAX_MATCH = 16  # longer matches are no surer
_MEMORY = 0.999
_MAX_SHARE = 0.95


class Shares:
    """Per bucket, the share of the left-over probability that a source's token turned out to get."""

    def __init__(self, num_buckets: int, prior: float, prior_weight: float = 8.0) -> None:
        self._hits = np.full(num_buckets, prior * prior_weight)
        self._chances = np.full(num_buckets, prior_weight)
        self.values = np.full(num_buckets, prior, np.float32)

    def observe(self, buckets: NDArray[np.intp], hits: NDArray[np.bool_], chances: NDArray[np.float64]) -> None:
        """One observation per entry: whether the source's token was chosen against the drafter's best, and what was left over for it."""
        self._hits *= _MEMORY
        self._chances *= _MEMORY
        self._hits += np.bincount(buckets, hits, len(self._hits))
        self._chances += np.bincount(buckets, chances, len(self._hits))
        self.values = np.clip(self._hits / np.maximum(self._chances, 1e-3), 0.0, _MAX_SHARE).astype(np.float32)


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


class Retrieval:
    """Both sources with their learnt shares, for one target."""

    def __init__(self, vocab_size: int) -> None:
        self.successors = np.full((vocab_size, NUM_SUCCESSORS), -1, np.int32)
        self._successor_shares = Shares(NUM_SUCCESSORS, prior=0.1)
        self._path_shares = Shares(_MAX_MATCH + 1, prior=0.3)

    @property
    def successor_shares(self) -> NDArray[np.float32]:
        """float32 [NUM_SUCCESSORS]."""
        return self._successor_shares.values

    def path_shares(self, matched: int, length: int) -> NDArray[np.float32]:
        """float32 [length] for the tokens of a path whose first `matched` tokens agree with the text."""
        return self._path_shares.values[_match_buckets(matched, length)]

    def remember(self, token_ids: NDArray[np.int64], best: NDArray[np.int64]) -> None:
        """Notes the target's best next tokens `best [n, NUM_SUCCESSORS]` behind the verified `token_ids [n]`."""
        self.successors[token_ids] = best

    def observe(
        self,
        row_tokens: NDArray[np.int64],
        chosen: NDArray[np.int64],
        left_over: NDArray[np.float64],
        is_open: NDArray[np.bool_],
        path: NDArray[np.int64],
        matched: int,
    ) -> None:
        """Learns from the rows of one walk, before `remember`.

        Args:
            row_tokens, chosen: int64 [m], the visited rows' tokens and the target's choices behind them.
            left_over: [m], the probability that the drafter's best candidates left over there.
            is_open: bool [m], whether the choice was none of them.
            path, matched: what `Repetition.path` gave for this round.
        """
        successors = self.successors[row_tokens]
        row, rank = np.nonzero(successors >= 0)
        hits = (successors[row, rank] == chosen[row]) & is_open[row]
        self._successor_shares.observe(rank, hits, left_over[row])
        num_compared = min(len(path), len(chosen))
        agrees = path[:num_compared] == chosen[:num_compared]
        num_followed = num_compared if agrees.all() else int(agrees.argmin()) + 1
        if num_followed:
            buckets = _match_buckets(matched, num_followed)
            self._path_shares.observe(buckets, agrees[:num_followed] & is_open[:num_followed], left_over[:num_followed])


def _match_buckets(matched: int, length: int) -> NDArray[np.intp]:
    return np.minimum(np.arange(matched, matched + length), _MAX_MATCH)
