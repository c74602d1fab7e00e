"""Trains a DFlash drafter for a target (arXiv 2602.06036, section 4): `train_drafter` is all of `hoarfrost train drafter`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from hoarfrost.drafting import DFlashModel
from hoarfrost.drafting.checkpoint import load_network
from hoarfrost.drafting.opening import open_drafter
from hoarfrost.drafting.vocabulary import offsets_of
from hoarfrost.target import Target
from hoarfrost.target.description import describe
from hoarfrost.training.anchors import PackedBlocks
from hoarfrost.training.initial import start_from_target
from hoarfrost.training.loss import GuessQuality, QualitySums, gamma_for, judge, loss_and_gradient
from hoarfrost.training.objective import Pass, autocast_of, guessing_states
from hoarfrost.training.optimizers import muon_and_adamw
from hoarfrost.training.preparation import TrainingData, drafter_config
from hoarfrost.training.report import TrainingReport
from hoarfrost.training.settings import DrafterTrainingConfig
from hoarfrost.training.trainer import run_training
from hoarfrost.training.vocabulary import GuessedVocabulary, likeliest_tokens


def train_drafter(settings: DrafterTrainingConfig) -> TrainingReport[GuessQuality]:
    """Generates responses, trains, validates and writes the drafter. Raises `InvalidInput` for what cannot be trained."""
    if settings.start_from is not None:
        open_drafter(settings.start_from).check_fit(describe(settings.target))
    return run_training(settings, partial(DrafterObjective, settings))


class DrafterObjective:
    """A drafter, new or to be improved, is to give the next tokens high probability, slot by slot.

    Raises `InvalidInput` if it cannot fit the target.
    """

    def __init__(self, settings: DrafterTrainingConfig, target: Target) -> None:
        self.settings, self.target = settings, target
        torch.manual_seed(settings.seed)
        if settings.start_from is None:
            self.model = DFlashModel(drafter_config(settings, target)).to(target.device)
            start_from_target(self.model, target)
        else:
            self.model = load_network(settings.start_from, target).float().requires_grad_(True)

    def begin(self, data: TrainingData) -> None:
        """A reduced vocabulary is that of the responses, unless it came with the drafter to go on from."""
        config = self.model.config
        if self.model.d2t is not None and self.settings.start_from is None:
            assert config.draft_vocab_size is not None
            token_ids = likeliest_tokens(data.train, config.draft_vocab_size, config.vocab_size, config.mask_token_id)
            self.model.d2t.copy_(offsets_of(token_ids))
        self.vocabulary = GuessedVocabulary(self.model, self.target)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        settings = self.settings
        if settings.optimizer == "muon":
            return muon_and_adamw(self.model, muon_lr=settings.muon_learning_rate, adamw_lr=settings.learning_rate)
        return [torch.optim.AdamW(self.model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0)]

    def add_gradient(self, features: Tensor, blocks: PackedBlocks, weights: Tensor) -> Tensor:
        labels, learnt = self.vocabulary.labels(blocks)
        guesses = guessing_states(self.model, self.target, features, blocks).flatten(0, 1)
        with autocast_of(self.target):
            loss, gradient = loss_and_gradient(guesses.detach(), labels.flatten(), (weights * learnt).flatten(), self.vocabulary.logits)
        guesses.backward(gradient)  # type: ignore[no-untyped-call]
        return loss

    def judge(self, passes: Iterable[Pass]) -> GuessQuality:
        block_size = self.model.config.block_size
        sums = QualitySums(block_size, self.settings.gamma or gamma_for(block_size))
        for features, blocks in passes:
            labels, learnt = self.vocabulary.labels(blocks)
            hidden = guessing_states(self.model, self.target, features, blocks)
            with autocast_of(self.target):
                losses, hits = judge(hidden.flatten(0, 1), labels.flatten(), self.vocabulary.logits)
            sums.add(losses.view(labels.shape), hits.view(labels.shape) & learnt, blocks.has_label, learnt)
        return sums.quality()
