"""Other ways to attend to few rows, as stores: the recent window with sinks, SnapKV, and the exact top-k oracle.

They are what the ice store is compared with, so they are plain: each computes the scores of all rows and hides those that the method
would not have read. They measure what a method's choice costs in accuracy; they save neither memory nor time, and `bytes_by_tier` says so.

The prompt is attended to exactly. From `start_decoding` on a query sees at most `budget` committed rows per KV head, in every layer,
besides the visible rows of its own round; with a budget of the whole context the result is that of the dense store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from hoarfrost.cache.attention import pack_heads
from hoarfrost.cache.dense import DenseStore
from hoarfrost.cache.store import Visibility
from hoarfrost.errors import InvalidInput


class Selection(Protocol):
    """Which committed rows a query sees. One object serves one store; T counts the committed rows, G the query heads of a KV head."""

    @property
    def num_observed(self) -> int:
        """How many of the prompt's last queries `observe` wants to see."""
        ...

    def observe(self, layer: int, probabilities: Tensor) -> None:
        """Told once per layer at the prompt's end: the attention `[Hkv, G, w, T]` of its last w queries, w at most `num_observed`."""
        ...

    def choose(self, layer: int, probabilities: Tensor) -> Tensor:
        """A bool mask `[Hkv, 1 or n, T]`: what each of n rows may see, given the attention `[Hkv, G, n, T]` it would pay without a mask."""
        ...


@dataclass(frozen=True)
class WindowSelection:
    """The first rows and the last ones (StreamingLLM, arXiv 2309.17453, where four sinks suffice)."""

    budget: int
    num_sinks: int = 4
    num_observed: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.budget <= self.num_sinks:
            raise InvalidInput(f"A budget of {self.budget} rows leaves no window behind {self.num_sinks} sinks; give more rows.")

    def observe(self, layer: int, probabilities: Tensor) -> None:
        pass

    def choose(self, layer: int, probabilities: Tensor) -> Tensor:
        num_kv_heads, _, _, num_rows = probabilities.shape
        rows = torch.arange(num_rows, device=probabilities.device)
        seen = (rows < self.num_sinks) | (rows >= num_rows - (self.budget - self.num_sinks))
        return seen.expand(num_kv_heads, 1, -1)


class SnapKVSelection:
    """The prompt compressed to what its last queries look at (SnapKV, arXiv 2404.14469).

    Per KV head the attention of the last `window` queries, summed over them and the heads of the group, is max-pooled over `kernel_size`
    neighbouring rows, and the best `budget - window` rows before those queries are kept for good. The recent window moves on while
    decoding; the published code lets it grow instead, and so exceeds its budget. Defaults as published for LongBench.
    """

    def __init__(self, budget: int, window: int = 32, kernel_size: int = 7) -> None:
        if budget <= window:
            raise InvalidInput(f"A budget of {budget} rows leaves SnapKV nothing beside its window of {window} rows; give more rows.")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise InvalidInput(f"The pooling kernel of SnapKV is {kernel_size} rows wide; it must be odd and at least 1.")
        self.budget, self.num_observed, self.kernel_size = budget, window, kernel_size
        self._kept: dict[int, Tensor] = {}

    def observe(self, layer: int, probabilities: Tensor) -> None:
        num_kv_heads, _, num_queries, num_rows = probabilities.shape
        kept = torch.zeros((num_kv_heads, num_rows - num_queries), dtype=torch.bool, device=probabilities.device)
        num_kept = min(self.budget - self.num_observed, kept.shape[1])
        if num_kept:
            votes = probabilities.sum(dim=(1, 2))[:, : kept.shape[1]]
            pooled = functional.max_pool1d(votes, self.kernel_size, stride=1, padding=self.kernel_size // 2)
            kept.scatter_(1, pooled.topk(num_kept, dim=1).indices, True)
        self._kept[layer] = kept

    def choose(self, layer: int, probabilities: Tensor) -> Tensor:
        num_kv_heads, _, _, num_rows = probabilities.shape
        kept = self._kept[layer][:, :num_rows]
        num_recent = self.budget - min(self.budget - self.num_observed, kept.shape[1])
        seen = torch.zeros((num_kv_heads, num_rows), dtype=torch.bool, device=probabilities.device)
        seen[:, : kept.shape[1]] = kept
        seen[:, max(0, num_rows - num_recent) :] = True
        return seen[:, None]


@dataclass(frozen=True)
class OracleSelection:
    """The rows to which the query heads of a group together pay most attention: no index that keeps `budget` rows captures more mass."""

    budget: int
    num_observed: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InvalidInput(f"The oracle's budget is {self.budget} rows; give at least 1.")

    def observe(self, layer: int, probabilities: Tensor) -> None:
        pass

    def choose(self, layer: int, probabilities: Tensor) -> Tensor:
        mass = probabilities.sum(dim=1)
        best = mass.topk(min(self.budget, mass.shape[-1]), dim=-1).indices
        return torch.zeros_like(mass, dtype=torch.bool).scatter_(-1, best, True)


class SelectingStore(DenseStore):
    """A dense store of which a query sees what a selection lets it see; exact until `start_decoding`."""

    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        selection: Selection,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        capacity: int = 256,
    ) -> None:
        super().__init__(num_layers, num_kv_heads, head_dim, dtype=dtype, device=device, capacity=capacity)
        self.selection = selection
        self._is_decoding = False
        self._last_queries: dict[int, tuple[Tensor, float]] = {}
        self._selected: dict[int, Tensor] = {}

    def attend(self, layer: int, queries: Tensor, visible: Visibility, *, scale: float, window: int | None = None) -> Tensor:
        """As `Store.attend`; models whose layers have a sliding window of their own are not served while decoding."""
        if not self._is_decoding:
            self._remember(layer, queries, scale)
            return super().attend(layer, queries, visible, scale=scale, window=window)
        if window is not None:
            raise InvalidInput(f"The baseline stores serve layers with full attention only, not with a window of {window} rows.")
        num_heads, num_rows, head_dim = queries.shape
        scores = self._scores(layer, queries, self._square(visible, num_rows), scale)
        past = scores[..., : self.length]
        selected = self.selection.choose(layer, torch.softmax(scores, dim=-1)[..., : self.length])
        past.masked_fill_(~selected[:, None], float("-inf"))
        self._selected[layer] = selected
        values = self._buffer[1, layer, :, : self.length + num_rows].float()
        out = torch.matmul(torch.softmax(scores, dim=-1).flatten(1, 2), values)
        return out.reshape(num_heads, num_rows, head_dim).transpose(0, 1).to(queries.dtype)

    def start_decoding(self) -> None:
        """Ends the prompt: from here on the selection rules."""
        self._is_decoding = True
        for layer, (queries, scale) in self._last_queries.items():
            num_queries = queries.shape[1]
            square = torch.ones((num_queries, num_queries), dtype=torch.bool, device=queries.device).tril()
            scores = self._scores(layer, queries, square, scale, num_keys=self.length)
            self.selection.observe(layer, torch.softmax(scores, dim=-1))
        self._last_queries.clear()

    def selected_rows(self, layer: int) -> Tensor:
        """What the last `attend` of `layer` saw of the committed rows: a bool mask `[Hkv, 1 or n, T]`."""
        return self._selected[layer]

    def _remember(self, layer: int, queries: Tensor, scale: float) -> None:
        wanted = self.selection.num_observed
        if wanted:
            before = [self._last_queries[layer][0]] if layer in self._last_queries else []
            self._last_queries[layer] = (torch.cat([*before, queries], dim=1)[:, -wanted:], scale)

    def _scores(self, layer: int, queries: Tensor, square: Tensor, scale: float, num_keys: int | None = None) -> Tensor:
        """Float32 scores `[Hkv, G, n, num_keys]` of n queries that belong to the last n keys and see each other as `square [n, n]` says."""
        num_heads, num_rows, _ = queries.shape
        num_keys = num_keys or self.length + num_rows
        keys = self._buffer[0, layer, :, :num_keys].float()
        num_kv_heads = keys.shape[0]
        scores = torch.matmul(pack_heads(queries.float() * scale, num_kv_heads), keys.transpose(1, 2))
        scores = scores.view(num_kv_heads, num_heads // num_kv_heads, num_rows, num_keys)
        scores[..., num_keys - num_rows :].masked_fill_(~square, float("-inf"))
        return scores
