"""The state of one request that is being decoded: its tokens, where their keys and values are, and what the drafter has yet to see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hoarfrost.cache import Store
from hoarfrost.drafting import DraftState
from hoarfrost.engine.output import Output
from hoarfrost.kernels import Repetition
from hoarfrost.sampling import Chooser, SamplingParams
from hoarfrost.tree import TreeConfig


class PendingFeatures(NamedTuple):
    """Hidden states for a drafter that may be asked much later: those of `start + row` in `features`, for each of the committed `rows`."""

    features: Tensor
    start: int
    rows: list[int]

    def chosen(self) -> Tensor:
        """No copy where the rows lie side by side."""
        if self.rows[-1] != len(self.rows) - 1:
            return self.features[[self.start + row for row in self.rows]]
        return self.features[self.start : self.start + len(self.rows)]


@dataclass(eq=False)
class Sequence:
    """Committed rows are in `store`. Once the prompt is read, the last of `token_ids` is the bonus token, whose row is not stored yet."""

    id: int
    prompt_ids: list[int]
    params: SamplingParams
    tree: TreeConfig
    store: Store
    draft_state: DraftState | None
    chooser: Chooser
    output: Output
    num_bytes: int = 0
    """What its keys and values may come to."""
    digests: list[bytes] = field(default_factory=list)
    """Of the prompt's whole chunks (`prefixes.digests_of`), where their rows may be copied."""
    token_ids: list[int] = field(default_factory=list)
    pending_features: list[PendingFeatures] = field(default_factory=list)
    """The target's hidden states that the drafter has not taken in yet, in order."""
    repetition: Repetition = field(default_factory=Repetition)
    """Where the text repeats itself, as far as somebody asked."""
    distrusts_guesses: bool = False
    """The root of the last round was not finite, and guesses stood behind it: the next one goes without."""

    def features(self, num_kept: int) -> Tensor:
        """The pending features as one, but for those of the last `num_kept` rounds."""
        parts = [pending.chosen() for pending in self.pending_features[: len(self.pending_features) - num_kept]]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def go_plainly(self) -> None:
        """Decodes without guesses from here on."""
        self.tree, self.draft_state = TreeConfig.autoregressive(), None
        self.pending_features.clear()

    def tokens_from(self, start: int) -> list[int]:
        """The tokens of prompt and answer from the place `start` on."""
        behind = start - len(self.prompt_ids)
        return self.token_ids[behind:] if behind >= 0 else self.prompt_ids[start:] + self.token_ids

    @property
    def is_reading(self) -> bool:
        """Whether the prompt is not read to its end yet."""
        return not self.token_ids

    @property
    def bonus_token_id(self) -> int:
        return self.token_ids[-1]

    @property
    def num_remaining(self) -> int:
        """Tokens that may still be emitted."""
        return self.params.max_new_tokens - len(self.token_ids)

    def is_in_step(self, draft_state: DraftState) -> bool:
        """Whether the drafter knows every committed row, but for those that are pending."""
        return len(draft_state) + sum([len(pending.rows) for pending in self.pending_features]) == self.store.length

    def check_integrity(self) -> None:
        """Between rounds the store holds every token but the bonus token, and the drafter has seen or will see as many."""
        num_stored = self.store.length
        if self.is_reading:
            assert num_stored < len(self.prompt_ids), f"request {self.id}: {num_stored} rows of {len(self.prompt_ids)}, and no token"
        else:
            num_tokens = len(self.prompt_ids) + len(self.token_ids)
            assert num_stored == num_tokens - 1, f"request {self.id}: {num_stored} rows for {num_tokens} tokens"
        if self.draft_state is not None:
            assert self.is_in_step(self.draft_state), f"request {self.id}: the drafter knows {len(self.draft_state)} rows of {num_stored}"
        assert self.output.finish_reason is None, f"request {self.id} has ended"
