"""Watches a store decode and says how much of the attention it caught: per layer and KV head, against the best choice of as many rows.

Of the attention that a decoded token would pay to the committed rows without any cache, `mass` is the share of the rows that the store let
it see, `best_mass` that of the rows that the oracle would have taken at the same count, `recall` the share of the oracle's rows among the
store's. The query heads of a group are averaged. Stores that cannot say what they saw are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from hoarfrost.cache import Store, Visibility
from hoarfrost.evaluation.caches.runner import PromptRows


@runtime_checkable
class ShowsSelection(Protocol):
    """A store that can say which rows it read."""

    def selected_rows(self, layer: int) -> Tensor:
        """What the last `attend` of `layer` saw of the committed rows: a bool mask `[Hkv, 1 or n, T]`."""
        ...


@dataclass(frozen=True)
class Selection:
    """Means over the watched tokens, each `[layers][Hkv]`."""

    mass: list[list[float]]
    best_mass: list[list[float]]
    recall: list[list[float]]


class WatchedStore:
    """Passes everything on to `store`, which holds the prompt `rows`, and looks at every `every`-th decoded token."""

    def __init__(self, store: Store, rows: PromptRows, every: int = 8) -> None:
        self._store, self._rows, self._every = store, rows, every
        self._new: dict[int, Tensor] = {}
        self._decoded: dict[int, list[Tensor]] = {}
        self._sums: dict[int, Tensor] = {}
        self._num_steps = self._num_watched = 0

    @property
    def length(self) -> int:
        return self._store.length

    @property
    def max_depth(self) -> int | None:
        return self._store.max_depth

    def reserve(self, num_rows: int) -> None:
        self._store.reserve(num_rows)

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self._new[layer] = keys.clone()  # they may lie in memory that the next layer uses
        self._store.append(layer, keys, values)

    def attend(self, layer: int, queries: Tensor, visible: Visibility, *, scale: float, window: int | None = None) -> Tensor:
        out = self._store.attend(layer, queries, visible, scale=scale, window=window)
        if self._num_steps % self._every == 0 and queries.shape[1] == 1 and isinstance(self._store, ShowsSelection):
            self.look(layer, group_attention(queries[:, 0], self._keys(layer), scale), self._store)
        return out

    def look(self, layer: int, attention: Tensor, store: ShowsSelection) -> None:
        """Called with what `group_attention` says of a watched token, between its `attend` and its `commit`."""
        caught = measure_selection(attention, store.selected_rows(layer)[:, -1])
        self._sums[layer] = self._sums.get(layer, torch.zeros_like(caught)) + caught

    def start_decoding(self) -> None:
        self._store.start_decoding()

    def commit(self, rows: Sequence[int]) -> None:
        self._store.commit(rows)
        for layer, keys in self._new.items():
            self._decoded.setdefault(layer, []).append(keys[:, list(rows)])
        self._num_watched += bool(self._sums) and self._num_steps % self._every == 0
        self._num_steps += 1

    def truncate(self, length: int) -> None:
        self._store.truncate(length)
        kept = max(0, length - self._rows.length)
        self._decoded = {layer: [torch.cat(parts, dim=1)[:, :kept]] for layer, parts in self._decoded.items()}

    def bytes_by_tier(self) -> dict[str, int]:
        return self._store.bytes_by_tier()

    def selection(self) -> Selection | None:
        """What was seen so far; `None` of a store that does not say."""
        if not self._num_watched:
            return None
        means = torch.stack([self._sums[layer] for layer in sorted(self._sums)]) / self._num_watched
        mass, best_mass, recall = means.unbind(dim=1)
        return Selection(mass.tolist(), best_mass.tolist(), recall.tolist())

    def _keys(self, layer: int) -> Tensor:
        """All keys that the query sees, `[Hkv, T + 1, D]`, its own last."""
        parts = self._decoded.setdefault(layer, [])
        if len(parts) > 1:
            parts[:] = [torch.cat(parts, dim=1)]
        return torch.cat([self._rows.keys(layer), *parts, self._new[layer]], dim=1)


def group_attention(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """The attention `[Hkv, T]` that a token would pay to the rows before it without any cache, mean over the query heads of a group.

    `queries [H, D]`, `keys [Hkv, T + 1, D]` with the token's own last, whose share is left out.
    """
    num_kv_heads, _, head_dim = keys.shape
    grouped = queries.float().view(num_kv_heads, -1, head_dim)
    return torch.softmax(torch.matmul(grouped, keys.float().transpose(1, 2)) * scale, dim=-1)[..., :-1].mean(dim=1)


def measure_selection(attention: Tensor, selected: Tensor) -> Tensor:
    """Mass, best mass and recall per KV head, `[3, Hkv]`, of a token that pays `attention [Hkv, T]` and saw `selected [Hkv, T]`."""
    selected = selected.to(attention.device)
    counts = selected.sum(dim=1, keepdim=True)
    ranked, order = attention.sort(dim=1, descending=True)
    is_best = torch.arange(attention.shape[1], device=attention.device) < counts
    total = attention.sum(dim=1)
    mass = (attention * selected).sum(dim=1) / total
    best_mass = (ranked * is_best).sum(dim=1) / total
    recall = (selected.gather(1, order) & is_best).sum(dim=1) / counts[:, 0].clamp(min=1)
    return torch.stack([mass, best_mass, recall])
