"""Optimizers of the recipes: Muon for the matrices of the hidden layers, AdamW for everything else, one learning-rate schedule.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a weight matrix by its nearest
semi-orthogonal matrix, found with a few Newton-Schulz steps. `torch.optim.Muon` runs those steps in bfloat16 whatever the device; a CPU
without bfloat16 arithmetic is an order of magnitude slower at that than in float32, and same-shaped matrices are best done as one batch.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards the nearest semi-orthogonal matrix of each of `matrices [count, rows, columns]`.

    The quintic's coefficients favour speed over convergence: singular values end in about 0.7 to 1.2, which Muon does not mind.
    """
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x: Tensor = matrices if wide else matrices.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.transpose(1, 2)


class Muon(torch.optim.Optimizer):
    """Muon over two-dimensional parameters; same-shaped ones are orthogonalized in one batched product."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices only, got a parameter of shape {tuple(parameter.shape)}; give it to AdamW.")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for (rows, columns), parameters in by_shape.items():
                updates = []
                for parameter in parameters:
                    assert parameter.grad is not None
                    state = self.state[parameter]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(parameter)
                    buffer = state["momentum_buffer"]
                    buffer.lerp_(parameter.grad, 1 - group["momentum"])
                    updates.append(parameter.grad.lerp(buffer, group["momentum"]))
                directions = orthogonalize(torch.stack(updates))
                scale = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for parameter, direction in zip(parameters, directions, strict=True):
                    if group["weight_decay"]:
                        parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(direction, alpha=-scale)


def muon_and_adamw(model: nn.Module, *, muon_lr: float, adamw_lr: float, weight_decay: float = 0.0) -> list[torch.optim.Optimizer]:
    """Splits the trainable parameters of `model`: hidden matrices to Muon; embeddings, heads and vectors to AdamW."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hidden_matrix = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if hidden_matrix else others).append(parameter)
    return [
        Muon(matrices, lr=muon_lr, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def warmup_stable_decay(step: int, num_steps: int, warmup: float = 0.02, decay: float = 0.3) -> float:
    """Factor on the learning rate at `step`: linear up, flat, then linear down to zero over the last `decay` share of the steps."""
    progress = (step + 1) / num_steps
    return min(1.0, progress / warmup if warmup else 1.0, (1.0 - progress) / decay + 1 / num_steps if decay else 1.0)


def cosine_with_warmup(progress: float, warmup: float = 0.04) -> float:
    """Factor on the learning rate once the share `progress` of a run is done: linear up over the first `warmup` share, then half a cosine
    down to zero."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))
