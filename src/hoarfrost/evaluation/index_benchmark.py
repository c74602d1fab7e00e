"""Page indexes side by side: how long they take to build and to ask, what they find, what they weigh.

Every index gets the same keys of one KV head. Quality is that of single queries: `recall`, the share of the 12 keys with the largest
products that lie in the fetched pages, and `mass`, the share of the softmax that the fetched pages hold; `token_oracle_mass` is what as
many of the best single rows would hold. `group_mass` is the mass where 4 queries share one set of pages. `query_ms` is one search for the
4 query heads of a KV head with nothing in the caches; `product_ms` is, under the same conditions, one float32 product of 4 queries with
all keys, which tells how fast the machine was. Builds and searches of the indexes alternate; times are medians.

For comparison, the published index on one core of an AMD EPYC (32,768 keys of 128 dimensions): build 60-80 ms a head, search for 4 query
heads 1.4 ms (clustered) and 1.8 ms (gaussian), recall 0.51 and 0.20, mass 0.49 (clustered), about 300 bytes a key.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost.cache.index import INDEXES, KeyPages, PageIndex, new_index
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.index_data import DATA, HeadData, make_head
from hoarfrost.evaluation.machine import describe_commit, describe_machine, describe_versions

PUBLISHED = {
    "keys": 32768,
    "dim": 128,
    "build_ms_per_head": [60, 80],
    "query_ms": {"clustered": 1.43, "gaussian": 1.82},
    "recall": {"clustered": 0.513, "gaussian": 0.201},
    "mass": {"clustered": 0.494, "gaussian": 0.012},
    "bytes_per_key": 306,
}
GROUP = 4  # query heads of a KV head
NUM_BEST = 12  # keys that recall asks for
INSERTED_ROWS = 16  # a full window page
EVICTION_BYTES = 128 << 20


@dataclass(frozen=True)
class IndexSettings:
    """What is measured; `threads` is the number of threads, `pages` how many pages a search returns."""

    keys: tuple[int, ...] = (32768,)
    dim: int = 128
    data: tuple[str, ...] = DATA
    indexes: tuple[str, ...] = tuple(INDEXES)
    page_size: int = 16
    pages: int = 12
    queries: int = 64
    repeats: int = 11
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [f"{name!r}" for name in (*self.indexes, *self.data) if name not in (*INDEXES, *DATA)]
        if unknown or not self.indexes or not self.data or not self.keys:
            named = f"There is no {', '.join(unknown)}" if unknown else "A list is empty"
            raise InvalidInput(f"{named}; indexes are {', '.join(INDEXES)}, data are {', '.join(DATA)}, keys are numbers.")
        if min((*self.keys, self.dim, self.pages, self.repeats, self.threads)) < 1 or self.queries < GROUP:
            raise InvalidInput(f"Give at least 1 of everything, and {GROUP} queries.")


@dataclass
class _Candidate:
    """One index under test, with what was measured of it."""

    name: str
    index: PageIndex
    build_ms: list[float]
    query_ms: list[float]


def run_index_benchmark(settings: IndexSettings, on_case: Callable[[str], None] = lambda case: None) -> dict[str, Any]:
    """Measures every index on every kind and number of keys; the result is made of JSON values."""
    threads_before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        summary: list[dict[str, Any]] = []
        for data in settings.data:
            for num_keys in settings.keys:
                on_case(f"{data}, {num_keys:,} keys")
                summary += _measure(settings, data, num_keys)
    finally:
        torch.set_num_threads(threads_before)
    return {
        "evaluation": "index",
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": describe_commit(),
        "settings": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()},
        "published": PUBLISHED,
        "summary": summary,
    }


def _measure(settings: IndexSettings, data: str, num_keys: int) -> Iterator[dict[str, Any]]:
    head = make_head(data, num_keys, settings.dim, settings.queries, settings.seed)
    keys = head.keys[None]
    candidates = [_Candidate(name, new_index(name, settings.page_size), [], []) for name in settings.indexes]
    for _ in range(settings.repeats + 1):
        for one in candidates:
            one.build_ms.append(_elapsed_ms(partial(one.index.build, keys)))
    laid_out = {one.name: _lay_out(one.index, keys) for one in candidates}
    product_ms = _time_searches(settings, head, candidates, laid_out)
    oracle_mass = _token_oracle_mass(settings, head)
    for one in candidates:
        quality = _quality(settings, head, one.index, laid_out[one.name])
        num_bytes = one.index.num_bytes() / num_keys
        fill = float(one.index.pages().counts[one.index.pages().counts > 0].mean())
        yield {
            "index": one.name,
            "data": data,
            "keys": num_keys,
            "build_ms_per_head": statistics.median(one.build_ms[1:]),
            "fastest_build_ms": min(one.build_ms),
            "query_ms": statistics.median(one.query_ms),
            "fastest_query_ms": min(one.query_ms),
            "product_ms": product_ms,
            **quality,
            "token_oracle_mass": oracle_mass,
            "bytes_per_key": num_bytes,
            "rows_per_page": fill,
            "insert_ms": _insertion_ms(one.index, keys, laid_out[one.name]),
        }


def _time_searches(settings: IndexSettings, head: HeadData, candidates: list[_Candidate], laid_out: dict[str, KeyPages]) -> float:
    """Fills in the search times; returns the median time of a plain product."""
    scale, cold = settings.dim**-0.5, torch.zeros(EVICTION_BYTES // 4)
    product_ms = []
    for turn in range(settings.repeats + 1):
        start = turn * GROUP % (settings.queries - GROUP + 1)
        queries = head.queries[None, start : start + GROUP].contiguous()
        for one in candidates:
            cold.add_(1)  # whatever the caches hold is overwritten
            search = partial(one.index.select, queries, settings.pages, scale, laid_out[one.name])
            one.query_ms.append(_elapsed_ms(search))
        cold.add_(1)
        product_ms.append(_elapsed_ms(partial(torch.matmul, queries[0], head.keys.T)))
    for one in candidates:
        del one.query_ms[0]
    return statistics.median(product_ms[1:])


def _quality(settings: IndexSettings, head: HeadData, index: PageIndex, pages: KeyPages) -> dict[str, float]:
    scale, rows = settings.dim**-0.5, index.pages().rows[0]
    recalls, masses, group_masses = [], [], []
    shares, best = _shares(settings, head), torch.matmul(head.queries, head.keys.T).topk(min(NUM_BEST, len(head.keys))).indices.numpy()
    for first in range(0, settings.queries - GROUP + 1, GROUP):
        group = head.queries[None, first : first + GROUP]
        fetched = _rows_of(rows, index.select(group, settings.pages, scale, pages))
        for query in range(first, first + GROUP):
            group_masses.append(float(shares[query, fetched].sum()))
            alone = _rows_of(rows, index.select(head.queries[None, query : query + 1], settings.pages, scale, pages))
            masses.append(float(shares[query, alone].sum()))
            recalls.append(float(np.isin(best[query], alone.numpy()).mean()))
    return {"recall": statistics.fmean(recalls), "mass": statistics.fmean(masses), "group_mass": statistics.fmean(group_masses)}


def _shares(settings: IndexSettings, head: HeadData) -> Tensor:
    """The softmax of every query over all keys, `[Q, N]`."""
    return torch.softmax(torch.matmul(head.queries, head.keys.T).double() * settings.dim**-0.5, dim=-1)


def _token_oracle_mass(settings: IndexSettings, head: HeadData) -> float:
    num_rows = min(settings.pages * settings.page_size, len(head.keys))
    return float(_shares(settings, head).topk(num_rows, dim=-1).values.sum(dim=-1).mean())


def _rows_of(rows: np.ndarray[Any, np.dtype[np.int32]], pages: np.ndarray[Any, np.dtype[np.int32]]) -> Tensor:
    held = rows[pages[0][pages[0] >= 0]].ravel()
    return torch.from_numpy(held[held >= 0].astype(np.int64))


def _lay_out(index: PageIndex, keys: Tensor) -> KeyPages:
    """The keys of one head by page, as a store holds them."""
    rows = torch.from_numpy(index.pages().rows[0].astype(np.int64)).clamp_min(0)
    return KeyPages(keys[0][rows], torch.arange(len(rows))[None])


def _insertion_ms(index: PageIndex, keys: Tensor, pages: KeyPages) -> float:
    """The time that 16 more rows take."""
    return _elapsed_ms(partial(index.insert, keys[:, :INSERTED_ROWS], pages))


def _elapsed_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
