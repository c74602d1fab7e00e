"""Trains a candidate selector for a drafter that has none: `train_selector` is all of `hoarfrost train selector`.

The drafter stays as it is, bit by bit. On the target's own responses, as for a drafter, the selector learns to tell each slot's right token
from its other candidates once it knows the token before: cross entropy over the candidates, with the true predecessor given (teacher
forcing), wherever the right token is a candidate at all (DFlash 2). What comes out is the drafter with a selector, in the tensor names of
DFlash 2.

Judged along the true path too. Up to the first wrong guess that is the path which the greedy walk takes, so the number of tokens a round
emits comes out exactly as decoding would have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hoarfrost.drafting.checkpoint import load_network
from hoarfrost.drafting.network import DFlashModel, new_selector
from hoarfrost.drafting.opening import open_drafter
from hoarfrost.drafting.selector import candidate_log_probs, transition_scores
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.linear import plain_product
from hoarfrost.target import Target
from hoarfrost.target.description import describe
from hoarfrost.training.anchors import PackedBlocks
from hoarfrost.training.loss import GuessQuality, QualitySums, gamma_for, judge, percentages, row_chunks
from hoarfrost.training.objective import Pass, autocast_of, guessing_states
from hoarfrost.training.preparation import TrainingData
from hoarfrost.training.report import TrainingReport
from hoarfrost.training.settings import SelectorTrainingConfig
from hoarfrost.training.trainer import run_training
from hoarfrost.training.vocabulary import GuessedVocabulary
from hoarfrost.tree.marginals import top_rows


def train_selector(settings: SelectorTrainingConfig) -> TrainingReport[SelectorQuality]:
    """Generates responses, trains, validates and writes the drafter with its selector. Raises `InvalidInput` for what cannot be trained."""
    open_drafter(settings.drafter).check_fit(describe(settings.target))
    return run_training(settings, partial(SelectorObjective, settings))


@dataclass(frozen=True)
class SelectorQuality:
    """Guesses along the true path with the selector, and without it: the drafter's marginals. Losses are over the whole vocabulary, where
    the selector shares the candidates' probability out anew. `coverage_per_slot`: how often the right token is among the candidates."""

    selected: GuessQuality
    marginal: GuessQuality
    coverage_per_slot: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        coverage = [round(value, 4) for value in self.coverage_per_slot]
        return {**self.selected.record(), "coverage_per_slot": coverage, "without_selector": self.marginal.record()}

    def summary(self) -> dict[str, str]:
        return {
            "held-out loss": f"{self.selected.loss:.3f} ({self.marginal.loss:.3f} without the selector)",
            "right guesses by slot": percentages(self.selected.accuracy_per_slot),
            "... without the selector": percentages(self.marginal.accuracy_per_slot),
            "... among the candidates": percentages(self.coverage_per_slot),
            "tokens per round (greedy chain)": (
                f"{self.selected.expected_tokens_per_round:.2f} ({self.marginal.expected_tokens_per_round:.2f} without the selector)"
            ),
        }


@dataclass(frozen=True)
class Choices:
    """The guesses of one pass as choices between candidates: M guesses, K candidates each.

    scores `[M, K]`, the selector's after the true predecessor; marginal log_probs `[M, K]`; token_ids `[M, K]`; place `[M]` of the right
    token among them, 0 where covered `[M]` says that it is not there.
    """

    scores: Tensor
    log_probs: Tensor
    token_ids: Tensor
    place: Tensor
    covered: Tensor


class SelectorObjective:
    """A new selector on a frozen drafter. Raises `InvalidInput` if the drafter has one already, or does not fit the target."""

    def __init__(self, settings: SelectorTrainingConfig, target: Target) -> None:
        self.settings, self.target = settings, target
        torch.manual_seed(settings.seed)
        self.model = with_new_selector(load_network(settings.drafter, target), settings)
        self.vocabulary = GuessedVocabulary(self.model, target)
        self.mask_column = self.vocabulary.column_of(self.model.config.mask_token_id)

    def begin(self, data: TrainingData) -> None:
        """Nothing: what can be guessed is up to the drafter."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return [torch.optim.AdamW(trained, lr=self.settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)]

    def add_gradient(self, features: Tensor, blocks: PackedBlocks, weights: Tensor) -> Tensor:
        with torch.no_grad():
            hidden = guessing_states(self.model, self.target, features, blocks)
        choices = self.choices(hidden[blocks.has_label], blocks.labels[blocks.has_label], predecessors(blocks)[blocks.has_label])
        losses = functional.cross_entropy(choices.scores, choices.place, reduction="none")
        loss = (losses * weights[blocks.has_label] * choices.covered).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def judge(self, passes: Iterable[Pass]) -> SelectorQuality:
        block_size = self.model.config.block_size
        gamma = self.settings.gamma or gamma_for(block_size)
        selected, marginal = QualitySums(block_size, gamma), QualitySums(block_size, gamma)
        num_covered = torch.zeros(block_size - 1, dtype=torch.float64)
        for features, blocks in passes:
            shape, labels = blocks.labels.shape, blocks.labels.flatten()
            columns, can_be_guessed = self.vocabulary.labels(blocks)
            hidden = guessing_states(self.model, self.target, features, blocks).flatten(0, 1)
            with autocast_of(self.target):
                losses, hits = judge(hidden, columns.flatten(), self.logits)
            choices = self.choices(hidden, labels, predecessors(blocks).flatten())
            marginal.add(losses.view(shape), hits.view(shape) & can_be_guessed, blocks.has_label, can_be_guessed)
            losses, hits = judge_choices(choices, losses)
            selected.add(losses.view(shape), hits.view(shape), blocks.has_label, can_be_guessed)
            num_covered += (choices.covered.view(shape) & blocks.has_label).sum(dim=0).cpu()
        coverage = (num_covered / selected.counts.clamp(min=1)).tolist()
        return SelectorQuality(selected.quality(), marginal.quality(), tuple(coverage))

    def choices(self, hidden: Tensor, labels: Tensor, before: Tensor) -> Choices:
        """The choices at states `hidden [M, H]` between the drafter's candidates, `labels [M]` being right after `before [M]`."""
        selector = self.model.candidate_selector
        assert selector is not None
        with torch.no_grad(), autocast_of(self.target):
            tops = [top_rows(self.logits(hidden[rows]), selector.top_k) for rows in row_chunks(hidden, self.logits)]
        log_probs, columns = (torch.cat(parts) for parts in zip(*tops, strict=True))
        token_ids = self.vocabulary.token_ids(columns)
        scores = transition_scores(selector.weights(plain_product), log_probs, hidden.float(), before[:, None], token_ids)
        right = token_ids == labels[:, None]
        return Choices(scores.squeeze(1), log_probs, token_ids, right.int().argmax(dim=1), right.any(dim=1))

    def logits(self, hidden: Tensor) -> Tensor:
        """As the drafter decodes: the mask token is no guess."""
        return self.vocabulary.logits(hidden).index_fill(-1, self.mask_column, -torch.inf)


def with_new_selector(model: DFlashModel, settings: SelectorTrainingConfig) -> DFlashModel:
    """`model` with a selector whose parameters are the only ones to train."""
    if model.candidate_selector is not None:
        raise InvalidInput(f"The drafter {settings.drafter} has a candidate selector already; give one without.")
    model.config = replace(model.config, selector_rank=settings.rank, selector_top_k=settings.top_k)
    model.requires_grad_(False)
    selector = new_selector(model.config)
    assert selector is not None
    model.candidate_selector = selector.to(model.norm.weight.device)
    return model


def predecessors(blocks: PackedBlocks) -> Tensor:
    """The token before each guess, `[B, b-1]`: the anchor, then the labels."""
    return torch.cat((blocks.token_ids[:, :1], blocks.labels[:, :-1]), dim=1)


def judge_choices(choices: Choices, marginal_losses: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropies over the whole vocabulary and whether the likeliest token is right, each `[M]`."""
    log_probs = candidate_log_probs(choices.scores.unsqueeze(1), choices.log_probs).squeeze(1)
    right = log_probs.gather(1, choices.place[:, None]).squeeze(1)
    hits = choices.covered & (choices.scores.argmax(dim=1) == choices.place)
    return torch.where(choices.covered, -right, marginal_losses), hits
