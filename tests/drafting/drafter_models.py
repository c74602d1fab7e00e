"""Tiny random DFlash drafters, the target they borrow from, and a plain twin of the network that shares no code with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hoarfrost.drafting import DFlashConfig, DFlashModel
from hoarfrost.drafting.config import FULL, SLIDING
from hoarfrost.drafting.dflash import DFlashDrafter, DFlashState
from hoarfrost.drafting.rotary import RotaryAngles
from hoarfrost.tree import Conditionals, Transitions, top_of

HIDDEN, VOCAB, LAYERS = 32, 61, 6
CONFIG = DFlashConfig(
    hidden_size=HIDDEN,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vocab_size=VOCAB,
    mask_token_id=60,
    target_layer_ids=(1, 3, 4),
    num_target_layers=LAYERS,
    block_size=6,
    max_position_embeddings=256,
    rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
)
VARIANTS: dict[str, DFlashConfig] = {
    "full": CONFIG,
    "biased": replace(CONFIG, attention_bias=True),
    "one head": replace(CONFIG, num_attention_heads=3, num_key_value_heads=3, head_dim=8),
    "sliding": replace(CONFIG, layer_types=(SLIDING, SLIDING, FULL), sliding_window=9),
    "sliding both ways": replace(CONFIG, layer_types=(SLIDING, FULL, SLIDING), sliding_window=9, is_causal=False),
    "window within the block": replace(CONFIG, layer_types=(SLIDING,) * 3, sliding_window=3, is_causal=False),
    "causal": replace(CONFIG, is_causal=True),
    "convolutions": replace(CONFIG, conv_kernel_size=2, conv_group_size=8),
    "wide convolutions": replace(
        CONFIG, conv_kernel_size=4, conv_group_size=1, layer_types=(SLIDING,) * 3, sliding_window=9, is_causal=False
    ),
    "scaled": replace(CONFIG, input_embedding_scale=3.0, output_multiplier=0.5, final_logit_softcapping=2.0),
    "linear": replace(CONFIG, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}),
    "llama3": replace(
        CONFIG,
        rope_parameters={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
            "rope_theta": 1e4,
        },
    ),
    "yarn": replace(
        CONFIG, rope_parameters={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
    ),
}


@dataclass
class BorrowedParts:
    """Stands in for a target: only what a drafter borrows."""

    embed: nn.Embedding = field(default_factory=lambda: nn.Embedding(VOCAB, HIDDEN))
    head: nn.Module = field(default_factory=lambda: nn.Linear(HIDDEN, VOCAB, bias=False))
    weights: str = "float"
    name: str = "the test target"
    num_layers: int = LAYERS
    hidden_size: int = HIDDEN
    vocab_size: int = VOCAB
    dtype: torch.dtype = torch.float32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def to(self, device: str) -> BorrowedParts:
        return replace(self, embed=self.embed.to(device), head=self.head.to(device), device=torch.device(device))


def random_model(config: DFlashConfig, seed: int = 0) -> DFlashModel:
    """Weights wide enough for every part of the network to matter, norms and biases included, and no wider: eight convolutions in a row
    with kernels of size 3 would leave nothing of float32."""
    torch.manual_seed(seed)
    model = DFlashModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(mean=1.0 if "norm" in name else 0.0, std=0.05 if "kernel_projection" in name else 0.3)
    return model.eval()


def random_taps(num_rows: int, config: DFlashConfig = CONFIG) -> Tensor:
    return torch.randn(num_rows, len(config.target_layer_ids) * config.hidden_size)


def plain_block_hidden(model: DFlashModel, taps: Tensor, block: Tensor) -> Tensor:
    """Final hidden states `[b, H]` of one block `[b, H]` after T rows of context, from `taps [T, n_feat * H]`, head by head."""
    config, p = model.config, dict(model.named_parameters())
    num_context, size = taps.shape[0], block.shape[0]
    positions = torch.arange(num_context + size)
    angles = positions[:, None] * frequencies(config)
    cos, sin = (torch.cat((t, t), -1) * RotaryAngles(config)._scale for t in (angles.cos(), angles.sin()))
    context = norm(taps @ p["fc.weight"].T, p["hidden_norm.weight"])
    hidden = block
    for i in range(config.num_hidden_layers):
        at = f"layers.{i}.self_attn."
        normed = norm(hidden, p[f"layers.{i}.input_layernorm.weight"])
        kernels = plain_kernels(normed, p, f"layers.{i}.attention_conv.", config)
        normed = plain_convolution(normed, kernels[0])
        rows = torch.cat((context, normed))
        q = heads(norm_heads(linear(normed, p, at + "q_proj"), p[at + "q_norm.weight"]), cos[num_context:], sin[num_context:])
        k = heads(norm_heads(linear(rows, p, at + "k_proj"), p[at + "k_norm.weight"]), cos, sin)
        v = linear(rows, p, at + "v_proj").unflatten(-1, (-1, config.head_dim))
        mask = plain_mask(config, i, num_context, size)
        group = config.num_attention_heads // config.num_key_value_heads
        mixed = []
        for h in range(config.num_attention_heads):
            scores = q[:, h] @ k[:, h // group].T / config.head_dim**0.5
            mixed.append(scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v[:, h // group])
        hidden = hidden + plain_convolution(linear(torch.cat(mixed, -1), p, at + "o_proj"), kernels[1])
        normed = norm(hidden, p[f"layers.{i}.post_attention_layernorm.weight"])
        kernels = plain_kernels(normed, p, f"layers.{i}.mlp_conv.", config)
        normed = plain_convolution(normed, kernels[0])
        mlp = f"layers.{i}.mlp."
        gated = nn.functional.silu(linear(normed, p, mlp + "gate_proj")) * linear(normed, p, mlp + "up_proj")
        hidden = hidden + plain_convolution(linear(gated, p, mlp + "down_proj"), kernels[1])
    return norm(hidden, p["norm.weight"])


def plain_kernels(normed: Tensor, p: dict[str, nn.Parameter], at: str, config: DFlashConfig) -> list[Tensor | None]:
    """Kernels `[b, taps, H]` of the convolutions before and after a sublayer, channel by channel; None: there are none."""
    if config.conv_kernel_size is None or config.conv_group_size is None:
        return [None, None]
    groups = config.hidden_size // config.conv_group_size
    dynamic = (normed @ p[at + "kernel_projection.weight"].T).view(-1, 2, config.conv_kernel_size, groups)
    group_of_channel = torch.arange(config.hidden_size) // config.conv_group_size
    return [p[at + "base_kernel"][side] + dynamic[:, side][..., group_of_channel] for side in range(2)]


def plain_convolution(rows: Tensor, kernels: Tensor | None) -> Tensor:
    """Slot by slot, of one block `[b, H]`."""
    if kernels is None:
        return rows
    out = torch.zeros_like(rows)
    for slot in range(len(rows)):
        for tap in range(kernels.shape[1]):
            if slot >= tap:
                out[slot] += kernels[slot, tap] * rows[slot - tap]
    return out


def plain_logits(model: DFlashModel, target: BorrowedParts, taps: Tensor, bonus_token_id: int) -> Tensor:
    """Logits `[b - 1, V]` by the plain twin."""
    config = model.config
    block = target.embed(torch.tensor([bonus_token_id] + [config.mask_token_id] * (config.block_size - 1))) * config.input_embedding_scale
    logits = target.head(plain_block_hidden(model, taps, block)[1:]) * config.output_multiplier
    if config.final_logit_softcapping:
        logits = config.final_logit_softcapping * torch.tanh(logits / config.final_logit_softcapping)
    return logits


def plain_mask(config: DFlashConfig, layer: int, num_context: int, size: int) -> Tensor:
    """`[b, T + b]`, spelled out key by key."""
    window = config.sliding_window if config.layer_types[layer] == SLIDING else None
    causal = config.layer_types[layer] == SLIDING if config.is_causal is None else config.is_causal
    mask = torch.ones(size, num_context + size, dtype=torch.bool)
    for row in range(size):
        for key in range(num_context + size):
            ahead = key - (num_context + row)
            mask[row, key] = not (causal and ahead > 0) and (window is None or abs(ahead) < window)
    return mask


def frequencies(config: DFlashConfig) -> Tensor:
    """For the default and linear kinds spelled out, for the others transformers'."""
    rope: Any = config.rope_parameters
    if rope["rope_type"] in ("default", "linear"):
        return rope["rope_theta"] ** (-torch.arange(0, config.head_dim, 2) / config.head_dim) / rope.get("factor", 1.0)
    return RotaryAngles(config)._frequencies


def norm(rows: Tensor, weight: Tensor) -> Tensor:
    return rows * (rows.square().mean(-1, keepdim=True) + CONFIG.rms_norm_eps).rsqrt() * weight


def norm_heads(rows: Tensor, weight: Tensor) -> Tensor:
    return norm(rows.unflatten(-1, (-1, weight.shape[0])), weight)


def heads(rows: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = rows.chunk(2, -1)
    return rows * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


def linear(rows: Tensor, parameters: dict[str, nn.Parameter], name: str) -> Tensor:
    out = rows @ parameters[f"{name}.weight"].T
    return out + parameters[f"{name}.bias"] if f"{name}.bias" in parameters else out


def without_mask_token(logits: Tensor, config: DFlashConfig) -> Tensor:
    kept = [token for token in range(config.vocab_size) if token != config.mask_token_id]
    return logits[:, kept]


def proposed_transitions(drafter: DFlashDrafter, states: Sequence[DFlashState], bonus_token_ids: Sequence[int]) -> list[Transitions]:
    """What the selector makes of each slot's likeliest tokens."""
    guesses = [one for one in drafter.propose(states, bonus_token_ids) if isinstance(one, Conditionals)]
    assert len(guesses) == len(states)
    selector = guesses[0].selector
    log_probs, token_ids = top_of([one.marginals for one in guesses], selector.num_candidates)
    between = selector.weigh([one.row for one in guesses], log_probs, token_ids, np.ones(len(guesses)).tolist())
    return [Transitions(*parts) for parts in zip(token_ids, between, strict=True)]
