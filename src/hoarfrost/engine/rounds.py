"""The loop: prefill once, then rounds of draft, build, verify, walk and commit.

Plain decoding is a round with a tree of one row, the DFlash chain a round with one branch. All sequences of a round are verified in one
packed row of tokens. What a round emits depends on the target, the prompt and the sampling parameters alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Many

import torch
from torch import Tensor

from hoarfrost.drafting import Drafter
from hoarfrost.engine.sequence import Piece, Sequence
from hoarfrost.engine.statistics import StageClock
from hoarfrost.sampling import choose_greedy_rows
from hoarfrost.target import PackedRows, Target
from hoarfrost.tree import DraftTree, Marginals, TreeConfig, build_trees, walk

PREFILL_CHUNK = 512


class DecodingLoop:
    """Runs rounds over sequences with one target, one drafter (or none) and one tree setting."""

    def __init__(self, target: Target, drafter: Drafter | None, tree: TreeConfig) -> None:
        self.target, self.tree = target, tree
        self.drafter = drafter if tree.budget else None
        self._taps = self.drafter.taps if self.drafter else ()

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
        token_id = sequence.chooser.choose(self.target.logits(hidden[-1:])[0], len(prompt), 0)
        piece = sequence.emit([token_id], 0)
        sequence.statistics.prefill_seconds = time.perf_counter() - began
        return piece

    @torch.inference_mode()
    def round(self, sequences: Many[Sequence]) -> list[Piece]:
        """One round over all `sequences`; returns the piece that each of them emits."""
        clock = StageClock()
        marginals = self._draft(sequences)
        clock.lap("draft")
        trees = self._build(sequences, marginals)
        clock.lap("build")
        stores = [sequence.store for sequence in sequences]
        hidden, features = self.target.forward(PackedRows.from_trees(stores, trees, self.target.device), self._taps)
        logits = self.target.logits(hidden)
        pieces, kept = self._walk(sequences, trees, logits, clock)
        if self.drafter is not None and features is not None:
            self._extend(self.drafter, sequences, features, kept)
            clock.lap("draft")
        for sequence in sequences:
            sequence.statistics.record_times(clock.seconds)
        return pieces

    def _draft(self, sequences: Many[Sequence]) -> list[Marginals] | None:
        if self.drafter is None:
            return None
        states = [sequence.draft_state for sequence in sequences if sequence.draft_state is not None]
        return self.drafter.propose(states, [sequence.bonus_token_id for sequence in sequences])

    def _build(self, sequences: Many[Sequence], marginals: list[Marginals] | None) -> list[DraftTree]:
        if marginals is None:
            return [DraftTree.single(sequence.bonus_token_id) for sequence in sequences]
        # A token past the last one that may be emitted need not be guessed.
        useful = [Marginals(m.logits[: sequence.num_remaining - 1]) for m, sequence in zip(marginals, sequences, strict=True)]
        return build_trees(useful, [sequence.bonus_token_id for sequence in sequences], self.tree)

    def _walk(
        self, sequences: Many[Sequence], trees: list[DraftTree], logits: Tensor, clock: StageClock
    ) -> tuple[list[Piece], list[list[int]]]:
        """Walks every tree and commits; returns the pieces and, per sequence, its accepted rows as rows of the packed row."""
        greedy = choose_greedy_rows(logits) if any(s.chooser.is_greedy(len(s.token_ids)) for s in sequences) else None
        clock.lap("verify")
        pieces, kept, start = [], [], 0
        for sequence, tree in zip(sequences, trees, strict=True):
            walked = walk(tree, self._choice(sequence, tree, logits, greedy, start))
            sequence.store.commit(walked.rows)
            sequence.statistics.record_walk(len(walked.token_ids))
            kept.append([start + row for row in walked.rows])
            clock.lap("walk")
            pieces.append(sequence.emit(walked.token_ids, len(walked.rows) - 1))
            clock.lap("host")
            start += tree.num_rows
        return pieces, kept

    @staticmethod
    def _choice(sequence: Sequence, tree: DraftTree, logits: Tensor, greedy: list[int] | None, start: int) -> Callable[[int], int]:
        """The target's token at a row of `sequence`'s tree, whose first row is row `start` of the packed row."""
        num_generated, position = len(sequence.token_ids), sequence.store.length + 1
        if greedy is not None and sequence.chooser.is_greedy(num_generated):
            return lambda row: greedy[start + row]
        depths = tree.depths
        return lambda row: sequence.chooser.choose(logits[start + row], position + int(depths[row]), num_generated + int(depths[row]))

    @staticmethod
    def _extend(drafter: Drafter, sequences: Many[Sequence], features: Tensor, kept: list[list[int]]) -> None:
        states, parts = [], []
        for sequence, rows in zip(sequences, kept, strict=True):
            if sequence.draft_state is not None and sequence.finish_reason is None:
                states.append(sequence.draft_state)
                parts.append(features[rows])
        if states:
            drafter.extend(states, parts)
