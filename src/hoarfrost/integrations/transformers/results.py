"""The outcome in transformers' form: answers behind the padded prompts, scores by step instead of by row."""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import Any

import torch
from torch import Tensor
from transformers.generation.utils import GenerateDecoderOnlyOutput

from hoarfrost.integrations.transformers.rows import Row


def pad_token_id(config: Any) -> int | None:
    """As transformers has it: the pad token, else the first that ends a text."""
    for token in (config.pad_token_id, config.eos_token_id):
        if token is not None:
            return int(torch.as_tensor(token).flatten()[0])
    return None


def as_output(input_ids: Tensor, rows: Many[Row], answers: Many[Many[int]], config: Any) -> Tensor | GenerateDecoderOnlyOutput:
    """What `generate` returns for `input_ids [B, L]` under the generation config: `[B, L + n]`, bare or with scores and logits."""
    num_steps = max(map(len, answers))
    padded = [[*answer, *[pad_token_id(config)] * (num_steps - len(answer))] for answer in answers]
    output = torch.cat((input_ids, torch.tensor(padded, dtype=input_ids.dtype, device=input_ids.device)), dim=-1)
    if not config.return_dict_in_generate:
        return output
    scores, logits = (_by_step(kept, num_steps) for kept in ([row.scores for row in rows], [row.logits for row in rows]))
    return GenerateDecoderOnlyOutput(sequences=output, scores=scores, logits=logits)  # type: ignore[arg-type]


def _by_step(kept: Many[list[Tensor] | None], num_steps: int) -> tuple[Tensor, ...] | None:
    """What the rows kept, `[V]` per token, as one `[B, V]` per step; zeros where a row had ended; None if they kept nothing."""
    rows = [row for row in kept if row is not None]
    if not rows:
        return None
    blank = torch.zeros_like(rows[0][0])
    return tuple(torch.stack([row[step] if step < len(row) else blank for row in rows]) for step in range(num_steps))
