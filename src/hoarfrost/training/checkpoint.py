"""Checkpoints of a training run: parameters, optimizer state and the place in the schedule, as safetensors and JSON, never pickle.

A checkpoint is a folder with `model.safetensors`, `optimizer.safetensors` and `state.json`. It is written under a temporary name and
renamed, so that an interrupted run always finds a whole one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_checkpoint(folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], state: Mapping[str, Any]) -> None:
    """Replaces `folder` by a checkpoint of `model` (trainable parameters only), `optimizers` and the JSON-able `state`."""
    temporary = folder.with_name(folder.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters() if p.requires_grad}, temporary / "model.safetensors")
    tensors: dict[str, Tensor] = {}
    for index, optimizer in enumerate(optimizers):
        for parameter_index, values in optimizer.state_dict()["state"].items():
            for key, value in values.items():
                tensors[f"{index}.{parameter_index}.{key}"] = torch.as_tensor(value).detach().clone().contiguous()
    save_file(tensors, temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps(dict(state), indent=1))
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    temporary.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def checkpoint_exists(folder: Path) -> bool:
    return folder.exists() or folder.with_name(folder.name + ".old").exists()


def load_checkpoint(folder: Path, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Restores what `save_checkpoint` wrote and returns its state. Raises `FileNotFoundError` where there is no checkpoint."""
    if not folder.exists():
        folder = folder.with_name(folder.name + ".old")  # interrupted between the two renames
    if not (folder / "state.json").exists():
        raise FileNotFoundError(f"No checkpoint in {folder}; start the run without resuming.")
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(folder / "model.safetensors").items():
            parameters[name].copy_(value)
    per_optimizer: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, parameter_index, name = key.split(".", 2)
        per_optimizer[int(index)].setdefault(int(parameter_index), {})[name] = value
    for optimizer, entries in zip(optimizers, per_optimizer, strict=True):
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state
