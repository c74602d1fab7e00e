"""Answers one prompt with many caches, while the model reads the prompt once.

All caches attend to the prompt exactly, so its keys and values are the same for each of them: they are computed once, in chunks, and then
handed to every store by the calls that an engine makes. Only the last rows are attended to again, because that is where stores look at
queries; what `attend` returned for the others is known. From there on the stores decode side by side, a row each in one packed pass.

A `GrowthMeter` says what paged stores do meanwhile. An insertion is a commit after which more rows lie in pages: a page's worth of rows
goes into the index of every layer and head, and what the index moves for them is moved. Its time is that of the host.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

from hoarfrost.cache import DenseStore, Store, Visibility
from hoarfrost.evaluation.caches.variants import CacheVariant, new_store
from hoarfrost.target import PackedRows
from hoarfrost.tree import DraftTree

if TYPE_CHECKING:
    from hoarfrost.target import Target

CHUNK = 512
NUM_OBSERVED = 64  # the prompt's last queries, which every store gets to see
# Stores that decode side by side may hold this much together; a store counts as if it held every row in the fast memory.
MAX_BYTES = 4 << 30


class PromptRows(DenseStore):
    """A prompt's keys and values in all layers, and its last queries."""

    def __init__(self, target: Target, capacity: int) -> None:
        shape = (target.num_layers, target.num_kv_heads, target.head_dim)
        super().__init__(*shape, dtype=target.dtype, device=target.device, capacity=capacity)
        self._queries: dict[int, tuple[Tensor, float]] = {}

    def attend(self, layer: int, queries: Tensor, visible: Visibility, *, scale: float, window: int | None = None) -> Tensor:
        self._queries[layer] = (queries[:, -NUM_OBSERVED:].clone(), scale)  # they may lie in memory that the next layer uses
        return super().attend(layer, queries, visible, scale=scale, window=window)

    def keys(self, layer: int) -> Tensor:
        """The prompt's keys in `layer`, `[Hkv, T, D]`."""
        return self._buffer[0, layer, :, : self.length]

    def fill(self, store: Store) -> None:
        """Hands the prompt to an empty store and ends it there."""
        store.reserve(self.length)
        num_observed = min(NUM_OBSERVED, self.length)
        for chunk in (*chunks(self.length - num_observed), range(self.length - num_observed, self.length)):
            rows = slice(chunk.start, chunk.stop)
            for layer, (queries, scale) in self._queries.items():
                store.append(layer, self._buffer[0, layer, :, rows], self._buffer[1, layer, :, rows])
                if chunk.stop == self.length:
                    store.attend(layer, queries, "causal", scale=scale)
            store.commit(range(len(chunk)))
        store.start_decoding()


def chunks(num_rows: int) -> Iterator[range]:
    """Cuts a prompt so that the last chunk is a whole one, where there are that many rows."""
    start = 0
    while start < num_rows:
        stop = start + ((num_rows - start) % CHUNK or CHUNK)
        yield range(start, stop)
        start = stop


def read_prompt(target: Target, token_ids: Sequence[int]) -> tuple[PromptRows, Tensor]:
    """Reads a prompt exactly; returns its rows and the logits `[1, V]` behind its last token."""
    rows = PromptRows(target, len(token_ids))
    for chunk in chunks(len(token_ids)):
        packed = PackedRows.from_chunk(rows, token_ids[chunk.start : chunk.stop], target.device)
        hidden, _ = target.forward(packed)
        rows.commit(range(len(chunk)))
    return rows, target.logits(hidden[-1:])


def commit_row(store: Store) -> None:
    """Commits the one row of a round."""
    store.commit([0])


def step(target: Target, stores: Sequence[Store], token_ids: Sequence[int], commit: Callable[[Store], None] = commit_row) -> Tensor:
    """Decodes one token with each store; returns the logits behind it, `[stores, V]`."""
    trees = [DraftTree.single(token_id) for token_id in token_ids]
    hidden, _ = target.forward(PackedRows.from_trees(stores, trees, target.device))
    for store in stores:
        commit(store)
    return target.logits(hidden)


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


class CacheRunner:
    """Answers prompts with every variant. Raises `InvalidInput` at once for a budget that its cache cannot work with."""

    def __init__(self, target: Target, variants: Sequence[CacheVariant]) -> None:
        self.target, self.variants = target, list(variants)
        for variant in self.variants:
            new_store(target, variant, 1)

    @torch.inference_mode()
    def answer(
        self,
        prompt_ids: Sequence[int],
        fed_ids: Sequence[int],
        max_new_tokens: int,
        *,
        num_decoded: int = 0,
        meter: GrowthMeter | None = None,
    ) -> dict[CacheVariant, list[int]]:
        """Greedy answers, per variant up to an end token, which is left out.

        The last `num_decoded` tokens of the prompt and all of `fed_ids`, the beginning of the answer, go through the cache one by one.
        `meter` commits them, and what is decoded, if it is given.
        """
        num_read = len(prompt_ids) - num_decoded
        fed = [*prompt_ids[num_read:], *fed_ids]
        rows, logits = read_prompt(self.target, prompt_ids[:num_read])
        answers: dict[CacheVariant, list[int]] = {}
        for group, stores in self.filled(rows, num_read + len(fed) + max_new_tokens):
            decoded = self._decode(stores, logits, fed, max_new_tokens, commit_row if meter is None else meter.commit)
            answers.update(zip(group, decoded, strict=True))
            if meter is not None:
                meter.close(group, stores)
        return answers

    def filled(self, rows: PromptRows, capacity: int) -> Iterator[tuple[list[CacheVariant], list[Store]]]:
        """The variants in groups that fit into memory together, each with its stores, which hold the prompt."""
        target = self.target
        row_bytes = 2 * target.num_layers * target.num_kv_heads * target.head_dim * target.dtype.itemsize
        size = max(1, MAX_BYTES // (row_bytes * capacity))
        for start in range(0, len(self.variants), size):
            group = self.variants[start : start + size]
            stores = [new_store(target, variant, capacity) for variant in group]
            for store in stores:
                rows.fill(store)
            yield group, stores

    def _decode(
        self, stores: Sequence[Store], logits: Tensor, fed: Sequence[int], max_new_tokens: int, commit: Callable[[Store], None]
    ) -> list[list[int]]:
        logits = logits.expand(len(stores), -1)
        for token_id in fed:
            logits = step(self.target, stores, [token_id] * len(stores), commit)
        answers: list[list[int]] = [[] for _ in stores]
        active = list(range(len(stores)))
        chosen = logits.argmax(-1).tolist()
        while True:
            going_on = [(index, token) for index, token in zip(active, chosen, strict=True) if token not in self.target.eos_token_ids]
            for index, token in going_on:
                answers[index].append(token)
            going_on = [(index, token) for index, token in going_on if len(answers[index]) < max_new_tokens]
            if not going_on:
                return answers
            active = [index for index, _ in going_on]
            logits = step(self.target, [stores[index] for index in active], [token for _, token in going_on], commit)
            chosen = logits.argmax(-1).tolist()
