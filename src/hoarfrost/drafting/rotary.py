"""Rotary positions of the drafter: angles from transformers' own table of variants, as `hoarfrost.rotary.rotate` takes them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Qwen3Config
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from hoarfrost.drafting.config import DFlashConfig

LEAST_KEPT = 512


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
        self._kept = self._cos_sin(torch.arange(0, device="cpu"))

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """`(cos, signed sin)`, each `[..., D]`, of int64 `positions [...]`."""
        if self._frequencies.device != positions.device:
            self._frequencies = self._frequencies.to(positions.device)
        cos, sin = self._cos_sin(positions)
        return torch.cat((cos, cos), dim=-1).to(dtype), torch.cat((-sin, sin), dim=-1).to(dtype)

    def half_tables(self, spans: Sequence[range]) -> tuple[Tensor, Tensor]:
        """`(cos, sin)`, float32 `[n, D / 2]` each on the CPU, of spans of positions one after the other.

        Those of all positions up to the last one asked for are kept; contexts take several times as much per position.
        """
        end = max((span.stop for span in spans), default=0)
        num_kept = self._kept[0].shape[0]
        if end > num_kept:
            self._kept = self._cos_sin(torch.arange(max(end, 2 * num_kept, LEAST_KEPT), device="cpu"))
        cos, sin = ([table.narrow(0, span.start, len(span)) for span in spans] for table in self._kept)
        return (cos[0], sin[0]) if len(spans) == 1 else (torch.cat(cos), torch.cat(sin))

    def _cos_sin(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        angles = positions.unsqueeze(-1) * self._frequencies
        return angles.cos() * self._scale, angles.sin() * self._scale
