"""A drafter for tests that knows what will be said, and errs: walks then go deep, turn aside, and end at any depth."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from integrations.knowing_drafter import KnowingDrafter

from hoarfrost.tree import Marginals


class ErringDrafter(KnowingDrafter):
    """Along the one of `known` (whole sequences, prompt included) that holds the bonus token at its place, the right token comes first with
    probability `p`; else it comes second or third, or is anywhere. Guesses depend on the position alone."""

    name = "erring"

    def __init__(self, vocab_size: int, known: Sequence[Sequence[int]], p: float) -> None:
        super().__init__(vocab_size, known)
        self.p = p

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
