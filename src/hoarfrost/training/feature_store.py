"""The target's features on disk: made once, found again by every run over the same sequences, and by several runs at a time.

Reading a sequence through the target costs a CPU as much as some 70 blocks of a small drafter's training, so features must outlive a run.
A sequence has a file of its own, named by what decides its features: the target's weights and type, the tokens. So nothing has to be kept
in step, runs of other seeds, splits and taps share a folder, and an interrupted run finds what it had. A file holds one bfloat16 tensor
`[T, H]` a tap; it is written under another name and renamed, and replaced where a run needs a tap that it lacks. Training always reads
what was rounded to bfloat16, also from features it has just made: the steps of a run do not depend on what was there before.

An accelerator makes features faster than a disk gives them back: `FreshFeatures` keeps nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hoarfrost.target import Target
from hoarfrost.training.features import tapped_features

DIGEST_LENGTH = 32  # hexadecimal digits: 128 bits


class Features(Protocol):
    """Features of token sequences in the target's type and on its device, `[T, len(taps) * H]` each."""

    def of(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]: ...


class FreshFeatures:
    """Features made whenever they are asked for, of all sequences at once."""

    def __init__(self, target: Target, taps: Sequence[int]) -> None:
        self.target, self.taps = target, tuple(taps)

    def of(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        return tapped_features(self.target, sequences, self.taps)


class FeatureStore:
    """Features by token sequence, in the files of `folder`; once those made here fill `budget_bytes`, new ones are not kept."""

    def __init__(self, target: Target, taps: Sequence[int], folder: Path, budget_bytes: int) -> None:
        self.target, self.taps, self.folder, self.left_bytes = target, tuple(taps), folder, budget_bytes
        self._target_digest = digest_of_weights(target)

    def of(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        return [self.features(token_ids) for token_ids in sequences]

    def features(self, token_ids: Sequence[int]) -> Tensor:
        """The outputs of the tapped layers side by side, `[T, len(taps) * H]`, in the target's type and on its device."""
        path = self.path_of(token_ids)
        kept = read_features(path, self.taps)
        if kept is None:
            (fresh,) = tapped_features(self.target, [token_ids], self.taps)
            made = fresh.to(torch.bfloat16).cpu()
            kept = {tap: part.contiguous() for tap, part in zip(self.taps, made.chunk(len(self.taps), dim=1), strict=True)}
            if made.nbytes <= self.left_bytes:
                self.left_bytes -= made.nbytes
                write_features(path, kept)
        return torch.cat([kept[tap] for tap in self.taps], dim=1).to(self.target.device, self.target.dtype)

    def has(self, token_ids: Sequence[int]) -> bool:
        return read_features(self.path_of(token_ids), self.taps) is not None

    def path_of(self, token_ids: Sequence[int]) -> Path:
        digest = hashlib.sha256(self._target_digest + np.asarray(token_ids, dtype=np.int64).tobytes())
        return self.folder / f"{digest.hexdigest()[:DIGEST_LENGTH]}.safetensors"


def digest_of_weights(target: Target) -> bytes:
    """A short digest of the decoder's weights: of their type, shapes, and a sample of the values of each."""
    digest = hashlib.sha256(str(target.dtype).encode())
    for name, tensor in target.model.base_model.state_dict().items():
        values = tensor.flatten()[:: max(1, tensor.numel() // 64)]
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + values.float().cpu().numpy().tobytes())
    return digest.digest()


def read_features(path: Path, taps: Sequence[int]) -> dict[int, Tensor] | None:
    """Features bfloat16 `[T, H]` of `taps`, mapped from the file; None if it is not there, not whole, or lacks one of them."""
    try:
        with safe_open(path, framework="pt") as file:
            return {tap: file.get_tensor(str(tap)) for tap in taps}
    except (FileNotFoundError, SafetensorError):
        return None


def write_features(path: Path, features: Mapping[int, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.partial")
    save_file({str(tap): part for tap, part in features.items()}, temporary)
    os.replace(temporary, path)
