"""The caches that an evaluation compares: a name and a budget, and how the engine's store for them is made.

The budget counts the committed rows that a query attends to per KV head, in every layer; `full` has none. Besides the baselines every index
that `hoarfrost.cache.index` knows is a cache: the ice store with that index and its defaults otherwise. `ice-estimate` is `ice` where pages
that were not fetched count by their means (`IceConfig.estimate`), which no budget counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hoarfrost.cache import Store
from hoarfrost.cache.baselines import OracleSelection, SelectingStore, Selection, SnapKVSelection, WindowSelection
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cache.index import INDEXES
from hoarfrost.evaluation.common.checks import check_list, check_names

if TYPE_CHECKING:
    from hoarfrost.target import Target

MEANING = {
    "budget_is": "committed rows attended to per KV head, in every layer, by the query of a decoded token",
    "exact": "the prompt is read with exact attention; the answer, begun for the model where the task begins it, is decoded with the cache",
}
"""What every result of a cache says of its figures."""

StoreMaker = Callable[["Target", int, int], Store]
"""Makes the empty store of one sequence from the target, the budget and the rows to make room for."""


def _selecting(selection: Callable[[int], Selection]) -> StoreMaker:
    def make(target: Target, budget: int, capacity: int) -> Store:
        shape = (target.num_layers, target.num_kv_heads, target.head_dim)
        return SelectingStore(*shape, selection(budget), dtype=target.dtype, device=target.device, capacity=capacity)

    return make


def _paged(cache: str) -> StoreMaker:
    return lambda target, budget, capacity: target.new_store(capacity, paged_config(cache, budget))


def paged_config(cache: str, budget: int, reuse: int = 1) -> IceConfig:
    """The settings of a cache with pages, by its name: that of its index, with or without `-estimate`."""
    index = cache.removesuffix(ESTIMATE)
    return IceConfig(budget=budget, index=index, estimate=index != cache, reuse=reuse)


FULL, ESTIMATE = "full", "-estimate"
BUDGETED: dict[str, StoreMaker] = {
    "window": _selecting(WindowSelection),
    "snapkv": _selecting(SnapKVSelection),
    "oracle": _selecting(OracleSelection),
    **{cache: _paged(cache) for cache in (*INDEXES, f"ice{ESTIMATE}")},
}
CACHES = (FULL, *BUDGETED)
TITLES = {"snapkv": "SnapKV", "quest": "Quest", "dci": "DCI"}


def cache_title(cache: str) -> str:
    """The name of a cache for people."""
    return TITLES.get(cache, cache)


@dataclass(frozen=True)
class CacheVariant:
    """A cache and its budget in rows; `None` for the full cache."""

    cache: str
    budget: int | None = None


def plan_variants(caches: Sequence[str], budgets: Sequence[int]) -> list[CacheVariant]:
    """Every cache with every budget, the full cache once. Raises `InvalidInput` for names that are unknown or come twice."""
    check_list("caches", caches)
    check_list("budgets", budgets)
    check_names("cache", caches, CACHES)
    variants: list[CacheVariant] = []
    for cache in caches:
        variants.extend([CacheVariant(cache)] if cache == FULL else [CacheVariant(cache, budget) for budget in budgets])
    return variants


def new_store(target: Target, variant: CacheVariant, capacity: int) -> Store:
    """An empty store with room for `capacity` rows. Raises `InvalidInput` for a budget that the cache cannot work with."""
    if variant.budget is None:
        return target.new_store(capacity)
    return BUDGETED[variant.cache](target, variant.budget, capacity)
