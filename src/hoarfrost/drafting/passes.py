"""The two passes of a DFlash network over the stores of some sequences: what committed rows add to the context, and a block of masks
through all layers.

`TorchPasses` runs on any device, by `network.run_layer`; on a CPU `native_passes` does the same in one call each. All sequences share
every matrix product; attention runs per sequence, over its own store.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hoarfrost.cache import DenseStore
from hoarfrost.cache.store import Visibility
from hoarfrost.drafting.network import DFlashModel, context_keys_values, fuse_features, run_layer
from hoarfrost.kernels.linear import fastest_product


class Passes(Protocol):
    """A snapshot of one model's weights, ready to run."""

    def extend(self, stores: Sequence[DenseStore], counts: Sequence[int], taps: Tensor) -> None:
        """Commits `counts[i]` rows to `stores[i]`: `taps [sum of counts, n_feat * H]` are the target's tapped outputs."""
        ...

    def run(self, stores: Sequence[DenseStore], blocks: Tensor) -> Tensor:
        """Final normed states `[S, b - 1, H]` of all slots but the first of one block per store, from embeddings `[S * b, H]`.

        The stores hold no more rows than before.
        """
        ...


class TorchPasses:
    """Implements `Passes` in torch."""

    def __init__(self, model: DFlashModel) -> None:
        self._config, self._angles = model.config, model.angles
        self._weights = model.weights(fastest_product)
        self._offsets = torch.arange(model.config.block_size, device=self._weights.norm.device)
        self._visible = [self._visibility(layer) for layer in range(model.config.num_hidden_layers)]

    def extend(self, stores: Sequence[DenseStore], counts: Sequence[int], taps: Tensor) -> None:
        context = fuse_features(self._config, self._weights.fusion, self._weights.context_norm, taps)
        spans = [torch.arange(store.length, store.length + count, device=taps.device) for store, count in zip(stores, counts, strict=True)]
        tables = self._angles.tables(torch.cat(spans), context.dtype)
        keys, values = (part.permute(1, 2, 0, 3) for part in context_keys_values(self._config, self._weights, context, tables))
        start = 0
        for store, count in zip(stores, counts, strict=True):
            for layer in range(self._config.num_hidden_layers):
                store.append(layer, keys[layer, :, start : start + count], values[layer, :, start : start + count])
            store.commit(range(count))
            start += count

    def run(self, stores: Sequence[DenseStore], blocks: Tensor) -> Tensor:
        starts = torch.tensor([[store.length] for store in stores], device=self._offsets.device)
        tables = self._angles.tables((starts + self._offsets).flatten(), blocks.dtype)
        hidden = blocks
        for index, layer in enumerate(self._weights.layers):
            hidden = run_layer(self._config, layer, hidden, tables, partial(self._attend, stores, index))
        for store in stores:
            store.commit([])
        guessing = hidden.view(len(stores), self._config.block_size, -1)[:, 1:]
        return functional.rms_norm(guessing, self._weights.norm.shape, self._weights.norm, self._config.rms_norm_eps)

    def _attend(self, stores: Sequence[DenseStore], layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention `[N, H, D]` of all blocks in `layer`, each over its own store, to which it adds the block's keys and values."""
        size, visible = self._config.block_size, self._visible[layer]
        window, scale = self._config.window_of(layer), self._config.head_dim**-0.5
        queries, keys, values = (part.transpose(0, 1) for part in (queries, keys, values))
        mixed = []
        for index, store in enumerate(stores):
            rows = slice(index * size, (index + 1) * size)
            store.append(layer, keys[:, rows], values[:, rows])
            mixed.append(store.attend(layer, queries[:, rows], visible, scale=scale, window=window))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)

    def _visibility(self, layer: int) -> Visibility:
        """Which slots of a block see each other. A symmetric window hides later slots too, where it is narrower than the block."""
        window = self._config.window_of(layer)
        if self._config.is_causal_in(layer):
            return "causal"
        if window is None or window >= self._config.block_size:
            return "all"
        return (self._offsets[:, None] - self._offsets).abs() < window
