"""How much of a long context is attended to, and where the rest waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from hoarfrost.cache.index import PageIndex, new_index
from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from hoarfrost.cache.ice import IceStore


@dataclass(frozen=True)
class IceConfig:
    """Settings of an ice store (IceCache, arXiv 2604.10539).

    Attributes:
        budget: rows attended to per KV head, layer and query outside the current tree: sinks, window and retrieved rows together. The
            defaults of sinks and window leave whole pages of 16 at budgets of 64, 128, 256.
        num_sinks: first rows, always attended to.
        window: most recent rows that are always attended to. Whole pages leave it between rounds, so it holds `window` rows or up to a
            page less.
        page_size: rows that are kept, found and fetched together.
        index: how pages are formed and found: a name that `hoarfrost.cache.index` knows, or a function from the page size to an index.
        full_layers: so many of the first layers attend to everything.
        reuse: 1: every layer retrieves for itself. r: every r-th layer does, the r - 1 layers behind it attend to the same pages.
        tree_queries: "each": every row of a draft tree retrieves for itself, as if it were decoded alone. "union": one set of pages per
            round, which costs one search and is shared by all rows.
        estimate: pages that were not fetched count by their mean key and mean value.
        cold_tier: "memory": the pages wait in host memory. Else a folder, where a memory-mapped file holds them.

    Raises:
        InvalidInput: for settings that leave no page to retrieve, and for anything out of range.
    """

    budget: int = 256
    num_sinks: int = 4
    window: int = 28
    page_size: int = 16
    index: str | Callable[[int], PageIndex] = "ice"
    full_layers: int = 0
    reuse: int = 1
    tree_queries: Literal["each", "union"] = "each"
    estimate: bool = False
    cold_tier: str = "memory"

    def __post_init__(self) -> None:
        for name, least in (("budget", 1), ("num_sinks", 0), ("window", 1), ("page_size", 1), ("full_layers", 0), ("reuse", 1)):
            value = getattr(self, name)
            if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
                raise InvalidInput(f"The cache's {name} is {value!r}; it must be an integer from {least} on.")
        if self.window < self.page_size:
            raise InvalidInput(
                f"A window of {self.window} rows is shorter than a page of {self.page_size}, and rows leave it by whole pages; "
                f"give a window of at least {self.page_size}."
            )
        if self.budget < self.least_budget:
            raise InvalidInput(
                f"A budget of {self.budget} rows does not hold {self.num_sinks} sinks, a window of {self.window} and one page of "
                f"{self.page_size}; give at least {self.least_budget}, or fewer sinks or a shorter window."
            )
        if isinstance(self.index, str):
            new_index(self.index, self.page_size)
        if self.tree_queries not in ("each", "union"):
            raise InvalidInput(f"Unknown tree_queries {self.tree_queries!r}; choose each or union.")
        if self.cold_tier != "memory" and not Path(self.cold_tier).is_dir():
            raise InvalidInput(f"The cold tier {self.cold_tier!r} is neither 'memory' nor a folder; create the folder first.")

    @property
    def least_budget(self) -> int:
        """Sinks, window and one page."""
        return self.num_sinks + self.window + self.page_size

    @property
    def retrieved_rows(self) -> int:
        """Rows that may be retrieved per KV head: what sinks and window leave of the budget."""
        return self.budget - self.num_sinks - self.window

    def new_index(self) -> PageIndex:
        """An empty index for one layer."""
        if callable(self.index):
            return self.index(self.page_size)
        return new_index(self.index, self.page_size)

    def new_store(
        self, num_layers: int, num_kv_heads: int, head_dim: int, *, dtype: torch.dtype, device: torch.device | str, capacity: int = 256
    ) -> IceStore:
        """An empty store for one sequence. `capacity` is how many rows the next prompt has, where that is known."""
        from hoarfrost.cache.ice import IceStore

        return IceStore(self, num_layers, num_kv_heads, head_dim, dtype=dtype, device=device, capacity=capacity)
