"""A drafter for tests that knows what will be said, with gaps: trees are then accepted for several tokens, and not for all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from reference import ToldDraftState
from torch import Tensor

from hoarfrost.tree import Marginals


class KnowingDrafter:
    """Guesses, on `device`, along every one of `known` (whole sequences, prompt included) that holds the bonus token at its position; at
    every fifth position it guesses at random."""

    name, horizon, taps, row_bytes = "knowing", 6, (0, 2), 0

    def __init__(self, vocab_size: int, known: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> None:
        self.vocab_size, self.known, self.device = vocab_size, known, device

    def new_state(self, capacity: int = 256) -> ToldDraftState:
        return ToldDraftState()

    def extend(self, states: Sequence[ToldDraftState], features: Sequence[Tensor]) -> None:
        for state, part in zip(states, features, strict=True):
            state.num_rows += len(part)

    def propose(self, states: Sequence[ToldDraftState], bonus_token_ids: Sequence[int]) -> list[Marginals]:
        return [self._guess(len(state), bonus) for state, bonus in zip(states, bonus_token_ids, strict=True)]

    def _guess(self, position: int, bonus: int) -> Marginals:
        logits = torch.randn(self.horizon, self.vocab_size, generator=torch.Generator().manual_seed(position))
        for sequence in self.known:
            if sequence[position : position + 1] == [bonus]:
                for depth, token_id in enumerate(sequence[position + 1 : position + 1 + self.horizon]):
                    if (position + depth) % 5:
                        logits[depth, token_id] += 12
        return Marginals(logits.to(self.device))
