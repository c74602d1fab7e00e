"""Plain twins that more than one test file compares against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.target import Target
from hoarfrost.tree import Conditionals, Marginals


def plain_attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`softmax(q k^T scale) v` in float64 under a bool mask `[n, T]`, K and V repeated for every head. Returns `[n, H, D]`."""
    group = queries.shape[0] // keys.shape[0]
    keys, values = (x.double().repeat_interleave(group, 0) for x in (keys, values))
    scores = (queries.double() @ keys.transpose(1, 2) * scale).masked_fill(~mask, float("-inf"))
    return (scores.softmax(-1) @ values).transpose(0, 1)


class ToldDraftState:
    """Counts the rows that a drafter was given, as every draft state does."""

    def __init__(self) -> None:
        self.num_rows = 0

    def __len__(self) -> int:
        return self.num_rows


class RandomSelector:
    """Implements `Selector` by chance, which depends on the positions of the bonus tokens only."""

    num_candidates = 5

    def __init__(self, positions: list[int]) -> None:
        self.positions = positions

    def weigh(
        self, rows: Sequence[int], log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], temperatures: Sequence[float]
    ) -> NDArray[np.float32]:
        assert log_probs.shape == token_ids.shape == (len(rows), RandomDrafter.horizon, self.num_candidates)
        assert len(temperatures) == len(rows)
        assert (np.diff(log_probs, axis=-1) <= 0).all(), "best first"
        generators = [torch.Generator().manual_seed(self.positions[row]) for row in rows]
        drawn = [torch.randn(*token_ids.shape[1:], 5, generator=generator).log_softmax(-1).numpy() for generator in generators]
        return np.where(np.isfinite(log_probs)[:, :, None], np.stack(drawn), -np.inf).astype(np.float32)


class RandomDrafter:
    """A drafter of random guesses, on the target's device, or (`told`) of the right ones; it checks what the engine promises every drafter.

    `told` is the whole sequence, prompt included. Guesses depend on the position only, so that runs can be compared. `conditional` ones are
    transitions between five candidates a depth.
    """

    name, horizon, taps, row_bytes = "random", 6, (0, 2), 0

    def __init__(self, target: Target, told: list[int] | None, conditional: bool) -> None:
        self.vocab_size, self.device = target.vocab_size, target.device
        self.num_features = len(self.taps) * target.hidden_size
        self.told, self.conditional = told, conditional

    def new_state(self, capacity: int = 256) -> ToldDraftState:
        return ToldDraftState()

    def extend(self, states: Sequence[ToldDraftState], features: Sequence[Tensor]) -> None:
        for state, part in zip(states, features, strict=True):
            assert part.shape[1] == self.num_features
            assert part.device == self.device
            state.num_rows += len(part)

    def propose(self, states: Sequence[ToldDraftState], bonus_token_ids: Sequence[int]) -> list[Marginals | Conditionals]:
        assert len(states) == len(bonus_token_ids)
        guesses = [self._guess(len(state), bonus) for state, bonus in zip(states, bonus_token_ids, strict=True)]
        if not self.conditional:
            return list(guesses)
        selector = RandomSelector([len(state) for state in states])
        return [Conditionals(one, selector, row) for row, one in enumerate(guesses)]

    def _guess(self, position: int, bonus: int) -> Marginals:
        logits = torch.randn(self.horizon, self.vocab_size, generator=torch.Generator().manual_seed(position))
        if self.told is not None:
            assert self.told[position] == bonus, "the bonus token stands right behind the committed rows"
            for depth, token in enumerate(self.told[position + 1 : position + 1 + self.horizon]):
                logits[depth, token] += 20
        return Marginals(logits.to(self.device))


def random_drafter(target: Target, told: list[int] | None = None, conditional: bool = False) -> RandomDrafter:
    return RandomDrafter(target, told, conditional)
