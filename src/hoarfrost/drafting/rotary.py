"""Rotary positions of the drafter: angles from transformers' own table of variants, as `hoarfrost.rotary.rotate` takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.rotary import RotaryTable, cos_sin


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
        self._table = RotaryTable(embedding.inv_freq, embedding.attention_scaling)  # on the CPU
        self._frequencies: Tensor = embedding.inv_freq.float()
        self._scale: float = embedding.attention_scaling

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`(cos, signed sin)`, each `[..., D]`, of int64 `positions [...]`."""
        if self._frequencies.device != positions.device:
            self._frequencies = self._frequencies.to(positions.device)
        cos, sin = cos_sin(positions, self._frequencies, self._scale)
        return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)

    def half_tables(self, spans: Sequence[range]) -> tuple[Tensor, Tensor]:
        """`(cos, sin)`, float32 `[n, D / 2]` each on the CPU, of spans of positions one after the other."""
        self._table.reserve(max((span.stop for span in spans), default=0))
        cos, sin = ([table.narrow(0, span.start, len(span)) for span in spans] for table in (self._table.cos, self._table.sin))
        return (cos[0], sin[0]) if len(spans) == 1 else (torch.cat(cos), torch.cat(sin))
