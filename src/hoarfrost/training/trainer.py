"""The loop that every training run shares: `run_training` takes it from settings to a checkpoint that can be served.

The folder `out` receives `settings.json`, `responses.jsonl`, `features/`, `checkpoint/`, `log.jsonl`, `curve.png` (where matplotlib is
installed) and, at the end, `drafter/` in the layout of the released checkpoints. Batches, anchors and their order follow from the seed and
the number of the step alone, so that a resumed run takes the very steps that the interrupted one would have taken; under a time limit
(`max_minutes`) all but the learning rate, which falls as the time runs out.

One device. Parameters and optimizer states are float32; with a bfloat16 target the arithmetic is bfloat16 (autocast).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from hoarfrost.drafting import save_drafter
from hoarfrost.drafting.opening import RUN_RECORD, RUN_RESULT
from hoarfrost.errors import InvalidInput
from hoarfrost.progress import progress_bar
from hoarfrost.target import Target
from hoarfrost.training.anchors import PackedBlocks, draw_anchors, pack_blocks
from hoarfrost.training.checkpoint import checkpoint_exists, load_checkpoint, save_checkpoint
from hoarfrost.training.data import TrainingSequence
from hoarfrost.training.feature_store import Features, FeatureStore, FreshFeatures
from hoarfrost.training.features import load_frozen_target
from hoarfrost.training.loss import gamma_for, slot_weights
from hoarfrost.training.objective import AnyQuality, Objective, Pass
from hoarfrost.training.optimizers import cosine_with_warmup
from hoarfrost.training.preparation import TrainingData, choose_prompts, prepare_data
from hoarfrost.training.report import LOG, TrainingLog, TrainingReport, draw_curve
from hoarfrost.training.settings import TrainingConfig

ROWS_AT_ONCE, ROWS_AT_ONCE_ELSEWHERE = 2048, 16384  # block rows of one pass; on a CPU larger ones fall out of the caches
LOG_EVERY_ELSEWHERE = 20  # an accelerator is kept waiting by every look at a loss
MAX_HELD_OUT, HELD_OUT_ANCHORS = 64, 16
# These may differ between a run and its continuation.
FREE_ON_RESUME = (
    "out",
    "resume",
    "dtype",
    "device",
    "generation_batch",
    "features",
    "feature_cache_gib",
    "max_minutes",
    "save_every",
    "validate_every",
)


def run_training(settings: TrainingConfig, objective_for: Callable[[Target], Objective[AnyQuality]]) -> TrainingReport[AnyQuality]:
    """Generates responses, trains, validates and writes the drafter. Raises `InvalidInput` for what cannot be trained."""
    target = load_frozen_target(settings.target, dtype=settings.dtype, device=settings.device)
    objective = objective_for(target)  # faults in the settings show before anything is written or generated
    prompts, num_dropped = choose_prompts(settings, target)
    claim_folder(settings)
    data = prepare_data(settings, target, prompts, num_dropped)
    return Trainer(settings, target, data, objective).run()


def claim_folder(settings: TrainingConfig) -> None:
    """Makes `out` this run's folder, or checks that it is the folder of the run to go on with."""
    record = settings.out / RUN_RECORD
    described = json.loads(json.dumps({name: value for name, value in asdict(settings).items() if name not in FREE_ON_RESUME}, default=str))
    if record.exists() and not settings.resume:
        raise InvalidInput(f"{settings.out} holds a run already; resume it (--resume), or give another folder.")
    if record.exists():
        before = json.loads(record.read_text())
        changed = [name for name, value in described.items() if before.get(name) != value]
        if changed:
            raise InvalidInput(
                f"The run in {settings.out} was started with {changed[0]} = {before.get(changed[0])!r}, not {described[changed[0]]!r}; "
                "resume it with its own settings, or start another in a new folder."
            )
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"The folder {settings.out} cannot be made ({error.strerror}); give another --out.") from None
    record.write_text(json.dumps(described, indent=1) + "\n")


def features_for(settings: TrainingConfig, target: Target, taps: Sequence[int]) -> Features:
    if target.device.type != "cpu":
        return FreshFeatures(target, taps)
    return FeatureStore(target, taps, settings.features or settings.out / "features", int(settings.feature_cache_gib * 2**30))


class Trainer(Generic[AnyQuality]):
    """The training loop. Owns the optimizers and the step it has reached."""

    def __init__(self, settings: TrainingConfig, target: Target, data: TrainingData, objective: Objective[AnyQuality]) -> None:
        self.settings, self.target, self.data, self.objective = settings, target, data, objective
        self.config = objective.model.config
        objective.begin(data)
        self.optimizers = objective.optimizers()
        self.peak_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        gamma = settings.gamma or gamma_for(self.config.block_size)
        self.slot_weights = slot_weights(self.config.block_size, gamma).to(target.device)
        self.features = features_for(settings, target, self.config.target_layer_ids)
        self.steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
        self.num_steps = settings.num_epochs * self.steps_per_epoch
        on_cpu = target.device.type == "cpu"
        self.rows_at_once = ROWS_AT_ONCE if on_cpu else ROWS_AT_ONCE_ELSEWHERE
        self.log_every = 1 if on_cpu else LOG_EVERY_ELSEWHERE
        self.step, self.seconds = 0, 0.0

    def run(self) -> TrainingReport[AnyQuality]:
        """Trains from the step reached to the end."""
        checkpoint, model = self.settings.out / "checkpoint", self.objective.model
        if self.settings.resume and checkpoint_exists(checkpoint):
            state = load_checkpoint(checkpoint, model, self.optimizers)
            self.step, self.seconds = state["step"], state["seconds"]
        log = TrainingLog(self.settings.out / LOG, first_step=self.step)
        quality, note = None, ""
        with progress_bar("training steps", total=self.num_steps, completed=self.step) as advance:
            while not self.is_finished:
                began = time.perf_counter()
                loss = self.train_step()
                self.seconds += time.perf_counter() - began
                last = self.is_finished
                quality = self.validate() if self.step % self.settings.validate_every == 0 or last else None
                if self.step % self.log_every == 0 or quality is not None:
                    log.add(self.step, float(loss), self.optimizers[0].param_groups[0]["lr"], self.seconds, quality)
                    note = f"loss {float(loss):.3f}"
                if self.step % self.settings.save_every == 0 or last:
                    save_checkpoint(checkpoint, model, self.optimizers, {"step": self.step, "seconds": self.seconds})
                advance(1, note)
        return self.finish(log, quality or self.validate())

    @property
    def is_finished(self) -> bool:
        return self.progress_after(self.step) >= 1.0

    def progress_after(self, step: int) -> float:
        """The share of the run that is done after `step` steps, by their number or by the time that is left, whichever is further."""
        limit = self.settings.max_minutes
        return min(1.0, max(step / self.num_steps, 0.0 if limit is None else self.seconds / (60 * limit)))

    def train_step(self) -> Tensor:
        """One update; returns the loss of its batch, which an accelerator may still be working at."""
        factor = cosine_with_warmup(self.progress_after(self.step + 1), self.settings.warmup_share)
        for optimizer, rates in zip(self.optimizers, self.peak_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        passes = list(self.passes_of(self.step))
        total_weight = torch.stack([self.weights_of(blocks).sum() for _, blocks in passes]).sum()
        loss = torch.zeros((), device=self.target.device)
        for indices, blocks in passes:
            features = self.features_of([self.data.train[index] for index in indices], blocks)
            loss += self.objective.add_gradient(features, blocks, self.weights_of(blocks) / total_weight)
        torch.nn.utils.clip_grad_norm_(self.objective.model.parameters(), self.settings.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return loss

    def weights_of(self, blocks: PackedBlocks) -> Tensor:
        """`[B, b-1]`, by the depth of the slots; 0 where there is no label."""
        return self.slot_weights * blocks.has_label

    def passes_of(self, step: int) -> Iterator[tuple[list[int], PackedBlocks]]:
        """The sequences of one step with freshly drawn blocks, a few at a time, as many as make up a pass of `rows_at_once`."""
        settings = self.settings
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(self.data.train))
        batch = order[within * settings.batch_size :][: settings.batch_size].tolist()
        batch.sort(key=lambda index: len(self.data.train[index].token_ids))  # what shares a pass is padded to the longest
        limit = max(1, self.rows_at_once // (settings.anchors_per_sequence * self.config.block_size))
        for start in range(0, len(batch), limit):
            indices = batch[start : start + limit]
            yield indices, self.blocks_at([self.data.train[index] for index in indices], indices, epoch, settings.anchors_per_sequence)

    def blocks_at(self, sequences: Sequence[TrainingSequence], indices: Sequence[int], epoch: int, num_anchors: int) -> PackedBlocks:
        generators = (np.random.default_rng([self.settings.seed, epoch, index]) for index in indices)
        anchors = [draw_anchors(sequence, num_anchors, generator) for sequence, generator in zip(sequences, generators, strict=True)]
        return pack_blocks(sequences, anchors, self.config.block_size, self.config.mask_token_id).to(self.target.device)

    def features_of(self, sequences: Sequence[TrainingSequence], blocks: PackedBlocks) -> Tensor:
        """The target's features of the contexts of `blocks`, `[C, n_feat * H]`."""
        parts = self.features.of([sequence.token_ids for sequence in sequences])
        return torch.cat([part[:length] for part, length in zip(parts, blocks.context_lengths, strict=True)])

    @torch.no_grad()
    def validate(self) -> AnyQuality:
        """Quality on the held-out sequences, at the same anchors every time."""
        return self.objective.judge(self.held_out_passes())

    def held_out_passes(self) -> Iterator[Pass]:
        for index, sequence in enumerate(self.data.held_out[:MAX_HELD_OUT]):
            blocks = self.blocks_at([sequence], [index], self.settings.num_epochs, HELD_OUT_ANCHORS)
            yield self.features_of([sequence], blocks), blocks

    def finish(self, log: TrainingLog, quality: AnyQuality) -> TrainingReport[AnyQuality]:
        folder, model = self.settings.out / RUN_RESULT, self.objective.model
        save_drafter(model, folder)
        return TrainingReport(
            drafter_folder=folder,
            log_file=log.path,
            curve_file=draw_curve(log.path, self.settings.out / "curve.png"),
            num_parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            num_sequences=len(self.data.train),
            num_response_tokens=self.data.num_response_tokens,
            num_dropped=self.data.num_dropped,
            num_steps=self.step,
            seconds=self.seconds,
            quality=quality,
        )
