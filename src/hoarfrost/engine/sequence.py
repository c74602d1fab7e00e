"""One prompt being decoded, and what is handed out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from hoarfrost.cache import Store
from hoarfrost.drafting import DraftState
from hoarfrost.engine.statistics import Statistics
from hoarfrost.kernels import Repetition
from hoarfrost.sampling import Chooser, SamplingParams, StopChecker


@dataclass(frozen=True)
class Piece:
    """What one round adds to a stream: `num_from_tree` of `token_ids` were guessed by the drafter, and they come first.

    `text` may lag behind the tokens where a character is incomplete or a stop string may have begun. The last piece carries the finish
    reason (`stop`, `length` or `repetition`) and the statistics.
    """

    text: str
    token_ids: list[int]
    num_from_tree: int
    finish_reason: str | None = None
    statistics: Statistics | None = None


@dataclass(frozen=True)
class Completion:
    """The whole answer to one prompt."""

    text: str
    token_ids: list[int]
    finish_reason: str
    statistics: Statistics


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
    """The state of one prompt: committed rows are in `store`, the last of `token_ids` is the bonus token, whose row is not stored yet."""

    index: int
    prompt_ids: list[int]
    params: SamplingParams
    store: Store
    draft_state: DraftState | None
    chooser: Chooser
    stop_checker: StopChecker
    statistics: Statistics
    token_ids: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    pending_features: list[PendingFeatures] = field(default_factory=list)
    """The target's hidden states that the drafter has not taken in yet, in order."""
    repetition: Repetition = field(default_factory=Repetition)
    """Where the text repeats itself, as far as somebody asked."""

    def take_features(self) -> Tensor:
        """The pending features as one, which are then no longer pending."""
        parts = [pending.chosen() for pending in self.pending_features]
        self.pending_features = []
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def tokens_from(self, start: int) -> list[int]:
        """The tokens of prompt and answer from the place `start` on."""
        behind = start - len(self.prompt_ids)
        return self.token_ids[behind:] if behind >= 0 else self.prompt_ids[start:] + self.token_ids

    @property
    def bonus_token_id(self) -> int:
        return self.token_ids[-1]

    @property
    def num_remaining(self) -> int:
        """Tokens that may still be emitted."""
        return self.params.max_new_tokens - len(self.token_ids)

    def emit(self, token_ids: list[int], num_accepted: int) -> Piece:
        """Takes in the tokens of one round (the first `num_accepted` of them guessed) and gives what may be shown of them."""
        emission = self.stop_checker.feed(token_ids)
        self.token_ids.extend(emission.token_ids)
        self.statistics.num_tokens = len(self.token_ids)
        self.finish_reason = emission.finish_reason
        num_from_tree = min(num_accepted, len(emission.token_ids))
        statistics = self.statistics if emission.finish_reason else None
        return Piece(emission.text, emission.token_ids, num_from_tree, emission.finish_reason, statistics)
