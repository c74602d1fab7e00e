"""The target: a transformers causal language model, run over packed rows.

Only the decoder stack is taken from transformers (embedding, rotary table, layers, final norm, head); its caches and its mask building are
not used, because each sequence's store holds and masks its own rows. The hidden states that a drafter reads are picked up between layers,
and the head runs over the rows that somebody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hoarfrost.cache import DenseStore
from hoarfrost.target.loading import load_config, load_model, load_tokenizer, pick_device, pick_dtype
from hoarfrost.target.packed import PackedRows


class Target:
    """A loaded model with what the rest of the engine needs to know of it."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, name: str) -> None:
        config = model.config
        self.model, self.tokenizer, self.name = model, tokenizer, name
        self.num_layers: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        self.vocab_size: int = config.vocab_size
        self.max_positions: int = config.max_position_embeddings
        self.num_kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.embed = cast(nn.Embedding, model.get_input_embeddings())
        self.head = cast(nn.Module, model.get_output_embeddings())  # type: ignore[no-untyped-call]
        self.device: torch.device = self.embed.weight.device
        self.dtype: torch.dtype = self.embed.weight.dtype
        self.eos_token_ids = end_token_ids(model, tokenizer)
        self._decoder: Any = model.base_model

    @classmethod
    def load(cls, name: str, *, dtype: str = "auto", device: str = "auto") -> Target:
        """Loads a folder, a hub id or a shipped alias. Raises `InvalidInput` for what cannot be found or is not served exactly."""
        place = pick_device(device)
        config = load_config(name)
        model = load_model(name, config, pick_dtype(dtype, place), place)
        return cls(model, load_tokenizer(name), name)

    def new_store(self, capacity: int = 256) -> DenseStore:
        """An empty store for one sequence."""
        return DenseStore(self.num_layers, self.num_kv_heads, self.head_dim, dtype=self.dtype, device=self.device, capacity=capacity)

    @torch.inference_mode()
    def forward(self, rows: PackedRows, taps: Sequence[int] = ()) -> tuple[Tensor, Tensor | None]:
        """Runs N packed rows; their keys and values are appended to the stores, uncommitted.

        Returns the hidden states after the final norm, `[N, H]`, and the outputs of the decoder layers in `taps` side by side,
        `[N, len(taps) * H]` (DFlash, arXiv 2602.06036; layer 0 is the first).
        """
        hidden = self._decoder.embed_tokens(rows.token_ids)
        rotary = self._decoder.rotary_emb(hidden, position_ids=rows.positions)
        tapped: dict[int, Tensor] = {}
        for index, layer in enumerate(self._decoder.layers):
            hidden = layer(hidden, position_embeddings=rotary, position_ids=rows.positions, packed=rows)
            if index in taps:
                tapped[index] = hidden[0]
        features = torch.cat([tapped[index] for index in taps], dim=-1) if taps else None
        return self._decoder.norm(hidden)[0], features

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[rows, V]` of final hidden states `[rows, H]`."""
        logits: Tensor = self.head(hidden)
        return logits


def end_token_ids(model: PreTrainedModel, tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a text: those of the generation config, else the tokenizer's, if there is one."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    if configured is None:
        configured = getattr(tokenizer, "eos_token_id", None)
    if configured is None:
        return ()
    return tuple(configured) if isinstance(configured, (list, tuple)) else (int(configured),)
