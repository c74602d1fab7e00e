"""Page indexes side by side: how long they take to build and to ask, what they find, what they weigh.

Every index gets the same keys of a few KV heads. Quality is that of single queries: `recall`, the share of the 12 keys with the largest
products that lie in the fetched pages, and `mass`, the share of the softmax that the fetched pages hold; `token_oracle_mass` is what as
many of the best single rows would hold. `group_mass` is the mass where 4 queries share one set of pages. Times are per
KV head, of calls for all heads: `query_ms` is one search for the 4 query heads of a KV head, with nothing but the code in the caches;
`product_ms` is, under the same conditions, one float32 product of 4 queries with all keys, which tells how fast the machine was. Builds
and searches of the indexes alternate; times are medians.

The keys and queries are synthetic, of the two kinds on which the published index was measured:

- `gaussian`: independent standard normal entries, for keys and queries: no structure at all, the worst case.
- `clustered`: 512 centres of Zipf-distributed frequency; keys follow one centre for a run of 8 to 64 rows, with noise of 0.6 per entry and
  log-normal lengths (sigma 0.25); queries are centres, as frequent as among the keys, with noise of 0.8.

For comparison, the published index on one core of an AMD EPYC (32,768 keys of 128 dimensions): build 60-80 ms a head, search for 4 query
heads 1.4 ms (clustered) and 1.8 ms (gaussian), recall 0.51 and 0.20, mass 0.49 (clustered), about 300 bytes a key.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.index import INDEXES, KeyPages, PageIndex, new_index
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.machine import describe_run

DATA = ("gaussian", "clustered")
NUM_CENTRES = 512
KEY_NOISE, QUERY_NOISE, LENGTH_SIGMA = 0.6, 0.8, 0.25
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
    heads: int = 8
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
        if min((*self.keys, self.dim, self.heads, self.pages, self.repeats, self.threads)) < 1 or self.queries < GROUP:
            raise InvalidInput(f"Give at least 1 of everything, and {GROUP} queries.")


class HeadData(NamedTuple):
    """Keys of one KV head and queries for them, float32 `[N, D]` and `[Q, D]`."""

    keys: Tensor
    queries: Tensor


def make_head(data: str, num_keys: int, head_dim: int, num_queries: int, seed: int) -> HeadData:
    """One head of `gaussian` or `clustered` data; the same for the same arguments."""
    if data not in DATA:
        raise InvalidInput(f"There is no data {data!r}; choose of {', '.join(DATA)}.")
    random = np.random.default_rng(seed)
    if data == "gaussian":
        keys, queries = (random.standard_normal((count, head_dim), np.float32) for count in (num_keys, num_queries))
        return HeadData(torch.from_numpy(keys), torch.from_numpy(queries))
    centres = random.standard_normal((NUM_CENTRES, head_dim), np.float32)
    frequencies = 1 / np.arange(1, NUM_CENTRES + 1)
    frequencies /= frequencies.sum()
    lengths = random.integers(8, 65, num_keys // 8 + 1)
    followed = np.repeat(random.choice(NUM_CENTRES, len(lengths), p=frequencies), lengths)[:num_keys]
    keys = centres[followed] + np.float32(KEY_NOISE) * random.standard_normal((num_keys, head_dim), np.float32)
    keys *= np.exp(LENGTH_SIGMA * random.standard_normal((num_keys, 1))).astype(np.float32)
    asked = centres[random.choice(NUM_CENTRES, num_queries, p=frequencies)]
    queries = asked + np.float32(QUERY_NOISE) * random.standard_normal((num_queries, head_dim), np.float32)
    return HeadData(torch.from_numpy(keys), torch.from_numpy(queries))


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
        **describe_run(asdict(settings), evaluation="index"),
        "published": PUBLISHED,
        "summary": summary,
    }


def _measure(settings: IndexSettings, data: str, num_keys: int) -> Iterator[dict[str, Any]]:
    heads = [make_head(data, num_keys, settings.dim, settings.queries, settings.seed + head) for head in range(settings.heads)]
    keys, queries = torch.stack([head.keys for head in heads]), torch.stack([head.queries for head in heads])
    candidates = [_Candidate(name, new_index(name, settings.page_size), [], []) for name in settings.indexes]
    for _ in range(settings.repeats + 1):
        for one in candidates:
            one.build_ms.append(elapsed_ms(partial(one.index.build, keys)) / settings.heads)
    laid_out = {one.name: lay_out(one.index, keys) for one in candidates}
    product_ms = _time_searches(settings, keys, queries, candidates, laid_out)
    truth = Truth.of(queries, keys)
    for one in candidates:
        yield {
            "index": one.name,
            "data": data,
            "keys": num_keys,
            "build_ms_per_head": statistics.median(one.build_ms[1:]),
            "fastest_build_ms": min(one.build_ms),
            "query_ms": statistics.median(one.query_ms[1:]),
            "fastest_query_ms": min(one.query_ms),
            "product_ms": product_ms,
            **_quality(settings, queries, truth, one.index, laid_out[one.name]),
            "token_oracle_mass": truth.oracle_mass(settings.pages * settings.page_size),
            "bytes_per_key": one.index.num_bytes() / num_keys / settings.heads,
            "rows_per_page": float(one.index.pages().counts[one.index.pages().counts > 0].mean()),
            "insert_ms": elapsed_ms(partial(one.index.insert, keys[:, :INSERTED_ROWS], laid_out[one.name])) / settings.heads,
        }


def _time_searches(
    settings: IndexSettings, keys: Tensor, queries: Tensor, candidates: list[_Candidate], laid_out: dict[str, KeyPages]
) -> float:
    """Fills in the search times; returns the median time of a plain product."""
    scale, cold = settings.dim**-0.5, torch.zeros(EVICTION_BYTES // 4)
    product_ms = []
    for turn in range(settings.repeats + 1):
        start = turn * GROUP % (settings.queries - GROUP + 1)
        group = queries[:, None, start : start + GROUP].contiguous()
        for one in candidates:
            cold.add_(1)  # whatever the caches hold is overwritten
            search = partial(one.index.select, group, settings.pages, scale, laid_out[one.name])
            one.query_ms.append(elapsed_ms(search) / settings.heads)
        cold.add_(1)
        product_ms.append(elapsed_ms(partial(torch.matmul, group[:, 0], keys.transpose(1, 2))) / settings.heads)
    return statistics.median(product_ms[1:])


class Truth(NamedTuple):
    """What an exact search knows: softmax shares `[Hkv, Q, N]`, the best keys `[Hkv, Q, 12]`."""

    shares: Tensor
    best: Tensor

    @classmethod
    def of(cls, queries: Tensor, keys: Tensor) -> Truth:
        """Of `queries [Hkv, Q, D]` and `keys [Hkv, N, D]`."""
        shares = torch.softmax(torch.matmul(queries, keys.transpose(1, 2)) * keys.shape[2] ** -0.5, dim=-1)
        return cls(shares, shares.topk(min(NUM_BEST, keys.shape[1]), dim=-1).indices)

    def oracle_mass(self, num_rows: int) -> float:
        """The mass of the best `num_rows` single rows."""
        return float(self.shares.topk(min(num_rows, self.shares.shape[2]), dim=-1).values.sum(dim=-1).mean())


def _quality(settings: IndexSettings, queries: Tensor, truth: Truth, index: PageIndex, pages: KeyPages) -> dict[str, float]:
    scale = settings.dim**-0.5
    recalls, masses, group_masses = [], [], []
    for first in range(0, settings.queries - GROUP + 1, GROUP):
        group = slice(first, first + GROUP)
        together = is_fetched(index, index.select(queries[:, None, group], settings.pages, scale, pages))
        group_masses.append(float((truth.shares[:, group] * together[:, None]).sum(dim=-1).mean()))
        for query in range(first, first + GROUP):
            alone = is_fetched(index, index.select(queries[:, None, query : query + 1], settings.pages, scale, pages))
            masses.append(float((truth.shares[:, query] * alone).sum(dim=-1).mean()))
            recalls.append(float(alone.gather(1, truth.best[:, query]).float().mean()))
    return {"recall": statistics.fmean(recalls), "mass": statistics.fmean(masses), "group_mass": statistics.fmean(group_masses)}


def is_fetched(index: PageIndex, pages: NDArray[np.int32]) -> Tensor:
    """Which rows the pages `[Hkv, 1, P]` hold: bool `[Hkv, N]`."""
    fetched = torch.zeros((len(pages), index.num_rows), dtype=torch.bool)
    for head, rows in enumerate(index.pages().rows):
        held = rows[pages[head, 0][pages[head, 0] >= 0]]
        fetched[head, torch.from_numpy(held[held >= 0].astype(np.int64))] = True
    return fetched


def lay_out(index: PageIndex, keys: Tensor) -> KeyPages:
    """The keys by page, as a store holds them."""
    rows = torch.from_numpy(index.pages().rows.astype(np.int64)).clamp_min(0)
    pool = torch.cat([keys[head][rows[head]] for head in range(len(rows))])
    return KeyPages(pool, torch.arange(len(pool)).view(rows.shape[:2]))


def elapsed_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3
