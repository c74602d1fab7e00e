"""Keys and values: where they are held and how they are attended to."""

from hoarfrost.cache.dense import DenseStore
from hoarfrost.cache.store import Store, Visibility

__all__ = ["DenseStore", "Store", "Visibility"]
