"""The ice store: exact over what it says it saw, through every kind of change; the dense store where the budget holds everything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cache.page_indexes import RandomIndex
from devices import DEVICES
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import plain_attention
from torch import Tensor

from hoarfrost.cache import DenseStore
from hoarfrost.cache.ice import IceStore
from hoarfrost.cache.ice_config import IceConfig

NUM_LAYERS, NUM_KV_HEADS, NUM_HEADS, HEAD_DIM, SCALE = 3, 2, 6, 8, 0.5
SMALL = IceConfig(budget=26, num_sinks=2, window=8, page_size=4, index=RandomIndex)
CONFIGS = {
    "plain": SMALL,
    "no sinks": replace(SMALL, num_sinks=0),
    "reuse": replace(SMALL, reuse=2, full_layers=1),
    "union": replace(SMALL, tree_queries="union"),
    "ice": replace(SMALL, index="ice"),
    "dci": replace(SMALL, index="dci"),
    "quest": replace(SMALL, index="quest"),
    "exact": replace(SMALL, index="exact"),
    "page of the window": replace(SMALL, window=4, budget=12),
}

PLACES = {"in place": ("cpu", False), "split tiers": ("cpu", True), **{name: (name, False) for name in DEVICES[1:]}}


def new_store(config: IceConfig, dtype: torch.dtype = torch.float32, device: str = "cpu", split: bool = False) -> IceStore:
    """`split` makes the compute device another one than the pages' by name, though both are the CPU."""
    store = IceStore(
        config, NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=dtype, device=device, capacity=32, cold_device="cpu:0" if split else "cpu"
    )
    assert (store._layers[-1].hot is not None) == (split or device != "cpu")
    return store


class Driver:
    """Feeds a store random rows and queries, and keeps every row to compare with."""

    def __init__(self, store: IceStore, seed: int, device: str = "cpu") -> None:
        self.store, self.device = store, device
        self.random = torch.Generator().manual_seed(seed)
        self.rows = torch.zeros(0, 2, NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM)

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.random)

    def round(self, num_rows: int, kind: str, kept: list[int]) -> None:
        """Appends, checks attention in every layer, commits `kept`."""
        rows = self.randn(num_rows, 2, NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM)
        square = torch.ones(num_rows, num_rows, dtype=torch.bool)
        if kind == "tree":
            square = (torch.rand(num_rows, num_rows, generator=self.random) < 0.5).fill_diagonal_(True)
        elif kind == "causal":
            square = square.tril()
        for layer in range(NUM_LAYERS):
            keys, values = rows[:, :, layer].to(self.device).permute(1, 2, 0, 3)
            self.store.append(layer, keys, values)
            queries = self.randn(NUM_HEADS, num_rows, HEAD_DIM)
            visible = square.to(self.device) if kind == "tree" else kind
            got = self.store.attend(layer, queries.to(self.device), visible, scale=SCALE)
            torch.testing.assert_close(got.cpu().double(), self.expected(layer, queries, rows, square), atol=3e-6, rtol=3e-6)
        self.store.commit(kept)
        self.rows = torch.cat([self.rows, rows[kept]])
        assert self.store.length == len(self.rows)

    def expected(self, layer: int, queries: Tensor, rows: Tensor, square: Tensor) -> Tensor:
        """Attention over the rows that the store says it saw."""
        num_rows = len(rows)
        everything = torch.cat([self.rows, rows])[:, :, layer]
        keys, values = everything[:, 0].transpose(0, 1), everything[:, 1].transpose(0, 1)
        exact = not self.store._is_decoding
        seen = torch.ones(NUM_KV_HEADS, 1, len(self.rows), dtype=torch.bool) if exact else self.store.selected_rows(layer)
        self.check_budget(layer, seen, exact)
        out = torch.empty(num_rows, NUM_HEADS, HEAD_DIM, dtype=torch.float64)
        group = NUM_HEADS // NUM_KV_HEADS
        for head in range(NUM_KV_HEADS):
            mask = torch.cat([seen[head].expand(num_rows, -1), square], dim=1)
            part = slice(head * group, (head + 1) * group)
            out[:, part] = plain_attention(queries[part], keys[head : head + 1], values[head : head + 1], mask, SCALE)
        return out

    def check_budget(self, layer: int, seen: Tensor, exact: bool) -> None:
        config = self.store.config
        if not exact and layer >= config.full_layers:
            assert int(seen.sum(-1).max()) <= config.budget
        assert seen[..., : config.num_sinks].all()
        window = min(len(self.rows) - self.store.num_paged - config.num_sinks, config.window)
        assert window <= 0 or seen[..., -window:].all()


@pytest.mark.parametrize(("device", "split"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@settings(max_examples=5)
@given(data=st.data())
def test_whatever_happens_attention_is_exact_over_what_was_seen(config: IceConfig, device: str, split: bool, data: st.DataObject) -> None:
    driver = Driver(new_store(config, device=device, split=split), data.draw(st.integers(0, 99)), device)
    store = driver.store
    for _ in range(data.draw(st.integers(1, 3))):  # turns
        for _ in range(data.draw(st.integers(1, 3))):
            num_rows = data.draw(st.integers(1, 30))
            driver.round(num_rows, "causal", list(range(num_rows)))
        store.start_decoding()
        for _ in range(data.draw(st.integers(1, 6))):
            num_rows = data.draw(st.integers(1, 7))
            kept = sorted({0, *data.draw(st.sets(st.integers(0, num_rows - 1)))})
            driver.round(num_rows, data.draw(st.sampled_from(["causal", "tree", "all"])), kept)
        if data.draw(st.booleans()):
            length = data.draw(st.integers(0, store.length))
            store.truncate(length)
            driver.rows = driver.rows[:length]
        store.continue_prompt()


def test_long_decoding_keeps_the_budget_and_finds_pages() -> None:
    driver = Driver(new_store(SMALL), 1)
    driver.round(10, "causal", list(range(10)))
    driver.store.start_decoding()
    for _ in range(60):
        driver.round(3, "tree", [0, 2])
    assert driver.store.num_paged > 100
    assert SMALL.window - SMALL.page_size < driver.store.length - driver.store.num_paged - SMALL.num_sinks <= SMALL.window
    pages = driver.store._layers[0]
    assert pages.pool.num_used == int((pages.counts > 0).sum()), "every slot in use belongs to a page"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_budget_of_the_whole_context_is_full_attention(config: IceConfig) -> None:
    store = new_store(replace(config, budget=400))
    dense = DenseStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float32, device="cpu")
    torch.manual_seed(0)
    for step, num_rows in enumerate([50, 1, 33, *[5] * 20]):
        if step == 3:
            store.start_decoding()
        square = torch.ones(num_rows, num_rows, dtype=torch.bool).tril()
        for layer in range(NUM_LAYERS):
            keys, values = (torch.randn(NUM_KV_HEADS, num_rows, HEAD_DIM) for _ in range(2))
            queries = torch.randn(NUM_HEADS, num_rows, HEAD_DIM)
            for one in (store, dense):
                one.append(layer, keys, values)
            got, expected = (one.attend(layer, queries, square, scale=SCALE) for one in (store, dense))
            torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        for one in (store, dense):
            one.commit(range(0, num_rows, 2) if step > 2 else range(num_rows))
    assert store.num_paged > 80
    assert len(store._indexes) == 0, "no index is needed while everything fits"


@pytest.mark.parametrize("kind", ["causal", "tree"])
def test_each_tree_row_attends_as_if_it_were_decoded_alone(kind: str) -> None:
    config = replace(SMALL, window=16, budget=34)
    alone, together = Driver(new_store(config), 5), Driver(new_store(config), 5)
    for driver in (alone, together):
        driver.round(87, "causal", list(range(87)))  # leaves room for four rows in the window
        driver.store.start_decoding()
    rows, queries = alone.randn(4, 2, NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM), alone.randn(NUM_LAYERS, NUM_HEADS, 4, HEAD_DIM)
    path = [0, 1, 2, 3] if kind == "causal" else [0, 2, 3]
    square = torch.ones(4, 4, dtype=torch.bool).tril()
    if kind == "tree":
        square[2:, 1] = False
    outputs = [
        together.store.attend(layer, queries[layer], square, scale=SCALE) for layer in range(NUM_LAYERS) if add(together, layer, rows)
    ]
    for row in path:
        for layer in range(NUM_LAYERS):
            add(alone, layer, rows[row : row + 1])
            got = alone.store.attend(layer, queries[layer][:, row : row + 1], "causal", scale=SCALE)
            torch.testing.assert_close(got[0], outputs[layer][row], atol=1e-6, rtol=1e-6)
        alone.store.commit([0])
    together.store.commit(path)
    assert alone.store.num_paged == together.store.num_paged


def add(driver: Driver, layer: int, rows: Tensor) -> bool:
    driver.store.append(layer, rows[:, 0, layer].transpose(0, 1), rows[:, 1, layer].transpose(0, 1))
    return True
