"""Rotary positions of the drafter: angles from transformers' own table of variants, as `hoarfrost.rotary.rotate` takes them."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from hoarfrost.drafting.config import DFlashConfig


class RotaryAngles:
    """Frequencies of one configuration (default, linear, llama3 or yarn); cos and sin tables for any positions.

    Held outside any module, so that casting a model to half precision leaves the frequencies in float32.
    """

    def __init__(self, config: DFlashConfig) -> None:
        with torch.device("cpu"):
            embedding = Qwen3RotaryEmbedding(
                Qwen3Config(
                    hidden_size=config.hidden_size,
                    num_attention_heads=config.num_attention_heads,
                    head_dim=config.head_dim,
                    max_position_embeddings=config.max_position_embeddings,
                    rope_parameters=dict(config.rope_parameters),
                )
            )
        self._frequencies: Tensor = embedding.inv_freq.float()
        self._scale: float = embedding.attention_scaling

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`(cos, signed sin)`, each `[..., D]`, of int64 `positions [...]`."""
        if self._frequencies.device != positions.device:
            self._frequencies = self._frequencies.to(positions.device)
        angles = positions.unsqueeze(-1) * self._frequencies
        cos, sin = angles.cos() * self._scale, angles.sin() * self._scale
        return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)
