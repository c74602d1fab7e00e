"""Pages in files and on two tiers, the estimate for what was not fetched, and settings that cannot work."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cache.page_indexes import RandomIndex
from torch import Tensor

from hoarfrost.cache import page_pool
from hoarfrost.cache.hot_pages import HotPages
from hoarfrost.cache.ice import IceStore
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cache.page_pool import DeviceMemory, FileMemory, PagePool
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.page_attention import PageLists

SMALL = IceConfig(budget=26, num_sinks=2, window=8, page_size=4, index=RandomIndex)
NUM_LAYERS, NUM_KV_HEADS, NUM_HEADS, HEAD_DIM = 2, 2, 4, 8


def new_store(config: IceConfig) -> IceStore:
    return config.new_store(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float32, device="cpu")


def feed(store: IceStore, num_rows: int, seed: int) -> Tensor:
    """One pass of `num_rows` rows; returns what the layers attended to."""
    random = torch.Generator().manual_seed(seed)
    outputs = []
    for layer in range(NUM_LAYERS):
        keys, values = (torch.randn(NUM_KV_HEADS, num_rows, HEAD_DIM, generator=random) for _ in range(2))
        store.append(layer, keys, values)
        outputs.append(store.attend(layer, torch.randn(NUM_HEADS, num_rows, HEAD_DIM, generator=random), "causal", scale=0.5))
    return torch.stack(outputs)


def decode(store: IceStore, num_rounds: int, seed: int = 100) -> Tensor:
    outputs = []
    for step in range(num_rounds):
        outputs.append(feed(store, 2, seed + step))
        store.commit([0, 1])
    return torch.stack(outputs)


def prefilled(config: IceConfig) -> IceStore:
    store = new_store(config)
    feed(store, 90, 0)
    store.commit(range(90))
    store.start_decoding()
    return store


def test_pages_in_a_file_are_as_good_as_in_memory(tmp_path: Path) -> None:
    in_file = prefilled(replace(SMALL, cold_tier=str(tmp_path)))
    assert torch.equal(decode(in_file, 12), decode(prefilled(SMALL), 12))


@pytest.mark.skipif(os.name != "posix", reason="files without a name are POSIX's")
def test_pages_in_a_file_leave_nothing_behind_however_the_process_ends(tmp_path: Path) -> None:
    program = """
import os, signal, sys, torch
from hoarfrost.cache.page_pool import FileMemory, PagePool
pool = PagePool(16, 64, torch.float32, FileMemory(sys.argv[1]))
slots = pool.allocate(64)
pool.buffer[slots] = 1.0
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_gives_its_room_back(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("the system does not list open files")
    gc.collect()
    before = len(list(descriptors.iterdir()))
    store = prefilled(replace(SMALL, cold_tier=str(tmp_path)))
    assert len(list(descriptors.iterdir())) > before
    del store
    gc.collect()
    assert len(list(descriptors.iterdir())) == before


def test_a_full_disk_is_a_sentence_and_the_cache_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, cold_tier=str(tmp_path))
    twin, store = prefilled(config), prefilled(config)
    real = os.posix_fallocate
    monkeypatch.setattr(page_pool.os, "posix_fallocate", no_room)
    before = store.length
    with pytest.raises(InvalidInput, match="No space left on device; free some space"):
        decode(store, 200)
    monkeypatch.setattr(page_pool.os, "posix_fallocate", real)
    assert store.length > before
    rounds = (store.length - before) // 2
    decode(twin, rounds)
    store.commit([])  # the window is as short again as it should be
    assert torch.equal(decode(store, 5, seed=900), decode(twin, 5, seed=900)), "the round whose pages found no room still counts"


def no_room(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_while_the_prompt_is_read_loses_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twin, store = new_store(SMALL), new_store(replace(SMALL, cold_tier=str(tmp_path)))
    for one in (twin, store):
        feed(one, 40, 0)
    with monkeypatch.context() as patch:
        patch.setattr(page_pool.os, "posix_fallocate", no_room)
        with pytest.raises(InvalidInput, match="No space left on device; free some space"):
            store.commit(range(40))
        with pytest.raises(InvalidInput, match="No space left on device; free some space"):
            store.reserve(10_000)
    twin.commit(range(40))
    assert (store.length, store.num_paged) == (40, 0), "all rows wait in the window"
    assert torch.equal(store.rows_in_order(1), twin.rows_in_order(1))
    torch.testing.assert_close(feed(store, 5, 1), feed(twin, 5, 1))
    for one in (twin, store):
        one.commit(range(5))
    assert store.num_paged == twin.num_paged > 0


def test_a_disk_that_is_full_when_decoding_starts_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grouping rows anew takes more pages than lying in order; the second layer is the one that finds no room."""
    twin, store = new_store(SMALL), new_store(replace(SMALL, cold_tier=str(tmp_path)))
    for one in (twin, store):
        feed(one, 90, 0)
        one.commit(range(90))
    in_order = [store.rows_in_order(layer) for layer in range(NUM_LAYERS)]
    pages = store._layers[1]
    pages.pool._free, held = [], pages.pool._free
    with monkeypatch.context() as patch:
        patch.setattr(page_pool.os, "posix_fallocate", no_room)
        with pytest.raises(InvalidInput, match="No space left on device; free some space"):
            store.start_decoding()
    pages.pool._free = held
    assert all(torch.equal(store.rows_in_order(layer), in_order[layer]) for layer in range(NUM_LAYERS))
    for one in (twin, store):
        one.start_decoding()
    assert torch.equal(decode(store, 12), decode(twin, 12))


def test_the_pool_hands_slots_out_and_takes_them_back() -> None:
    pool = PagePool(4, 8, torch.float32, DeviceMemory(torch.device("cpu")))
    first = pool.allocate(3)
    pool.buffer[torch.from_numpy(first)] = 1.0
    assert first.tolist() == [0, 1, 2]
    second = pool.allocate(40)
    assert len({*first.tolist(), *second.tolist()}) == 43 == pool.num_used
    assert (pool.buffer[torch.from_numpy(first)] == 1.0).all(), "growing keeps what is there"
    pool.release(second)
    capacity = len(pool.buffer)
    assert set(pool.allocate(40).tolist()) == set(second.tolist())
    assert len(pool.buffer) == capacity


def test_a_pool_that_cannot_grow_stays_as_it_is(tmp_path: Path) -> None:
    pool = PagePool(4, 8, torch.float32, FileMemory(str(tmp_path)))
    pool.allocate(3)
    capacity = len(pool.buffer)
    with pytest.raises(InvalidInput, match="could not grow"):
        pool.allocate(1 << 50)
    assert (len(pool.buffer), pool.num_used) == (capacity, 3)
    with pytest.raises(InvalidInput, match="takes no file"):
        FileMemory(str(tmp_path / "absent"))


def test_hot_pages_fetch_only_what_is_missing() -> None:
    pool = torch.randn(12, 2, 4, 8)
    hot = HotPages(2, torch.device("cpu"))
    cold_slots = np.arange(12).reshape(2, 6)

    def fetch(*pages: list[list[int]]) -> None:
        wanted = np.array(pages, np.int64)
        slots = np.take_along_axis(cold_slots[:, None].repeat(wanted.shape[1], 1), np.maximum(wanted, 0), 2)
        buffer, lists = hot.fetch(pool, wanted, PageLists(slots, (wanted >= 0).astype(np.int32) * 4))
        seen = wanted >= 0
        assert torch.equal(buffer[torch.from_numpy(lists.slots[seen])], pool[torch.from_numpy(slots[seen])])

    fetch([[0, 1, 2]], [[3, -1, -1]])
    assert hot.num_fetched == 4
    fetch([[2, 5, 0]], [[3, 4, -1]])
    assert hot.num_fetched == 6, "page 5 of one head and page 4 of the other"
    fetch([[2, 5], [5, 1]], [[3, 0], [-1, 3]])
    assert hot.num_fetched == 8, "a page that two rows want is fetched once"
    pool[5] = 7.0
    hot.forget(np.array([0]), np.array([5]))
    fetch([[2, 5]], [[3, 4]])
    assert hot.num_fetched >= 9, "a page that changed is fetched again"


def test_the_estimate_brings_the_result_closer_to_full_attention() -> None:
    def error(config: IceConfig) -> float:
        store, full = new_store(config), new_store(replace(config, budget=400))
        for one in (store, full):
            feed(one, 400, 1)
            one.commit(range(300))
            one.start_decoding()
        return float((decode(store, 10) - decode(full, 10)).norm())

    config = IceConfig(budget=36, num_sinks=2, window=18, page_size=4, index="ice")
    assert error(replace(config, estimate=True)) < 0.8 * error(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 40}, "does not hold 4 sinks, a window of 28 and one page of 16; give at least 48"),
        ({"budget": 0}, "budget is 0"),
        ({"budget": 64.5}, "budget is 64.5"),
        ({"page_size": 0}, "page_size is 0"),
        ({"window": 8}, "shorter than a page of 16"),
        ({"reuse": 0}, "reuse is 0"),
        ({"index": "annoy"}, "no index 'annoy'"),
        ({"tree_queries": "some"}, "choose each or union"),
        ({"cold_tier": "/nowhere/at/all"}, "neither 'memory' nor a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        IceConfig(**settings)
    assert IceConfig(budget=64).retrieved_rows == 32


def test_other_refusals() -> None:
    store = prefilled(SMALL)
    with pytest.raises(InvalidInput, match="full attention only"):
        store.attend(0, torch.randn(NUM_HEADS, 1, HEAD_DIM), "causal", scale=1.0, window=100)
    for length in (-1, 91):
        with pytest.raises(ValueError, match=f"to {length}"):
            store.truncate(length)


def test_page_fill_is_rows_over_places() -> None:
    assert new_store(SMALL).page_fill() == 1.0
    store = prefilled(replace(SMALL, index="dci"))
    decode(store, 40)
    num_pages = sum(int((pages.counts > 0).sum()) for pages in store._layers)
    assert store.page_fill() == store.num_paged * NUM_LAYERS * NUM_KV_HEADS / (num_pages * SMALL.page_size) < 1
    exact = prefilled(replace(SMALL, index="exact"))
    assert exact.page_fill() == exact.num_paged / (4 * -(-exact.num_paged // 4))


def test_every_byte_is_counted() -> None:
    store = prefilled(replace(SMALL, index="ice", estimate=True))
    bytes_by_tier = store.bytes_by_tier()
    assert bytes_by_tier["cold"] >= store.num_paged * NUM_LAYERS * NUM_KV_HEADS * 2 * HEAD_DIM * 4
    assert bytes_by_tier["index"] > 0
    assert bytes_by_tier["hot"] < bytes_by_tier["cold"] + NUM_LAYERS * NUM_KV_HEADS * 200 * 2 * HEAD_DIM * 4
