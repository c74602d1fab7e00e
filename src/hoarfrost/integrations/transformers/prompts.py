"""Prompts out of a padded batch: every row is cut to its real tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from hoarfrost.errors import InvalidInput


def read_prompts(input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor | None) -> list[list[int]]:
    """The token ids of every row of `input_ids [B, L]`, without the padding on its left, which the zeros of `attention_mask [B, L]` mark.

    Raises `InvalidInput` for empty rows, masks that hide anything else, and positions other than those the mask implies.
    """
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.to(input_ids.device) != 0
    if input_ids.numel() == 0 or not bool(real.any(dim=-1).all()):
        raise InvalidInput("A row of input_ids has no token; every row needs at least one (inputs_embeds cannot be combined with ddtree).")
    if not bool((real.long().diff(dim=-1) >= 0).all()):
        raise InvalidInput("attention_mask hides tokens between or behind others; ddtree honours padding on the left alone.")
    expected = (real.long().cumsum(dim=-1) - 1).clamp(min=0)
    if position_ids is not None and not _agree(position_ids, expected, real):
        raise InvalidInput("position_ids do not count each row's tokens from 0; ddtree honours no other positions, so leave them out.")
    return [ids[kept].tolist() for ids, kept in zip(input_ids, real, strict=True)]


def _agree(position_ids: Tensor, expected: Tensor, real: Tensor) -> bool:
    if position_ids.ndim != 2 or position_ids.shape[-1] != expected.shape[-1]:
        return False
    given = position_ids.to(expected.device).expand_as(expected)
    return bool((given[real] == expected[real]).all())
