"""The DFlash drafter (arXiv 2602.06036): one pass over a block of masks gives the marginals of the next tokens; with a candidate selector
(DFlash 2, or one trained for a stock drafter), what follows each of the likeliest.

Per sequence, a `DenseStore` keeps the context's keys and values for all drafter layers. A round appends the block's own rows behind them,
attends, and drops them again: the bonus token enters as an embedding only, and becomes context when the target has committed it.

All sequences share every matrix product; attention runs per sequence, over its own store. The weights are fused when the drafter is built
(see `network`), so a drafter is a snapshot of the model it was built from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from hoarfrost.cache import DenseStore
from hoarfrost.cache.store import Visibility
from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.drafting.native_layers import NativeLayers, can_run_natively
from hoarfrost.drafting.network import (
    DFlashModel,
    context_keys_values,
    fuse_features,
    head_logits,
    run_layer,
    scale_embeddings,
)
from hoarfrost.drafting.protocol import DraftState
from hoarfrost.drafting.selector import propose_transitions
from hoarfrost.native.linear import fastest_product
from hoarfrost.tree import Marginals
from hoarfrost.tree.transitions import Transitions

__all__ = ["BorrowedTarget", "DFlashConfig", "DFlashDrafter", "DFlashModel", "DFlashState"]


class BorrowedTarget(Protocol):
    """What a DFlash drafter uses of its target."""

    embed: nn.Embedding
    head: nn.Module
    name: str
    num_layers: int
    hidden_size: int
    vocab_size: int
    dtype: torch.dtype
    device: torch.device


class DFlashState:
    """The context of one sequence: keys and values of every committed row."""

    def __init__(self, store: DenseStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return self.store.length


class DFlashDrafter:
    """Implements `Drafter`. The mask token is never guessed: its logit is set to -inf, which costs one write per row."""

    def __init__(self, model: DFlashModel, target: BorrowedTarget, name: str = "dflash") -> None:
        self.config, self.name = model.config, name
        self.horizon = model.config.block_size - 1
        self.taps = model.config.target_layer_ids
        self._target = target
        self._angles = model.angles
        with torch.no_grad():
            self._weights = model.weights(fastest_product)
            self._native = NativeLayers(model) if can_run_natively(model) else None
        if self._native is not None:
            self._weights = replace(self._weights, layers=())  # held once
        self._offsets = torch.arange(model.config.block_size, device=self._weights.norm.device)
        self._visible = [self._visibility(layer) for layer in range(model.config.num_hidden_layers)]

    def new_state(self, capacity: int = 256) -> DFlashState:
        """An empty state; `capacity` is rounded up to leave room for the block's own rows."""
        config, norm = self.config, self._weights.norm
        return DFlashState(
            DenseStore(
                config.num_hidden_layers,
                config.num_key_value_heads,
                config.head_dim,
                dtype=norm.dtype,
                device=norm.device,
                capacity=capacity + config.block_size,
            )
        )

    @torch.inference_mode()
    def extend(self, states: Sequence[DraftState], features: Sequence[Tensor]) -> None:
        """Adds committed rows to the contexts: `features[i] [m_i, n_feat * H]` are the tapped outputs from `len(states[i])` on."""
        stores = [cast(DFlashState, state).store for state in states]
        counts = [part.shape[0] for part in features]
        taps = torch.cat(list(features)) if len(features) > 1 else features[0]
        context = fuse_features(self.config, self._weights.fusion, self._weights.context_norm, taps)
        spans = [torch.arange(store.length, store.length + count, device=taps.device) for store, count in zip(stores, counts, strict=True)]
        tables = self._angles.tables(torch.cat(spans), context.dtype)
        keys, values = (part.permute(1, 2, 0, 3) for part in context_keys_values(self.config, self._weights, context, tables))
        start = 0
        for store, count in zip(stores, counts, strict=True):
            for layer in range(self.config.num_hidden_layers):
                store.append(layer, keys[layer, :, start : start + count], values[layer, :, start : start + count])
            store.commit(range(count))
            start += count

    @torch.inference_mode()
    def propose(self, states: Sequence[DraftState], bonus_token_ids: Sequence[int]) -> Sequence[Marginals | Transitions]:
        """Guesses at the `block_size - 1` tokens after each state's bonus token, which stands at `len(state)`: `Transitions` if there is
        a selector, else `Marginals`. The contexts stay as they are."""
        config = self.config
        stores = [cast(DFlashState, state).store for state in states]
        starts = torch.tensor([[store.length] for store in stores], device=self._offsets.device)
        hidden = self._run_layers(self._embed_blocks(bonus_token_ids), (starts + self._offsets).flatten(), stores)
        for store in stores:
            store.commit([])
        guessing = hidden.view(len(stores), config.block_size, -1)[:, 1:]
        normed = torch.nn.functional.rms_norm(guessing, self._weights.norm.shape, self._weights.norm, config.rms_norm_eps)
        logits = head_logits(config, normed, self._target.head)
        logits[..., config.mask_token_id] = float("-inf")
        if self._weights.selector is None:
            return [Marginals(logits=rows) for rows in logits]
        return propose_transitions(self._weights.selector, normed, logits, bonus_token_ids)

    def _embed_blocks(self, bonus_token_ids: Sequence[int]) -> Tensor:
        """Embeddings `[S * b, H]` of one block per sequence: its bonus token, then masks."""
        device = self._offsets.device
        token_ids = torch.full((len(bonus_token_ids), self.config.block_size), self.config.mask_token_id, device=device)
        token_ids[:, 0] = torch.tensor(bonus_token_ids, device=device)
        return scale_embeddings(self.config, self._target.embed(token_ids.flatten()))

    def _run_layers(self, hidden: Tensor, positions: Tensor, stores: Sequence[DenseStore]) -> Tensor:
        """Block rows `hidden [S * b, H]` through all layers, natively where that is possible."""
        dtype = self._weights.norm.dtype
        if self._native is not None:
            tables = self._angles.tables(positions, torch.float32)
            return self._native.run(hidden, tables, partial(self._attend, stores)).to(dtype)
        tables = self._angles.tables(positions, dtype)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            return self._attend(stores, layer, queries.transpose(0, 1), keys.transpose(0, 1), values.transpose(0, 1))

        for index, layer in enumerate(self._weights.layers):
            hidden = run_layer(self.config, layer, hidden, tables, partial(attend, index))
        return hidden

    def _attend(self, stores: Sequence[DenseStore], layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention `[N, H, D]` of all blocks in `layer`, each over its own store, to which it adds the block's keys and values.

        `queries [H, N, D]`, `keys` and `values [Hkv, N, D]`, one block after the other.
        """
        size, visible = self.config.block_size, self._visible[layer]
        window, scale = self.config.window_of(layer), self.config.head_dim**-0.5
        mixed = []
        for index, store in enumerate(stores):
            rows = slice(index * size, (index + 1) * size)
            store.append(layer, keys[:, rows], values[:, rows])
            mixed.append(store.attend(layer, queries[:, rows], visible, scale=scale, window=window))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _visibility(self, layer: int) -> Visibility:
        """Which slots of a block see each other. A symmetric window hides later slots too, where it is narrower than the block."""
        window = self.config.window_of(layer)
        if self.config.is_causal_in(layer):
            return "causal"
        if window is None or window >= self.config.block_size:
            return "all"
        return (self._offsets[:, None] - self._offsets).abs() < window
