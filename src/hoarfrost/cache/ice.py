"""The ice store: few rows are attended to, the rest waits in pages of similar rows (IceCache, arXiv 2604.10539).

The first rows (sinks), the last ones (window) and the rows of the current round are local: they lie side by side on the compute device.
What leaves the window goes into pages `[S, D]` per layer and KV head, in slow memory where compute and memory are apart. Per query an
index names the pages that matter, and attention runs over local rows and those pages.

- *The prompt* is attended to exactly, chunk by chunk: all rows before the chunk pass through the compute device one block of pages at a
  time, so that device memory holds a chunk, sinks, window and a block, whatever the length. Pages lie in order of position meanwhile.
- `start_decoding` ends it: where a layer has more rows in pages than may be retrieved, its index groups them anew and they are moved.
- *Decoding*: rows leave the window whole pages at a time, at fixed positions. While all that waits in pages fits the budget all of it is
  attended to, and no index is built: the result is that of the dense store.
- `continue_prompt` returns to exact attention, for the next turn of a conversation.

What a decoded row sees follows from its position, not from the rounds: where an index only appends, a page is filed as soon as it is full,
long before its rows leave the window, and each row of a draft tree sees the window as it will be at its own position (`round_view`). That
reaches as deep as pages are filed (`max_depth`), which is a window's length less a page or more; where an index cannot be told to leave out
its newest pages (`dci`), it reaches to the next row at which something leaves.

A row's number within the pages is its position less the number of sinks. Layers that reuse another's index share its grouping and its
choice of pages (`layer_indexes`), and keep their own keys and values in pages of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.hot_pages import HotPages
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cache.layer_indexes import LayerIndexes
from hoarfrost.cache.layer_pages import LayerPages
from hoarfrost.cache.local_rows import LocalRows
from hoarfrost.cache.page_pool import DeviceMemory, FileMemory, Memory, PagePool
from hoarfrost.cache.page_summaries import PageSummaries
from hoarfrost.cache.paged_attention import attend_everything, attend_pages
from hoarfrost.cache.round_view import RoundView
from hoarfrost.cache.store import Visibility
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.page_attention import HiddenRows

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
        self.num_left = 0
        """Committed rows that left the window."""
        self._lefts = np.zeros(1, np.int64)

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
        return self._local.length + self.num_left

    @property
    def num_paged(self) -> int:
        """Committed rows that stand in pages: those that left the window, and while decoding the next ones that will."""
        return self._layers[0].num_rows

    @property
    def max_depth(self) -> int | None:
        """As `Store.max_depth`, for `tree_queries="each"`; with "union" rows see what their neighbours asked for in any case."""
        config = self.config
        if not self._is_decoding or config.tree_queries == "union" or config.full_layers >= self.num_layers:
            return None
        num_foreseen = self.num_paged if len(self._indexes) else config.retrieved_rows // config.page_size * config.page_size
        return max(0, config.num_sinks + config.window + num_foreseen - self.length)

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
        return torch.cat([sinks, self._layers[layer].in_order(table)[:, :, : self.num_left], window], dim=2)

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
        if not self.num_left:
            return self._local.attend(layer, queries, visible, scale=scale)
        pages = self._layers[layer]
        keys, values = self._local.rows(layer)
        square = _square(visible, queries)
        if not self._is_decoding:
            everything = pages.everything(self.num_left)
            return attend_everything(queries, keys, values, pages.pool.buffer, everything, visible=square, scale=scale)
        view = self._view(square, queries.shape[1])
        chosen = self._indexes.choose(layer, queries, keys, view, scale)
        pool, lists = pages.fetch(chosen, self.num_left)
        if chosen is None:
            return attend_pages(queries, keys, values, pool, lists, visible=square, scale=scale)
        summaries = None if pages.summaries is None else pages.summaries.without(pages.counts, chosen.pages, view.pages_ahead)
        return attend_pages(queries, keys, values, pool, lists, visible=square, scale=scale, hidden=view.hidden, summaries=summaries)

    def start_decoding(self) -> None:
        """Ends the prompt: builds the indexes; from here on the budget rules. Raises `InvalidInput` where memory runs out."""
        if self._is_decoding:
            return
        self._indexes.build(self._last_queries)
        self._is_decoding = True
        self._file_ahead()
        if self.num_left:
            self._local.trim()

    def continue_prompt(self) -> None:
        """What follows belongs to a prompt again: it is attended to exactly until the next `start_decoding`."""
        if self._is_decoding:
            self._indexes.truncate(self.num_left)
        self._is_decoding = False

    def commit(self, rows: Sequence[int]) -> None:
        self._local.commit(rows)
        self._empty_window()
        if self._is_decoding:
            self._indexes.build(self._last_queries)
            self._file_ahead()

    def truncate(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise ValueError(f"Cannot truncate {self.length} rows to {length}; give a length between 0 and {self.length}.")
        self._indexes.forget_choices()
        num_left = min(self.num_left, max(0, length - self.config.num_sinks))
        self._indexes.truncate(num_left)
        if num_left < self.num_left:
            self._local.truncate(min(self._local.length, self.config.num_sinks))
        self.num_left = num_left
        self._local.truncate(length - num_left)
        if self._is_decoding:
            self._indexes.build(self._last_queries)
            self._file_ahead()

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
        """What the last `attend` of `layer` fetched, best first: positions int64 `[Hkv, L, P, S]`, -1 where no row is.

        S is the page size, or 1 where single rows were attended to; L is 1 or one per row of the round. None: everything was attended to.
        Holds until the round is committed.
        """
        chosen, table = self._indexes.chosen(layer), self._indexes.table(layer)
        if chosen is None or table is None:
            return None
        heads = np.arange(len(chosen.pages))[:, None, None]
        rows = table.rows[heads, chosen.pages] if chosen.places is None else table.rows[heads, chosen.pages, chosen.places][..., None]
        held = (rows >= 0) & (chosen.pages >= 0)[..., None]
        return torch.from_numpy(np.where(held, rows.astype(np.int64) + self.config.num_sinks, -1))

    def selected_rows(self, layer: int) -> Tensor:
        """What the last `attend` of `layer` saw of the committed rows: a bool mask `[Hkv, L, T]`, L 1 or one per row of the round."""
        pages = self.selected_pages(layer)
        if pages is None:
            return torch.ones((len(self._layers[layer].slots), 1, self.length), dtype=torch.bool)
        num_kv_heads, num_lists = pages.shape[:2]
        places = torch.arange(self.length + 1) - self.config.num_sinks
        seen = ((places < 0) | (places >= torch.from_numpy(self._lefts[:num_lists, None]))).repeat(num_kv_heads, 1, 1)
        rows = torch.where(pages >= 0, pages, self.length).flatten(2)  # the last column takes what is none
        return seen.scatter_(2, rows, True)[:, :, : self.length]

    def _remember(self, layer: int, queries: Tensor) -> None:
        before = self._last_queries.get(layer, queries[:, :0])
        self._last_queries[layer] = torch.cat([before, queries[:, -OBSERVED_QUERIES:]], dim=1)[:, -OBSERVED_QUERIES:]

    def _left_at(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many rows have left the window when so many are committed: whole pages."""
        config = self.config
        excess = lengths - (config.num_sinks + config.window)
        return np.maximum(-(-excess // config.page_size) * config.page_size, self.num_left)

    def _view(self, square: Tensor | None, num_rows: int) -> RoundView:
        """What the rows of a round see, each at its own position, as far as pages are filed ahead."""
        self._lefts = np.full(num_rows, self.num_left)
        if self.num_paged == self.num_left:
            return RoundView(square, None, np.zeros(num_rows, np.int64))
        if num_rows > 1 and self.config.tree_queries == "each":
            depths = np.arange(num_rows) if square is None else square.sum(dim=1).cpu().numpy() - 1
            self._lefts = np.minimum(self._left_at(self.length + depths), self.num_paged)
        num_hidden = (self._lefts - self.num_left).astype(np.int32)
        hidden = HiddenRows(self.config.num_sinks, num_hidden) if num_hidden.any() else None
        return RoundView(square, hidden, (self.num_paged - self._lefts) // self.config.page_size)

    def _empty_window(self) -> None:
        """Moves the window's oldest rows into pages, if they do not stand there already, until it is short enough again."""
        num_left = int(self._left_at(np.array(self.length)))
        if num_left > self.num_left:
            self._file(num_left)
            self._local.remove(self.config.num_sinks, num_left - self.num_left)
            self.num_left = num_left

    def _file_ahead(self) -> None:
        """Puts rows into pages that they fill, before they leave the window."""
        page_size = self.config.page_size
        if self._indexes.only_append and self.num_left % page_size == 0:
            self._file((self.length - self.config.num_sinks) // page_size * page_size)

    def _file(self, num_paged: int) -> None:
        """Sees to it that the first `num_paged` rows behind the sinks stand in pages."""
        num_before = self.num_paged
        num_rows = num_paged - num_before
        if num_rows <= 0:
            return
        for layer, pages in enumerate(self._layers):
            if self._indexes.has(layer):
                pages.reserve_insertion(num_rows)
            else:
                pages.reserve_rows(num_rows)
        try:
            self._indexes.insert(self._local.take(self.config.num_sinks + num_before - self.num_left, num_rows))
        except BaseException:
            self._indexes.truncate(num_before)
            raise


def _square(visible: Visibility, queries: Tensor) -> Tensor | None:
    """Visibility as a bool mask `[n, n]`, None for causal."""
    num_rows = queries.shape[1]
    if isinstance(visible, Tensor):
        return visible
    if visible == "causal" or num_rows == 1:
        return None
    return torch.ones((num_rows, num_rows), dtype=torch.bool, device=queries.device)
