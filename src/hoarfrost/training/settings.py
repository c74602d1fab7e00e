"""Everything that `hoarfrost train drafter` can be told, and what it answers: the one source of defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hoarfrost.errors import InvalidInput
from hoarfrost.training.loss import GuessQuality


@dataclass(frozen=True)
class DrafterTrainingConfig:
    """Settings of a drafter's training (DFlash, arXiv 2602.06036, for the recipe). Raises `InvalidInput` for values that cannot work.

    target, data, out: the model to accelerate, the training files, and the folder that receives responses, checkpoint, log and drafter.
    num_layers ... mask_token_id: the network. `target_layer_ids` are the decoder layers whose outputs are read, counted from 0 (None:
        `num_taps` of them, spread as the paper does). `mask_token_id` None: the tokenizer's reserved mask token.
    regenerate: let the target answer every prompt, also where the file holds an answer: its own wording is what will have to be guessed.
    temperatures: prompts take them in turn, so that a value named twice gets twice the share.
    num_epochs: anchors are drawn anew in each. `learning_rate` is AdamW's, `muon_learning_rate` that of the matrices under Muon.
    gamma: how slowly the weight of a slot falls with its depth (None: by block size).
    held_out_share: share of the sequences kept for validation. feature_cache_gib: main memory for the target's features of later epochs.
    """

    target: str
    data: tuple[Path, ...]
    out: Path
    resume: bool = False
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    # network
    num_layers: int = 5
    block_size: int = 16
    target_layer_ids: tuple[int, ...] | None = None
    num_taps: int = 5
    mask_token_id: int | None = None
    # responses
    regenerate: bool = True
    temperatures: tuple[float, ...] = (0.0, 0.7, 1.0)
    max_prompts: int | None = None
    max_prompt_tokens: int = 1024
    max_response_tokens: int = 512
    generation_batch: int = 128
    # training
    sequence_length: int = 3072
    anchors_per_sequence: int = 64
    num_epochs: int = 6
    batch_size: int = 8
    optimizer: Literal["muon", "adamw"] = "muon"
    learning_rate: float = 6e-4
    muon_learning_rate: float = 0.02
    warmup_share: float = 0.04
    gamma: float | None = None
    clip_norm: float = 1.0
    held_out_share: float = 0.02
    feature_cache_gib: float = 4.0
    save_every: int = 50
    validate_every: int = 100

    def __post_init__(self) -> None:
        counts = (
            "num_layers num_taps max_prompt_tokens max_response_tokens generation_batch anchors_per_sequence num_epochs batch_size "
            "save_every validate_every"
        )
        for name in counts.split():
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name, least in (("block_size", 2), ("sequence_length", 4)):
            if getattr(self, name) < least:
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.max_prompts is not None and self.max_prompts < 2:
            raise InvalidInput(f"max_prompts is {self.max_prompts}; at least 2 are needed, one of them for validation.")
        for name in ("learning_rate", "muon_learning_rate", "clip_norm", *(("gamma",) if self.gamma is not None else ())):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be a positive number.")
        if not self.temperatures or any(not (0.0 <= value < math.inf) for value in self.temperatures):
            raise InvalidInput(f"temperatures are {self.temperatures}; at least one is needed, each zero (greedy) or positive.")
        if not 0.0 < self.held_out_share < 1.0:
            raise InvalidInput(f"held_out_share is {self.held_out_share}; it must lie between 0 and 1.")
        if not 0.0 <= self.warmup_share < 1.0:
            raise InvalidInput(f"warmup_share is {self.warmup_share}; it must be at least 0 and below 1.")
        if self.optimizer not in ("muon", "adamw"):
            raise InvalidInput(f"optimizer is {self.optimizer!r}; choose 'muon' or 'adamw'.")


@dataclass(frozen=True)
class TrainingReport:
    """What a finished training run came to; `seconds` is the time of the training steps alone."""

    drafter_folder: Path
    log_file: Path
    curve_file: Path | None
    num_parameters: int
    num_sequences: int
    num_response_tokens: int
    num_dropped: int
    num_steps: int
    seconds: float
    quality: GuessQuality
