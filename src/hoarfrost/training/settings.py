"""Everything that `hoarfrost train drafter` and `hoarfrost train selector` can be told: the one source of defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hoarfrost.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What every training run is told. Raises `InvalidInput` for values that cannot work.

    target, data, out: the model to accelerate, the training files, and the folder that receives responses, checkpoint, log and drafter.
    regenerate: let the target answer every prompt, also where the file holds an answer: its own wording is what will have to be guessed.
    temperatures: prompts take them in turn, so that a value named twice gets twice the share.
    num_epochs: anchors are drawn anew in each.
    gamma: how slowly the weight of a slot falls with its depth (None: by block size).
    max_minutes: the training steps may take this long together, those before an interruption too (None: as long as they take); resumed with
        a larger limit, a run goes on.
    held_out_share: share of the sequences kept for validation.
    features: folder for the target's features, which runs over the same data may share (None: `features` in `out`). feature_cache_gib: room
        there for those that this run adds; what does not fit is made anew in every epoch.
    """

    target: str
    data: tuple[Path, ...]
    out: Path
    resume: bool = False
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
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
    max_minutes: float | None = None
    batch_size: int = 8
    learning_rate: float = 6e-4
    warmup_share: float = 0.04
    gamma: float | None = None
    clip_norm: float = 1.0
    held_out_share: float = 0.02
    features: Path | None = None
    feature_cache_gib: float = 16.0
    save_every: int = 50
    validate_every: int = 100

    def __post_init__(self) -> None:
        counts = (
            "max_prompt_tokens max_response_tokens generation_batch anchors_per_sequence num_epochs batch_size save_every validate_every"
        )
        require_at_least(self, 1, *counts.split())
        require_at_least(self, 4, "sequence_length")
        optional = (name for name in ("gamma", "max_minutes") if getattr(self, name) is not None)
        require_positive(self, "learning_rate", "clip_norm", *optional)
        if self.max_prompts is not None and self.max_prompts < 2:
            raise InvalidInput(f"max_prompts is {self.max_prompts}; at least 2 are needed, one of them for validation.")
        if not self.temperatures or any(not (0.0 <= value < math.inf) for value in self.temperatures):
            raise InvalidInput(f"temperatures are {self.temperatures}; at least one is needed, each zero (greedy) or positive.")
        if not 0.0 < self.held_out_share < 1.0:
            raise InvalidInput(f"held_out_share is {self.held_out_share}; it must lie between 0 and 1.")
        if not 0.0 <= self.warmup_share < 1.0:
            raise InvalidInput(f"warmup_share is {self.warmup_share}; it must be at least 0 and below 1.")


@dataclass(frozen=True, kw_only=True)
class DrafterTrainingConfig(TrainingConfig):
    """Settings of a drafter's training (DFlash, arXiv 2602.06036, for the recipe).

    num_layers ... mask_token_id: the network. `target_layer_ids` are the decoder layers whose outputs are read, counted from 0 (None:
        `num_taps` of them, spread as the paper does). `mask_token_id` None: the tokenizer's reserved mask token.
    draft_vocab_size: how many tokens it can guess, those most frequent in the responses; 0: all of the vocabulary.
    start_from: folder or hub id of a drafter to go on from, in place of a new one; the network is then that drafter's.
    `learning_rate` is AdamW's, `muon_learning_rate` that of the matrices under Muon.
    """

    num_layers: int = 5
    block_size: int = 16
    target_layer_ids: tuple[int, ...] | None = None
    num_taps: int = 5
    mask_token_id: int | None = None
    draft_vocab_size: int = 0
    start_from: str | None = None
    optimizer: Literal["muon", "adamw"] = "muon"
    muon_learning_rate: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "num_layers", "num_taps")
        require_at_least(self, 2, "block_size")
        require_at_least(self, 0, "draft_vocab_size")
        require_positive(self, "muon_learning_rate")
        if self.optimizer not in ("muon", "adamw"):
            raise InvalidInput(f"optimizer is {self.optimizer!r}; choose 'muon' or 'adamw'.")


@dataclass(frozen=True, kw_only=True)
class SelectorTrainingConfig(TrainingConfig):
    """Settings of the training of a candidate selector for a drafter that has none (see `hoarfrost.drafting.selector`).

    drafter: folder or hub id of the drafter, which stays as it is. rank, top_k: width of the codebooks, candidates per slot.
    """

    drafter: str
    rank: int = 128
    top_k: int = 16
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "rank")
        require_at_least(self, 2, "top_k")


def require_at_least(settings: TrainingConfig, least: int, *names: str) -> None:
    for name in names:
        if getattr(settings, name) < least:
            raise InvalidInput(f"{name} is {getattr(settings, name)}; it must be at least {least}.")


def require_positive(settings: TrainingConfig, *names: str) -> None:
    for name in names:
        if not (math.isfinite(getattr(settings, name)) and getattr(settings, name) > 0):
            raise InvalidInput(f"{name} is {getattr(settings, name)}; it must be a positive number.")
