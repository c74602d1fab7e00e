"""What a training run learns, behind the loop that all of them share: the protocol, and the pieces that both objectives use.

Shapes: B blocks of b slots, C context rows of all sequences together (see `anchors`), H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from hoarfrost.drafting import DFlashModel
from hoarfrost.target import Target
from hoarfrost.training.anchors import PackedBlocks
from hoarfrost.training.block_attention import packed_hidden
from hoarfrost.training.preparation import TrainingData

Pass = tuple[Tensor, PackedBlocks]
"""Features `[C, n_feat * H]` of the sequences of some blocks, and the blocks."""


class Quality(Protocol):
    """How well a model does on held-out text."""

    def record(self) -> dict[str, Any]:
        """For the log, among others `loss` and `expected_tokens_per_round`."""
        ...

    def summary(self) -> dict[str, str]:
        """For people: what is measured, and how it came out."""
        ...


AnyQuality = TypeVar("AnyQuality", bound=Quality)
JudgedQuality = TypeVar("JudgedQuality", bound=Quality, covariant=True)


class Objective(Protocol[JudgedQuality]):
    """A model with parameters to train (those that require a gradient), and what they are to be good at."""

    model: DFlashModel

    def begin(self, data: TrainingData) -> None:
        """Takes from the data what the first step needs; called once, before it."""
        ...

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """With their learning rates at the peak of the schedule."""
        ...

    def add_gradient(self, features: Tensor, blocks: PackedBlocks, weights: Tensor) -> Tensor:
        """Adds the gradient of one pass of a step and returns its part of the loss: the sum of each guess's loss by its weight.

        `weights [B, b-1]` sum to 1 over all passes of the step, and are 0 where there is no label.
        """
        ...

    def judge(self, passes: Iterable[Pass]) -> JudgedQuality:
        """The quality of the guesses of all `passes` together."""
        ...


def guessing_states(model: DFlashModel, target: Target, features: Tensor, blocks: PackedBlocks) -> Tensor:
    """The drafter's final hidden states of the guessing slots, `[B, b-1, H]`; with a bfloat16 target under autocast."""
    with torch.no_grad():
        embeddings = target.embed(blocks.token_ids)
    with autocast_of(target):
        return packed_hidden(model, embeddings, features, blocks)[:, 1:]


def autocast_of(target: Target) -> torch.autocast:
    return torch.autocast(target.device.type, dtype=torch.bfloat16, enabled=target.dtype == torch.bfloat16)
