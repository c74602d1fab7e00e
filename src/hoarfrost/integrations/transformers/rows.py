"""One row of a batch as transformers' logits processors and stopping criteria see it: `[1, length]`, padding included, token by token.

A walk asks for the choice at accepted nodes alone, in order, so a processor is called once per emitted token with exactly that token's
prefix, as in stock generation. A tree may reach past a stop; no processor is asked there. Limit: in a batch, rows are not in step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hoarfrost.sampling import Chooser, Emission, SamplingParams, StopChecker

BEHIND_THE_END = 0
"""The choice at nodes behind the end of a row, where no processor is asked: any token will do, for it is never emitted."""


class Row:
    """The ids of a row so far, and what is kept of the choices for the caller.

    `scores` and `logits` hold a float32 `[V]` per token, processed and raw; they are None where nobody asked for them.
    """

    def __init__(self, prompt: Tensor, *, keeps_scores: bool, keeps_logits: bool) -> None:
        """`prompt [1, L]`, padding included."""
        self.scores: list[Tensor] | None = [] if keeps_scores else None
        self.logits: list[Tensor] | None = [] if keeps_logits else None
        self.num_generated = 0
        self._ids = prompt
        self._pending: list[int] = []

    @property
    def ids(self) -> Tensor:
        """`[1, L + num_generated]` on the prompt's device, put together only when somebody looks."""
        if self._pending:
            self._ids = torch.cat((self._ids, self._ids.new_tensor([self._pending])), dim=1)
            self._pending = []
        return self._ids

    @property
    def keeps_any(self) -> bool:
        return self.scores is not None or self.logits is not None

    def push(self, token_id: int) -> None:
        self._pending.append(token_id)
        self.num_generated += 1


class RowEnd(StopChecker):
    """Ends a row at the first token that a criterion, an end-of-sequence id or the length says; every token is judged once."""

    def __init__(self, row: Row, ending_ids: Iterable[int], criteria: Any, max_new_tokens: int) -> None:
        self.num_tokens = 0
        self.finish_reason: str | None = None
        self._row, self._ending_ids = row, frozenset(ending_ids)
        self._criteria, self._max_new_tokens = criteria, max_new_tokens
        self._end: int | None = None

    @property
    def is_reached(self) -> bool:
        """Whether a token judged so far ended the row."""
        return self._end is not None

    def judge(self, token_id: int) -> None:
        """Adds the row's next token and sees whether it is the last."""
        self._row.push(token_id)
        num_generated = self._row.num_generated
        if self._is_stopped_by_criteria() or token_id in self._ending_ids or num_generated == self._max_new_tokens:
            self._end = num_generated

    def feed(self, token_ids: list[int]) -> Emission:  # type: ignore[override]
        for token_id in token_ids[self._row.num_generated - self.num_tokens :]:  # the others were judged when they were chosen
            if not self.is_reached:
                self.judge(token_id)
        num_taken = (self._row.num_generated if self._end is None else self._end) - self.num_tokens
        self.num_tokens += num_taken
        if self._end is not None:
            self.finish_reason = "length" if self._end == self._max_new_tokens else "stop"
        return Emission(token_ids[:num_taken], "", self.finish_reason)

    def _is_stopped_by_criteria(self) -> bool:
        if not self._criteria:
            return False
        scores = self._row.scores
        return bool(self._criteria(self._row.ids, None if scores is None else tuple(one[None] for one in scores)).all())


class ProcessedChooser(Chooser):
    """Chooses among logits that transformers' processors have processed, greedily or with the position-keyed noise of `params`."""

    def __init__(self, params: SamplingParams, processors: Any, row: Row, end: RowEnd) -> None:
        super().__init__(params)
        self._processors, self._row, self._end = processors, row, end

    def is_greedy(self, num_generated: int) -> bool:
        return False

    def takes_all(self, num_generated: int) -> bool:
        return False

    def choose(self, logits_row: Tensor, position: int, num_generated: int) -> int:
        row = self._row
        if self._end.is_reached:
            return BEHIND_THE_END
        assert num_generated == row.num_generated, "nodes are visited in order, each once"
        logits = logits_row[None].to(row.ids.device, torch.float32, copy=True)
        raw = None if row.logits is None else logits[0].clone()
        scores = self._processors(row.ids, logits)[0]
        token_id = super().choose(scores, position, num_generated)  # may fail, and be asked for once more
        if row.logits is not None and raw is not None:
            row.logits.append(raw)
        if row.scores is not None:
            row.scores.append(scores)
        self._end.judge(token_id)
        return token_id
