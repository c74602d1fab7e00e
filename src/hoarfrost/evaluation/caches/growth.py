"""What a paged store does while it decodes: how full its pages stay, and how long it takes to take in the rows that leave the window.

An insertion is a commit after which more rows lie in pages: a page's worth of rows goes into the index of every layer and head, and what
the index moves for them is moved. Its time is that of the host.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hoarfrost.cache import Store
from hoarfrost.evaluation.caches.variants import CacheVariant


@runtime_checkable
class KeepsPages(Protocol):
    """A store whose rows go from a window into pages."""

    @property
    def num_paged(self) -> int:
        """Rows that left the window and wait in pages."""
        ...

    def page_fill(self) -> float:
        """Rows over places of all pages that hold any."""
        ...


@dataclass(frozen=True)
class Growth:
    """How often rows went into pages, how long that took (median and slowest, all layers together), how full pages are in the end."""

    num_insertions: int
    insert_ms: float
    insert_max_ms: float
    page_fill: float


class GrowthMeter:
    """Commits the tokens of stores, and times those commits that move rows into pages."""

    def __init__(self) -> None:
        self._insert_ms: dict[int, list[float]] = {}
        self._growth: dict[CacheVariant, Growth] = {}

    def commit(self, store: Store) -> None:
        """Commits the one row of a round."""
        num_before = store.num_paged if isinstance(store, KeepsPages) else 0
        began = time.perf_counter()
        store.commit([0])
        elapsed_ms = 1000 * (time.perf_counter() - began)
        if isinstance(store, KeepsPages) and store.num_paged > num_before:
            self._insert_ms.setdefault(id(store), []).append(elapsed_ms)

    def close(self, variants: Sequence[CacheVariant], stores: Sequence[Store]) -> None:
        """Ends the measurement of these stores, which may go then."""
        for variant, store in zip(variants, stores, strict=True):
            times = self._insert_ms.pop(id(store), [])
            if times and isinstance(store, KeepsPages):
                self._growth[variant] = Growth(len(times), statistics.median(times), max(times), store.page_fill())

    def growth(self, variant: CacheVariant) -> Growth | None:
        """What was measured; `None` of a cache without pages, or of one whose window nothing left."""
        return self._growth.get(variant)
