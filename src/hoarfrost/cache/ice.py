"""The ice store: few rows are attended to, the rest waits in pages of similar rows (IceCache, arXiv 2604.10539).

The first rows (sinks), the last ones (window) and the rows of the current round are local: they lie side by side on the compute device.
What leaves the window goes into pages `[S, D]` per layer and KV head, in slow memory where compute and memory are apart. Per query an
index names the pages that matter, and attention runs over local rows and those pages.

- *The prompt* is attended to exactly, chunk by chunk: all rows before the chunk pass through the compute device one block of pages at a
  time, so that device memory holds a chunk, sinks, window and a block, whatever the length. Pages lie in order of position meanwhile.
- `start_decoding` ends it: where a layer has more rows in pages than may be retrieved, its index groups them anew and they are moved.
- *Decoding*: rows leave the window between rounds only, whole pages at a time, and go into the index. While all that waits in pages fits
  the budget all of it is attended to, and no index is built: the result is that of the dense store.
- `continue_prompt` returns to exact attention, for the next turn of a conversation.

A row's number within the pages is its position less the number of sinks. Layers that reuse another's index share its grouping and its
choice of pages (`layer_indexes`), and keep their own keys and values in pages of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hoarfrost.cache.hot_pages import HotPages
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cache.layer_indexes import LayerIndexes
from hoarfrost.cache.layer_pages import LayerPages
from hoarfrost.cache.local_rows import LocalRows
from hoarfrost.cache.page_pool import DeviceMemory, FileMemory, Memory, PagePool
from hoarfrost.cache.page_summaries import PageSummaries
from hoarfrost.cache.paged_attention import attend_everything, attend_pages
from hoarfrost.cache.store import Visibility
from hoarfrost.errors import InvalidInput

OBSERVED_QUERIES = 32  # the prompt's last queries, with which an index may test its grouping


class IceStore:
    """Implements `Store` for one sequence; see there for the contract, and the module for the idea."""

    def __init__(
        self,
        config: IceConfig,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        capacity: int = 256,
        cold_device: torch.device | str = "cpu",
    ) -> None:
        self.config = config
        device, cold_device = torch.device(device), torch.device(cold_device)
        local_capacity = min(capacity, config.budget + 2 * config.page_size)
        self._local = LocalRows(num_layers, num_kv_heads, head_dim, dtype=dtype, device=device, capacity=local_capacity)
        self._layers = [self._new_layer(layer, num_kv_heads, head_dim, dtype, device, cold_device) for layer in range(num_layers)]
        self._indexes = LayerIndexes(config, self._layers)
        self._last_queries: dict[int, Tensor] = {}
        self._is_decoding = False

    def _new_layer(
        self, layer: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device, cold_device: torch.device
    ) -> LayerPages:
        config = self.config
        if layer < config.full_layers:  # all of it is read every time: it stays on the compute device
            cold_device = device
        memory: Memory
        if config.cold_tier != "memory" and layer >= config.full_layers:
            memory = FileMemory(config.cold_tier)
        else:
            memory = DeviceMemory(cold_device, pinned=device.type == "cuda" and cold_device.type == "cpu")
        pool = PagePool(config.page_size, head_dim, dtype, memory)
        hot = HotPages(num_kv_heads, device) if device != cold_device else None
        summaries = PageSummaries(num_kv_heads, head_dim, device) if config.estimate and layer >= config.full_layers else None
        return LayerPages(num_kv_heads, pool, hot=hot, summaries=summaries)

    @property
    def length(self) -> int:
        return self._local.length + self.num_paged

    @property
    def num_paged(self) -> int:
        """Committed rows that left the window and wait in pages."""
        return self._layers[0].num_rows

    @property
    def num_layers(self) -> int:
        return len(self._layers)

    @property
    def dtype(self) -> torch.dtype:
        return self._layers[0].pool.buffer.dtype

    def rows_in_order(self, layer: int) -> Tensor:
        """A copy of the committed keys and values of a layer in order of position, `[2, Hkv, length, D]`, where its pages are."""
        table = self._indexes.table(layer)
        local = self._local.take(0, self._local.length)[:, layer].to(self._layers[layer].pool.buffer.device)
        sinks, window = local.tensor_split([self.config.num_sinks], dim=2)
        return torch.cat([sinks, self._layers[layer].in_order(table), window], dim=2)

    def last_queries(self) -> dict[int, Tensor]:
        """The prompt's last queries `[H, r, D]` per layer, with which indexes may test how they group."""
        return dict(self._last_queries)

    def set_last_queries(self, queries: dict[int, Tensor]) -> None:
        """Restores what `last_queries` gave; for contexts that were read elsewhere."""
        self._last_queries = dict(queries)

    def reserve(self, num_rows: int) -> None:
        """Makes room for the pages of a context of `num_rows` rows. Raises `InvalidInput` where memory or disk is too small."""
        for pages in self._layers:
            pages.reserve_rows(max(0, num_rows - self.length))

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        self._local.append(layer, keys, values)

    def attend(self, layer: int, queries: Tensor, visible: Visibility, *, scale: float, window: int | None = None) -> Tensor:
        """As `Store.attend`; exact until `start_decoding`. Layers with a sliding window of their own are not served."""
        if window is not None:
            raise InvalidInput(f"The ice store serves layers with full attention only, not with a window of {window} rows.")
        if not self._is_decoding:
            self._remember(layer, queries)
        if not self.num_paged:
            return self._local.attend(layer, queries, visible, scale=scale)
        pages = self._layers[layer]
        keys, values = self._local.rows(layer)
        square = _square(visible, queries)
        if not self._is_decoding:
            return attend_everything(queries, keys, values, pages.pool.buffer, pages.everything(), visible=square, scale=scale)
        chosen = self._indexes.choose(layer, queries, keys, square, scale)
        pool, lists = pages.fetch(chosen)
        summaries = None if pages.summaries is None or chosen is None else pages.summaries.without(pages.counts, chosen)
        return attend_pages(queries, keys, values, pool, lists, visible=square, scale=scale, summaries=summaries)

    def start_decoding(self) -> None:
        """Ends the prompt: builds the indexes; from here on the budget rules. Raises `InvalidInput` where memory runs out."""
        if self._is_decoding:
            return
        self._indexes.build(self._last_queries)
        self._is_decoding = True
        if self.num_paged:
            self._local.trim()

    def continue_prompt(self) -> None:
        """What follows belongs to a prompt again: it is attended to exactly until the next `start_decoding`."""
        self._is_decoding = False

    def commit(self, rows: Sequence[int]) -> None:
        self._local.commit(rows)
        self._empty_window()
        if self._is_decoding:
            self._indexes.build(self._last_queries)

    def truncate(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"Cannot truncate {self.length} rows to {length}; give a length between 0 and {self.length}.")
        self._indexes.forget_choices()
        num_paged = min(self.num_paged, max(0, length - self.config.num_sinks))
        if num_paged < self.num_paged:
            self._indexes.truncate(num_paged)
            self._local.truncate(min(self._local.length, self.config.num_sinks))
        self._local.truncate(length - self.num_paged)

    def bytes_by_tier(self) -> dict[str, int]:
        """`hot`: local rows, copies and summaries of pages on the compute device; `cold`: the pages; `index`: indexes and page tables."""
        hot = sum(self._local.bytes_by_tier().values())
        cold = index = 0
        for pages in self._layers:
            hot += sum(part.num_bytes() for part in (pages.hot, pages.summaries) if part is not None)
            cold += pages.pool.buffer.nbytes
            index += pages.num_bytes()
        return {"hot": hot, "cold": cold, "index": index + self._indexes.num_bytes()}

    def page_fill(self) -> float:
        """Rows over places, of all pages that hold any; 1 where there are none."""
        num_rows = sum(int(pages.counts.sum()) for pages in self._layers)
        num_pages = sum(int((pages.counts > 0).sum()) for pages in self._layers)
        return num_rows / (num_pages * self.config.page_size) if num_pages else 1.0

    def selected_pages(self, layer: int) -> Tensor | None:
        """The pages that the last `attend` of `layer` fetched, best first: positions int64 `[Hkv, L, P, S]`, -1 where no row is.

        L is 1 or one per row of the round. None: everything was attended to. Holds until the round is committed.
        """
        chosen, table = self._indexes.chosen(layer), self._indexes.table(layer)
        if chosen is None or table is None:
            return None
        rows = table.rows[np.arange(len(chosen))[:, None, None], chosen].astype(np.int64)
        return torch.from_numpy(np.where((rows >= 0) & (chosen >= 0)[..., None], rows + self.config.num_sinks, -1))

    def selected_rows(self, layer: int) -> Tensor:
        """What the last `attend` of `layer` saw of the committed rows: a bool mask `[Hkv, L, T]`, L 1 or one per row of the round."""
        pages = self.selected_pages(layer)
        if pages is None:
            return torch.ones((len(self._layers[layer].slots), 1, self.length), dtype=torch.bool)
        num_kv_heads, num_lists = pages.shape[:2]
        seen = torch.ones((num_kv_heads, num_lists, self.length + 1), dtype=torch.bool)
        first = self.config.num_sinks
        seen[:, :, first : first + self.num_paged] = False
        rows = torch.where(pages >= 0, pages, self.length).flatten(2)  # the last column takes what is none
        return seen.scatter_(2, rows, True)[:, :, : self.length]

    def _remember(self, layer: int, queries: Tensor) -> None:
        before = self._last_queries.get(layer, queries[:, :0])
        self._last_queries[layer] = torch.cat([before, queries[:, -OBSERVED_QUERIES:]], dim=1)[:, -OBSERVED_QUERIES:]

    def _empty_window(self) -> None:
        """Moves the window's oldest rows into pages until it is short enough again."""
        config = self.config
        excess = self._local.length - config.num_sinks - config.window
        if excess <= 0:
            return
        num_rows = -(-excess // config.page_size) * config.page_size
        for layer, pages in enumerate(self._layers):
            if self._indexes.has(layer):
                pages.reserve_insertion(num_rows)
            else:
                pages.reserve_rows(num_rows)
        num_before = self.num_paged
        try:
            self._indexes.insert(self._local.take(config.num_sinks, num_rows))
        except BaseException:
            self._indexes.truncate(num_before)
            raise
        self._local.remove(config.num_sinks, num_rows)


def _square(visible: Visibility, queries: Tensor) -> Tensor | None:
    """Visibility as a bool mask `[n, n]`, None for causal."""
    num_rows = queries.shape[1]
    if isinstance(visible, Tensor):
        return visible
    if visible == "causal" or num_rows == 1:
        return None
    return torch.ones((num_rows, num_rows), dtype=torch.bool, device=queries.device)
