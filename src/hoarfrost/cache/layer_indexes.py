"""Which pages of a layer to attend to: an index for every group of layers that shares one (`IceConfig.reuse`), and what it chose.

An index is built when a group has more rows in pages than may be retrieved; while everything fits the budget there is none, and nothing
is chosen. The first layer of a group (its anchor) searches; the others take its grouping and its choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.attention import pack_heads
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cache.index import FindsRows, PageIndex, PageTable
from hoarfrost.cache.layer_pages import Choice, LayerPages
from hoarfrost.cache.round_view import RoundView


class LayerIndexes:
    """The indexes over `layers`, the pages of a store's layers."""

    def __init__(self, config: IceConfig, layers: Sequence[LayerPages]) -> None:
        self._config, self._layers = config, layers
        self._by_anchor: dict[int, PageIndex] = {}
        self._num_grouped: dict[int, int] = {}
        self._chosen: dict[int, Choice] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_anchor)

    @property
    def only_append(self) -> bool:
        """Whether every group of layers has its index, and each takes new rows in without touching full pages."""
        return len(self._by_anchor) == len(self._anchors) > 0 and all(index.only_appends for index in self._by_anchor.values())

    def num_bytes(self) -> int:
        return sum(index.num_bytes() for index in self._by_anchor.values())

    def has(self, layer: int) -> bool:
        """Whether an index says where the rows of `layer` lie."""
        return self._anchor(layer) in self._by_anchor

    def table(self, layer: int) -> PageTable | None:
        """Where the rows of `layer` lie; None: in order of position."""
        anchor = self._anchor(layer)
        return self._by_anchor[anchor].pages() if anchor in self._by_anchor else None

    def build(self, last_queries: dict[int, Tensor]) -> None:
        """Gives an index to every group of layers that has more rows in pages than may be retrieved, and none yet; its pages are moved.

        `last_queries` are the prompt's last ones `[H, r, D]` per layer, with which an index may test how it groups.
        """
        config = self._config
        for anchor in self._anchors:
            group = self._group(anchor)
            if anchor in self._by_anchor or group[0].num_rows <= config.retrieved_rows:
                continue
            index = config.new_index()
            queries = last_queries.get(anchor)
            index.build(group[0].keys(), None if queries is None else pack_heads(queries, len(group[0].slots)))
            table = index.pages()
            for pages in group:
                pages.reserve_arrangement(table)
            for pages in group:
                pages.arrange(table)
            self._by_anchor[anchor] = index
            self._num_grouped[anchor] = group[0].num_rows

    def choose(self, layer: int, queries: Tensor, keys: Tensor, view: RoundView, scale: float) -> Choice | None:
        """What to attend to; None: everything. Layers are to be asked in order.

        Args:
            queries: `[H, n, D]`; keys: `[Hkv, m, D]`, of the local rows, which end with the n new ones.
        """
        anchor = self._anchor(layer)
        if anchor is None or anchor not in self._by_anchor:
            return None
        if layer == anchor:
            self._chosen[anchor] = self._search(self._by_anchor[anchor], self._layers[anchor], queries, keys, view, scale)
        return self._chosen[anchor]

    def chosen(self, layer: int) -> Choice | None:
        """What `choose` gave for `layer` last."""
        anchor = self._anchor(layer)
        return None if anchor is None else self._chosen.get(anchor)

    def forget_choices(self) -> None:
        self._chosen.clear()

    def insert(self, rows: Tensor) -> None:
        """Takes `rows [2, layers, Hkv, m, D]`, keys and values, into the pages of every layer."""
        for layer, pages in enumerate(self._layers):
            anchor = self._anchor(layer)
            if anchor is None or anchor not in self._by_anchor:
                pages.append(rows[:, layer])
            elif layer == anchor:
                changes = self._by_anchor[anchor].insert(rows[0, layer].to(pages.pool.buffer.device), pages.key_pages())
                for offset, member in enumerate(self._group(anchor)):
                    member.apply(changes, rows[:, layer + offset])

    def truncate(self, num_rows: int) -> None:
        """Leaves the first `num_rows` rows in the pages of every layer that has more. An index that would lose rows it grouped goes."""
        for anchor, index in list(self._by_anchor.items()):
            if num_rows < self._num_grouped[anchor]:
                for pages in self._group(anchor):
                    pages.put_in_order(index.pages())
                del self._by_anchor[anchor]
            elif num_rows < index.num_rows:
                changes = index.truncate(num_rows)
                for pages in self._group(anchor):
                    pages.apply(changes)
        for layer, pages in enumerate(self._layers):
            if not self.has(layer) and num_rows < pages.num_rows:
                pages.drop(num_rows)

    @property
    def _anchors(self) -> range:
        return range(self._config.full_layers, len(self._layers), self._config.reuse)

    def _anchor(self, layer: int) -> int | None:
        """The layer whose index serves `layer`; None: it attends to everything."""
        behind = layer - self._config.full_layers
        return None if behind < 0 else layer - behind % self._config.reuse

    def _group(self, anchor: int) -> Sequence[LayerPages]:
        """The layers that the index of `anchor` serves, `anchor` first."""
        return self._layers[anchor : anchor + self._config.reuse]

    def _search(self, index: PageIndex, pages: LayerPages, queries: Tensor, keys: Tensor, view: RoundView, scale: float) -> Choice:
        _, num_rows, head_dim = queries.shape
        mass = view.log_mass(queries, keys, scale)
        grouped = queries.reshape(len(keys), -1, num_rows, head_dim)
        if self._config.tree_queries == "union":
            grouped, mass = grouped.flatten(1, 2).unsqueeze(2), mass.flatten(1, 2).unsqueeze(2)
        grouped, mass = grouped.transpose(1, 2), mass.transpose(1, 2)
        finder = index if isinstance(index, FindsRows) and not self._config.estimate else None
        num_pages, num_filled = self._num_wanted(pages)
        num_wanted = self._config.retrieved_rows if finder else num_pages
        found = np.full((len(keys), mass.shape[1], num_wanted), -1, np.int32)
        for num_left_out, rows in view.rows_by_pages_ahead(mass.shape[1]):
            asked = grouped[:, rows], mass[:, rows]
            if finder:
                found[:, rows] = finder.select_rows(asked[0], num_wanted, scale, pages.key_pages(), asked[1], num_left_out)
            else:
                wanted = min(num_wanted, num_filled - num_left_out)
                found[:, rows, :wanted] = index.select(asked[0], wanted, scale, pages.key_pages(), asked[1], num_left_out)
        if not finder:
            return Choice(self._within_budget(pages, found))
        return Choice(np.where(found >= 0, found // pages.page_size, np.int32(-1)), np.where(found >= 0, found % pages.page_size, 0))

    def _num_wanted(self, pages: LayerPages) -> tuple[int, int]:
        """Pages that fill the budget at the mean fill of pages, and pages that there are; the fullest head's, so that none gets less than
        it may."""
        num_filled = int((pages.counts > 0).sum(axis=1).max())
        return min(num_filled, -(-self._config.retrieved_rows * num_filled // pages.num_rows)), num_filled

    def _within_budget(self, pages: LayerPages, found: NDArray[np.int32]) -> NDArray[np.int32]:
        """The best of the pages `[Hkv, L, P]`, which come best first, as long as their rows fit the budget."""
        counts = np.where(found >= 0, pages.counts[np.arange(len(found))[:, None, None], found], 0)
        return np.where(counts.cumsum(axis=2) <= self._config.retrieved_rows, found, np.int32(-1))
