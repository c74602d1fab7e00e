"""The target: a transformers causal language model, run over packed rows.

Weights and their meaning are transformers'; its caches and its mask building are not used, because each sequence's store holds and masks
its own rows, and its layers only where ours do not know the model (`blocks`). The hidden states that a drafter reads are picked up between
layers, and the head runs over the rows that somebody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hoarfrost.cache import DenseStore, Store
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.target.blocks import Stack, StockStack
from hoarfrost.target.description import Description, describe
from hoarfrost.target.end_tokens import end_token_ids
from hoarfrost.target.loading import check_weights, held_kinds, load_gguf, load_model, pick_device, pick_dtype
from hoarfrost.target.packed import PackedRows


class Target:
    """A loaded model with what the rest of the engine needs to know of it. Without a `stack` it runs the model's own layers. `weights`
    names the kinds of blocks that its matrices are in ("Q4_K+Q6_K"), if any."""

    def __init__(self, model: PreTrainedModel, tokenizer: Any, name: str, stack: Stack | None = None, weights: str = "float") -> None:
        config = model.config
        self.model, self.tokenizer, self.name, self.weights = model, tokenizer, name, weights
        self.num_layers: int = config.num_hidden_layers
        self.hidden_size: int = config.hidden_size
        self.vocab_size: int = config.vocab_size
        self.max_positions: int = config.max_position_embeddings
        self.num_kv_heads: int = config.num_key_value_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.embed = cast(nn.Embedding, model.get_input_embeddings())
        self.head = cast(nn.Module, model.get_output_embeddings())  # type: ignore[no-untyped-call]
        first = next(model.parameters())  # quantised layers hold none
        self.device: torch.device = first.device
        self.dtype: torch.dtype = first.dtype
        self.eos_token_ids = end_token_ids(model, tokenizer)
        self._stack: Stack = stack or StockStack(model.base_model)

    @classmethod
    def load(
        cls,
        name: str,
        *,
        dtype: str = "auto",
        device: str = "auto",
        weights: str = "auto",
        revision: str | None = None,
        check: Callable[[Description], None] | None = None,
    ) -> Target:
        """Loads a folder, a GGUF file, a hub id or an alias; `revision` is a branch, tag or commit of the hub's.

        `weights`: "auto" holds them as the file does, those that are not quantised in `dtype`; "int8" puts every matrix that is not
        quantised into 8-bit blocks; "float" takes all into `dtype`. `check` may refuse the model before its weights are fetched and read.
        Raises `InvalidInput` for what cannot be found or is not served exactly.
        """
        place = pick_device(device)
        check_weights(weights, place)
        chosen = pick_dtype(dtype, place)
        described = describe(name, revision)
        if check is not None:
            check(described)
        kinds = held_kinds(described.gguf, place, weights)
        if described.gguf is None:
            model, stack = load_model(described.source, described.config, chosen, place, weights)
        else:
            model, stack = load_gguf(described.gguf, chosen, place, weights)
        return cls(model, described.load_tokenizer(), name, stack, "+".join(sorted(kinds)) or "float")

    def new_store(self, capacity: int = 256, cache: IceConfig | None = None) -> Store:
        """An empty store for one sequence: the dense one, or that of `cache`."""
        make = DenseStore if cache is None else cache.new_store
        return make(self.num_layers, self.num_kv_heads, self.head_dim, dtype=self.dtype, device=self.device, capacity=capacity)

    @torch.inference_mode()
    def forward(self, rows: PackedRows, taps: Sequence[int] = ()) -> tuple[Tensor, Tensor | None]:
        """Runs N packed rows; their keys and values are appended to the stores, uncommitted.

        Returns the hidden states after the final norm, `[N, H]`, and the outputs of the decoder layers in `taps` side by side,
        `[N, len(taps) * H]` (DFlash, arXiv 2602.06036; layer 0 is the first).
        """
        return self._stack(rows, taps)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[rows, V]` of final hidden states `[rows, H]`."""
        logits: Tensor = self.head(hidden)
        return logits
