"""Training samples of a block drafter: blocks that start at random places of a response, laid side by side in one row.

A block of b slots starts at an *anchor*, a token of the response whose successor belongs to it too. Slot 0 holds the anchor, the others
the mask token; slot k is to guess the token k places on. What a block may look at, besides itself, is the target's features of the tokens
before its anchor: exactly what is at hand in decoding, when the anchor is the token chosen last. (DFlash, arXiv 2602.06036, section 4.)

Shapes: B blocks of all sequences together, sequence after sequence and by rising anchor within each; b block size; C context rows of all
sequences together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hoarfrost.training.data import TrainingSequence


@dataclass(frozen=True, eq=False)
class PackedBlocks:
    """Blocks of several sequences, ready for one pass.

    token_ids, positions int64 [B, b]; labels int64 [B, b-1] and has_label bool [B, b-1] belong to slots 1 to b-1 (no label past the end).
    anchors[s] lists the anchors of sequence s, rising; context_positions int64 [C] counts each sequence's rows from 0, and sequence s has
    context_lengths[s] of them.
    """

    token_ids: Tensor
    positions: Tensor
    labels: Tensor
    has_label: Tensor
    anchors: tuple[tuple[int, ...], ...]
    context_positions: Tensor
    context_lengths: tuple[int, ...]

    def to(self, device: torch.device) -> PackedBlocks:
        return replace(
            self,
            token_ids=self.token_ids.to(device, non_blocking=True),
            positions=self.positions.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            has_label=self.has_label.to(device, non_blocking=True),
            context_positions=self.context_positions.to(device, non_blocking=True),
        )


def draw_anchors(sequence: TrainingSequence, count: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Up to `count` different anchors, uniformly from those that the sequence offers, rising."""
    candidates = np.arange(sequence.num_prompt_tokens, len(sequence.token_ids) - 1)
    if len(candidates) > count:
        candidates = np.sort(generator.choice(candidates, count, replace=False))
    return tuple(candidates.tolist())


def pack_blocks(
    sequences: Sequence[TrainingSequence], anchors: Sequence[tuple[int, ...]], block_size: int, mask_token_id: int
) -> PackedBlocks:
    """Blocks at the given anchors of each sequence; a sequence's context are all its tokens before its last anchor."""
    offsets = np.arange(block_size)
    rows, positions, lengths = [], [], []
    for sequence, starts in zip(sequences, anchors, strict=True):
        padded = np.pad(np.asarray(sequence.token_ids, dtype=np.int64), (0, block_size), constant_values=-1)
        at = np.asarray(starts, dtype=np.int64)[:, None] + offsets
        rows.append(padded[at])
        positions.append(at)
        lengths.append(max(starts, default=0))
    tokens = torch.from_numpy(np.concatenate(rows))
    labels = tokens[:, 1:]
    token_ids = torch.full_like(tokens, mask_token_id)
    token_ids[:, 0] = tokens[:, 0]
    return PackedBlocks(
        token_ids=token_ids,
        positions=torch.from_numpy(np.concatenate(positions)),
        labels=labels.clamp(min=0),
        has_label=labels >= 0,
        anchors=tuple(anchors),
        context_positions=torch.cat([torch.arange(length) for length in lengths]),
        context_lengths=tuple(lengths),
    )
