"""Grouping keys into pages of similar rows, and finding the pages that matter to a query."""

from hoarfrost.cache.index.protocol import KeyPages, PageChanges, PageIndex, PageTable

__all__ = ["KeyPages", "PageChanges", "PageIndex", "PageTable"]
