"""Grouping keys into pages of similar rows, and finding the pages that matter to a query."""

from __future__ import annotations

from collections.abc import Callable

from hoarfrost.cache.index.dci import DciConfig, DciIndex
from hoarfrost.cache.index.ice import IceIndex, IceIndexConfig
from hoarfrost.cache.index.positional import ExactIndex, QuestIndex
from hoarfrost.cache.index.protocol import FindsRows, KeyPages, PageChanges, PageIndex, PageTable
from hoarfrost.errors import InvalidInput

__all__ = [
    "INDEXES",
    "DciConfig",
    "DciIndex",
    "ExactIndex",
    "FindsRows",
    "IceIndex",
    "IceIndexConfig",
    "KeyPages",
    "PageChanges",
    "PageIndex",
    "PageTable",
    "QuestIndex",
    "new_index",
]

INDEXES: dict[str, Callable[[int], PageIndex]] = {
    "ice": lambda page_size: IceIndex(IceIndexConfig(page_size)),
    "dci": lambda page_size: DciIndex(DciConfig(page_size)),
    "quest": QuestIndex,
    "exact": ExactIndex,
}
"""From names to functions that make an empty index for one layer, given the page size."""


def new_index(name: str, page_size: int = 16) -> PageIndex:
    """An empty index for one layer, by its name in `INDEXES`."""
    if name not in INDEXES:
        raise InvalidInput(f"There is no index {name!r}; choose one of {', '.join(INDEXES)}.")
    return INDEXES[name](page_size)
