"""The loop: prefill once, then rounds of draft, build, verify, walk and commit.

Plain decoding is a round with a tree of one row, the DFlash chain a round with one branch. All sequences of a round are verified in one
packed row of tokens. What a round emits depends on the target, the prompt and the sampling parameters alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Many

import torch
from torch import Tensor

from hoarfrost.drafting.retrieval import NUM_SUCCESSORS
from hoarfrost.engine.guessing import Guess, Guesser
from hoarfrost.engine.sequence import PendingFeatures, Piece, Sequence
from hoarfrost.engine.statistics import StageClock
from hoarfrost.engine.walking import walk_of
from hoarfrost.sampling import BestTokens, best_rows, likeliest_rows
from hoarfrost.target import PackedRows
from hoarfrost.tree import DraftTree, TreeConfig, Walk

PREFILL_CHUNK = 512


class DecodingLoop:
    """Runs rounds over sequences with one guesser (and its target and drafter) and one tree setting."""

    def __init__(self, guesser: Guesser, tree: TreeConfig) -> None:
        self.guesser, self.target, self.tree = guesser, guesser.target, tree
        self.drafter = guesser.drafter if tree.budget else None
        self._taps = self.drafter.taps if self.drafter else ()
        guesser.prepare(tree)

    @torch.inference_mode()
    def prefill(self, sequence: Sequence) -> Piece:
        """Reads the prompt in chunks and emits the first token."""
        began = time.perf_counter()
        prompt = sequence.prompt_ids
        for start in range(0, len(prompt), PREFILL_CHUNK):
            chunk = prompt[start : start + PREFILL_CHUNK]
            hidden, features = self.target.forward(PackedRows.from_chunk(sequence.store, chunk, self.target.device), self._taps)
            sequence.store.commit(range(len(chunk)))
            if self.drafter is not None and sequence.draft_state is not None and features is not None:
                self.drafter.extend([sequence.draft_state], [features])
        sequence.store.start_decoding()
        token_id = sequence.chooser.choose(self.target.logits(hidden[-1:])[0], len(prompt), 0)
        piece = sequence.emit([token_id], 0)
        sequence.statistics.prefill_seconds = time.perf_counter() - began
        return piece

    @torch.inference_mode()
    def round(self, sequences: Many[Sequence]) -> list[Piece]:
        """One round over all `sequences`; returns the piece that each of them emits."""
        clock = StageClock()
        guesses = self.guesser.guess(sequences, self.tree, clock)
        trees = [guess.tree for guess in guesses]
        stores = [sequence.store for sequence in sequences]
        hidden, features = self.target.forward(PackedRows.from_trees(stores, trees, self.target.device), self._taps)
        logits = self.target.logits(hidden)
        best = self._best(sequences, guesses, self.tree.retrieval, logits)
        clock.lap("verify")
        walks = self._walk(sequences, trees, logits, best)
        self._commit(sequences, trees, walks, features)
        self.guesser.learn(sequences, guesses, walks, best, self.tree)
        clock.lap("walk")
        pieces = [sequence.emit(walked.token_ids, len(walked.rows) - 1) for sequence, walked in zip(sequences, walks, strict=True)]
        clock.lap("host")
        self.guesser.conclude(walks, sum(clock.seconds.values()))
        for sequence in sequences:
            sequence.statistics.record_times(clock.seconds)
        return pieces

    @staticmethod
    def _best(sequences: Many[Sequence], guesses: Many[Guess], retrieves: bool, logits: Tensor) -> BestTokens | None:
        """The likeliest tokens behind every row, as many as are wanted; the only thing that is read of all rows."""
        if retrieves and any(guess.candidates is not None for guess in guesses):
            return likeliest_rows(logits, min(NUM_SUCCESSORS, logits.shape[1]))
        is_greedy = any(sequence.chooser.is_greedy(len(sequence.token_ids)) for sequence in sequences)
        return BestTokens(best_rows(logits)[:, None]) if is_greedy else None

    @staticmethod
    def _walk(sequences: Many[Sequence], trees: list[DraftTree], logits: Tensor, best: BestTokens | None) -> list[Walk]:
        """Walks every tree."""
        likeliest = best.token_ids[:, 0] if best is not None else None
        walks, start = [], 0
        for sequence, tree in zip(sequences, trees, strict=True):
            walks.append(walk_of(sequence, tree, logits, start, likeliest))
            sequence.statistics.record_walk(len(walks[-1].token_ids))
            start += tree.num_rows
        return walks

    @staticmethod
    def _commit(sequences: Many[Sequence], trees: list[DraftTree], walks: list[Walk], features: Tensor | None) -> None:
        """Keeps the accepted rows in the stores, and their features (rows of the packed row) for the drafter."""
        start = 0
        for sequence, tree, walked in zip(sequences, trees, walks, strict=True):
            sequence.store.commit(walked.rows)
            if features is not None and sequence.draft_state is not None:
                sequence.pending_features.append(PendingFeatures(features, start, walked.rows))
            start += tree.num_rows
