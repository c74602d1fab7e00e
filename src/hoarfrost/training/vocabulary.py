"""The tokens that a drafter can guess (see `drafting.vocabulary`), in training: which they are, and labels as columns of its logits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from hoarfrost.drafting import DFlashModel
from hoarfrost.kernels.linear import plain_product
from hoarfrost.target import Target
from hoarfrost.training.anchors import PackedBlocks
from hoarfrost.training.data import TrainingSequence


def likeliest_tokens(sequences: Iterable[TrainingSequence], count: int, vocab_size: int, mask_token_id: int) -> Tensor:
    """The `count` tokens that stand most often in the responses of `sequences`, rising, int64; among equally frequent ones the lower ids,
    which in most vocabularies are the more frequent tokens."""
    frequencies = np.zeros(vocab_size, dtype=np.int64)
    for sequence in sequences:
        np.add.at(frequencies, np.asarray(sequence.token_ids[sequence.num_prompt_tokens :], dtype=np.int64), 1)
    frequencies[mask_token_id] = -1
    return torch.from_numpy(np.sort(np.argsort(-frequencies, kind="stable")[:count]))


class GuessedVocabulary:
    """The columns of a drafter's logits: a snapshot of its table, with the part of the target's head that belongs to it."""

    def __init__(self, model: DFlashModel, target: Target) -> None:
        self._model, self._head = model, model.borrowed_head(target.head, plain_product)
        self._token_ids = model.draft_token_ids()
        if self._token_ids is not None:
            self._columns = torch.full((target.vocab_size,), -1, dtype=torch.int64, device=target.device)
            self._columns[self._token_ids] = torch.arange(len(self._token_ids), device=target.device)

    def logits(self, hidden: Tensor) -> Tensor:
        """`[..., W]` of final hidden states `[..., H]`."""
        return self._model.logits(hidden, self._head)

    def labels(self, blocks: PackedBlocks) -> tuple[Tensor, Tensor]:
        """The column of every label (0 where it has none), and whether there is a label that can be guessed, `[B, b-1]` each."""
        if self._token_ids is None:
            return blocks.labels, blocks.has_label
        columns = self._columns[blocks.labels]
        return columns.clamp(min=0), blocks.has_label & (columns >= 0)

    def token_ids(self, columns: Tensor) -> Tensor:
        """The tokens that `columns` stand for."""
        return columns if self._token_ids is None else self._token_ids[columns]

    def column_of(self, token_id: int) -> Tensor:
        """Where a token stands, int64 `[1]`, or `[0]` where it cannot be guessed."""
        device = self._model.norm.weight.device
        return torch.tensor([token_id], device=device) if self._token_ids is None else (self._token_ids == token_id).nonzero().flatten()
