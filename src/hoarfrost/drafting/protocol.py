"""What the engine asks of a drafter: anything that turns committed rows and a bonus token into marginals of the tokens that may follow.

A drafter keeps one state per sequence. The engine hands it the target's hidden states of every row that was committed, and nothing else; so
`len(state)`, the number of rows taken in, equals the length of the target's store after each commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from hoarfrost.tree import Conditionals, Marginals


class DraftState(Protocol):
    """What a drafter remembers of one sequence."""

    def __len__(self) -> int:
        """Number of committed rows taken in so far, which is also the position of the next bonus token."""
        ...


class Drafter(Protocol):
    """A source of guesses, batched over sequences."""

    @property
    def name(self) -> str:
        """Where the drafter came from, for reports."""
        ...

    @property
    def horizon(self) -> int:
        """Number of positions guessed per call of `propose`."""
        ...

    @property
    def taps(self) -> tuple[int, ...]:
        """Decoder layers of the target whose outputs the drafter reads; 0 is the first layer."""
        ...

    @property
    def row_bytes(self) -> int:
        """What a state grows by with every committed row."""
        ...

    def new_state(self, capacity: int = 256) -> DraftState:
        """An empty state with room for `capacity` rows before it has to grow."""
        ...

    def extend(self, states: Sequence[DraftState], features: Sequence[Tensor]) -> None:
        """Takes in newly committed rows: `features[i] [m_i, len(taps) * H]` belong to `states[i]`, at positions `len(state)` onwards."""
        ...

    def propose(self, states: Sequence[DraftState], bonus_token_ids: Sequence[int]) -> Sequence[Marginals | Conditionals]:
        """Guesses of the tokens after each sequence's bonus token, which stands at position `len(state)`: marginals `[horizon, V]`, or
        these and a selector that can weigh candidates after each other."""
        ...
