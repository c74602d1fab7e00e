"""A new drafter's first weights: the target's last layers, and a first layer whose heads look back by fixed distances.

Drafter and target read the same residual stream and share embedding and head, so the target's last decoder layers are already good at much
of what the drafter is to learn. The fusion starts as the deepest tap alone. Where the target norms no queries and keys per head, as the
drafter does, the weights of these norms take over the length that its queries and keys would have for inputs of unit variance.

What takes a new drafter longest to find is where to look: all mask slots start as the same vector and differ by their positions alone. So
the first layer's heads begin with attention by position: each finds the row 1, 2, 3 ... places before a slot, which leads to the bonus
token and the last rows of the context. Queries and keys get a part that is the same for all rows, whatever they hold (a linear map of the
input to 1, by least squares over embeddings and context), turned by rotary position; values and output copy a part of the row found.

Parts of another shape or kind keep their random start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.drafting import DFlashModel
from hoarfrost.drafting.network import Attention, Layer
from hoarfrost.rotary import rotate
from hoarfrost.target import Target

MATRICES = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
SHARPNESS = 1.9  # weights of the norms of queries and keys: nine tenths of the attention then fall on the row that is looked for
CONTENT = 0.1  # what queries and keys hold of their rows, beside a part of unit size that is the same for all
NUM_EMBEDDINGS = 8192  # rows to fit the constant part on, and a quarter as many masks
RIDGE = 1e-3
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


@torch.no_grad()
def look_back(model: DFlashModel, target: Target, features: Tensor) -> None:
    """Makes the heads of the first layer of a new `model` attend by distance; `features [T, n_feat * H]` are some of the target's."""
    config, layer = model.config, model.layers[0]
    assert isinstance(layer, Layer)
    attention, norm = layer.self_attn, layer.input_layernorm.weight
    token_ids = torch.cat((torch.arange(NUM_EMBEDDINGS) % target.vocab_size, torch.full((NUM_EMBEDDINGS // 4,), config.mask_token_id)))
    embeddings = model.scale_embeddings(target.embed(token_ids.to(target.device)).float())
    rows = functional.rms_norm(embeddings, norm.shape, norm, config.rms_norm_eps)
    rows = torch.cat((rows, model.context_features(features.float())))
    constant = map_to_one(rows)
    half = config.head_dim // 2
    turning = torch.zeros(config.head_dim, device=rows.device)
    turning[: max(1, half // 4)] = 1.0  # the fastest frequencies tell neighbours apart
    turning /= turning.square().mean().sqrt()
    cos, signed_sin = model.angles.tables(torch.arange(config.num_attention_heads, device=rows.device) + 1, torch.float32)
    for projection in (attention.q_proj, attention.k_proj):
        projection.weight.mul_(CONTENT / projection(rows).square().mean().sqrt())
    attention.k_proj.weight.view(config.num_key_value_heads, -1, config.hidden_size).add_(torch.outer(turning, constant))
    for head, queries in enumerate(attention.q_proj.weight.view(config.num_attention_heads, -1, config.hidden_size)):
        place = head % num_distances(model)
        queries.add_(torch.outer(rotate(turning, cos[place], -signed_sin[place]), constant))
    attention.q_norm.weight.fill_(SHARPNESS)
    attention.k_norm.weight.fill_(SHARPNESS)
    copy_through(attention, config.head_dim)


def num_distances(model: DFlashModel) -> int:
    """Heads look back by 1 to so many places: as many as share a key head, but four at least where there are so many heads."""
    config = model.config
    return max(config.num_attention_heads // config.num_key_value_heads, min(4, config.num_attention_heads))


def map_to_one(rows: Tensor) -> Tensor:
    """The vector `[H]` whose product with each of `rows [N, H]` is nearest to 1."""
    width = rows.shape[1]
    gram = rows.T @ rows
    gram += RIDGE * gram.diagonal().mean() * torch.eye(width, device=rows.device)
    solution: Tensor = torch.linalg.solve(gram, rows.sum(dim=0))
    return solution


def copy_through(attention: Attention, head_dim: int) -> None:
    """Values take orthonormal directions of a row, another for each key head, and the output puts them where they were."""
    values, output = attention.v_proj.weight, attention.o_proj.weight
    directions = torch.empty_like(values)
    nn.init.orthogonal_(directions)
    values.copy_(directions)
    per_head = directions.view(-1, head_dim, directions.shape[1])
    num_sharing = output.shape[1] // directions.shape[0]
    output.copy_(per_head.repeat_interleave(num_sharing, dim=0).flatten(0, 1).T)
