"""A new drafter's first weights: those of the target's last layers.

Drafter and target read the same residual stream and share embedding and head, so the target's last decoder layers are already good at most
of what the drafter is to learn. The fusion starts as the deepest tap alone. Where the target norms no queries and keys per head, as the
drafter does, the weights of these norms take over the length that its queries and keys would have for inputs of unit variance.

Parts of another shape or kind keep their random start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hoarfrost.drafting import DFlashModel
from hoarfrost.drafting.network import Layer
from hoarfrost.target import Target

MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
NORMS = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")


@torch.no_grad()
def start_from_target(model: DFlashModel, target: Target) -> None:
    """Overwrites the weights of a new `model` by those of the last layers of `target` as far as these fit."""
    decoder: Any = target.model.base_model
    sources = list(decoder.layers)[-model.config.num_hidden_layers :]
    layers = [layer for layer in model.layers if isinstance(layer, Layer)]
    for layer, source in zip(layers[-len(sources) :], sources, strict=True):
        for name in (*MATRICES, *NORMS):
            copy_weight(submodule(layer, name), submodule(source, name))
        match_norms(layer, source)
    copy_weight(model.norm, decoder.norm)
    width = model.config.hidden_size
    model.fc.weight.zero_()
    model.fc.weight[:, -width:] = torch.eye(width)
    norms = [layer.input_layernorm.weight for layer in layers]
    model.hidden_norm.weight.copy_(torch.stack([norm.abs() for norm in norms]).mean(dim=0))


def match_norms(layer: Layer, source: nn.Module) -> None:
    """Gives norms of queries and keys that `source` does not have the length of what they norm."""
    gain = layer.input_layernorm.weight
    for norm, projection in ((layer.self_attn.q_norm, layer.self_attn.q_proj), (layer.self_attn.k_norm, layer.self_attn.k_proj)):
        name = "q_norm" if norm is layer.self_attn.q_norm else "k_norm"
        if submodule(source, f"self_attn.{name}") is None:
            squares = (projection.weight * gain).square().sum(dim=1).view(-1, norm.weight.shape[0])
            norm.weight.copy_(squares.mean(dim=0).sqrt())


def submodule(module: nn.Module, name: str) -> nn.Module | None:
    for part in name.split("."):
        found = getattr(module, part, None)
        if not isinstance(found, nn.Module):
            return None
        module = found
    return module


def copy_weight(into: nn.Module | None, source: nn.Module | None) -> None:
    """Copies weight and bias where both sides have one of the same shape."""
    for name in ("weight", "bias"):
        ours, theirs = getattr(into, name, None), getattr(source, name, None)
        if isinstance(ours, Tensor) and isinstance(theirs, Tensor) and ours.shape == theirs.shape:
            ours.copy_(theirs)
