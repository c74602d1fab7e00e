"""A drafter for tests that knows what will be said, and errs: walks then go deep, turn aside, and end at any depth."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from reference import ToldDraftState
from torch import Tensor

from hoarfrost.tree import Marginals


class ErringDrafter:
    """Along the one of `known` (whole sequences, prompt included) that holds the bonus token at its place, the right token comes first with
    probability `p`; else it comes second or third, or is anywhere. Guesses depend on the position alone."""

    name, horizon, taps = "erring", 6, (0, 2)

    def __init__(self, vocab_size: int, known: Sequence[Sequence[int]], p: float) -> None:
        self.vocab_size, self.known, self.p = vocab_size, known, p

    def new_state(self, capacity: int = 256) -> ToldDraftState:
        return ToldDraftState()

    def extend(self, states: Sequence[ToldDraftState], features: Sequence[Tensor]) -> None:
        for state, part in zip(states, features, strict=True):
            state.num_rows += len(part)

    def propose(self, states: Sequence[ToldDraftState], bonus_token_ids: Sequence[int]) -> list[Marginals]:
        return [self._guess(len(state), bonus) for state, bonus in zip(states, bonus_token_ids, strict=True)]

    def _guess(self, position: int, bonus: int) -> Marginals:
        chance = random.Random(f"{position} {bonus}")
        logits = torch.randn(self.horizon, self.vocab_size, generator=torch.Generator().manual_seed(position))
        for sequence in self.known:
            if sequence[position : position + 1] == [bonus]:
                for depth, token_id in enumerate(sequence[position + 1 : position + 1 + self.horizon]):
                    others = [chance.randrange(self.vocab_size) for _ in range(2)]
                    logits[depth, others] = torch.tensor([8.0, 7.0])
                    logits[depth, token_id] = 9.0 if chance.random() < self.p else chance.choice([7.5, 6.5, float(logits[depth, token_id])])
        return Marginals(logits)
