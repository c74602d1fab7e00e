"""Every index keeps the promises of `PageIndex`, whatever is put in and taken out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cache.index.key_pages import MiniStore, clustered_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.cache.index import INDEXES, FindsRows, IceIndex, IceIndexConfig, PageIndex, new_index
from hoarfrost.errors import InvalidInput

NAMES = tuple(INDEXES)
each_index = pytest.mark.parametrize("name", NAMES)


@each_index
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_stay_in_exactly_one_page(name: str, data: st.DataObject) -> None:
    num_heads, head_dim, page_size = data.draw(
        st.tuples(st.integers(1, 3), st.sampled_from((3, 8, 20, 64)), st.sampled_from((1, 3, 4, 16)))
    )
    num_rows = data.draw(st.integers(0, 150))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    store = MiniStore(new_index(name, page_size), torch.randn((num_heads, num_rows, head_dim), generator=generator))
    for _ in range(data.draw(st.integers(0, 5))):
        if data.draw(st.booleans()):
            store.insert(torch.randn((num_heads, data.draw(st.integers(1, 40)), head_dim), generator=generator))
        else:
            store.truncate(data.draw(st.integers(0, store.index.num_rows)))
    if store.index.num_rows == 0:
        return
    num_pages = data.draw(st.integers(1, 20))
    num_sets = data.draw(st.integers(1, 3))
    queries = torch.randn((num_heads, num_sets, 3, head_dim), generator=generator)
    resident, key_pages = torch.randn((num_heads, num_sets, 3), generator=generator), store.key_pages()
    chosen = store.index.select(queries, num_pages, head_dim**-0.5, key_pages, resident)
    assert chosen.shape == (num_heads, num_sets, num_pages)
    assert chosen.dtype == np.int32
    counts = store.index.pages().counts
    for head, one in np.ndindex(num_heads, num_sets):
        found = chosen[head, one][chosen[head, one] >= 0]
        assert len(np.unique(found)) == len(found) == min(num_pages, np.count_nonzero(counts[head]))
        assert (counts[head, found] > 0).all()
    alone = [
        store.index.select(queries[:, one : one + 1], num_pages, head_dim**-0.5, key_pages, resident[:, one : one + 1])
        for one in range(num_sets)
    ]
    np.testing.assert_array_equal(chosen, np.concatenate(alone, axis=1), "a set retrieves for itself")


@each_index
@pytest.mark.parametrize("make", [torch.zeros, torch.ones], ids=["zeros", "equal"])
def test_keys_that_are_all_alike(name: str, make: Callable[..., torch.Tensor]) -> None:
    store = MiniStore(new_index(name, 4), make(2, 50, 16))
    store.insert(make(2, 5, 16))
    chosen = store.index.select(make(2, 1, 1, 16), 3, 1.0, store.key_pages())
    assert (chosen >= 0).all()


@each_index
def test_the_same_input_gives_the_same_pages(name: str) -> None:
    keys, queries = clustered_keys(2, 700, 32), clustered_keys(2, 4, 32, seed=1)[:, None]
    stores = [MiniStore(new_index(name), keys) for _ in range(2)]
    for store in stores:
        store.insert(clustered_keys(2, 30, 32, seed=2))
    tables = [store.index.pages().rows for store in stores]
    np.testing.assert_array_equal(tables[0], tables[1])
    chosen = [store.index.select(queries, 5, 0.2, store.key_pages()) for store in stores]
    np.testing.assert_array_equal(chosen[0], chosen[1])


@each_index
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    keys, queries = clustered_keys(2, 300, 32).to(dtype), clustered_keys(2, 4, 32, seed=1)[:, None].to(dtype)
    half, full = MiniStore(new_index(name), keys), MiniStore(new_index(name), keys.float())
    np.testing.assert_array_equal(half.index.pages().rows, full.index.pages().rows)
    chosen = [store.index.select(queries, 5, 0.2, store.key_pages()) for store in (half, full)]
    np.testing.assert_array_equal(np.sort(chosen[0]), np.sort(chosen[1]))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "quest"])  # whose bounds promise too much on scattered keys
def test_finds_what_was_hidden(name: str) -> None:
    """A query that is one of the keys, enlarged, must fetch that key's page, wherever the key lies and whenever it came."""
    store = MiniStore(new_index(name), clustered_keys(2, 1000, 64))
    for seed in range(3):
        store.insert(clustered_keys(2, 24, 64, seed=seed + 10))
    key_pages, table, misses = store.key_pages(), store.index.pages(), 0
    for row in range(0, 1072, 67):
        chosen = store.index.select(4 * store.keys[:, None, row : row + 1], 4, 0.125, key_pages)[:, 0]
        misses += sum(row not in table.rows[head, chosen[head]] for head in range(2))
    assert misses <= 1


def test_heads_keep_their_order_where_that_serves_the_queries_better() -> None:
    """Runs of rows that one query wants, though their keys are alike in nothing else, stay together; and only in the head concerned."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn((2, 1024, 32), generator=generator) * 4
    keys[0, :, 0] = torch.randn(64, generator=generator).repeat_interleave(16) * 2
    keys[1, :, 0] = torch.randn(1024, generator=generator)
    queries = torch.zeros(2, 8, 32)
    queries[0, :, 0], queries[1] = 12.0, torch.randn((8, 32), generator=generator)
    rows = MiniStore(new_index("ice"), keys, queries).index.pages().rows
    in_order = np.arange(1024).reshape(64, 16)
    np.testing.assert_array_equal(rows[0], in_order)
    assert (MiniStore(new_index("ice"), keys).index.pages().rows[0] != in_order).any(), "without queries, similar keys stay together"


@each_index
def test_bad_input_is_refused_and_changes_nothing(name: str) -> None:
    store = MiniStore(new_index(name), clustered_keys(2, 100, 16))
    index: PageIndex = store.index
    broken = torch.ones(2, 4, 16)
    broken[1, 2, 3] = torch.nan
    for keys in (broken, torch.ones(2, 4, 8), torch.ones(3, 4, 16), torch.ones(4, 16), torch.ones(2, 4, 16, dtype=torch.int64)):
        with pytest.raises(InvalidInput):
            index.insert(keys, store.key_pages())
    with pytest.raises(InvalidInput):
        index.build(broken)
    for num_rows in (-1, 101):
        with pytest.raises(InvalidInput, match="truncate"):
            index.truncate(num_rows)
    with pytest.raises(InvalidInput, match="num_pages"):
        index.select(torch.ones(2, 1, 1, 16), 0, 1.0, store.key_pages())
    with pytest.raises(InvalidInput, match="queries"):
        index.select(torch.ones(2, 1, 1, 8), 1, 1.0, store.key_pages())
    with pytest.raises(InvalidInput, match="queries"):
        index.select(torch.ones(2, 1, 16), 1, 1.0, store.key_pages())
    store.check()


def test_unknown_names_and_page_sizes() -> None:
    with pytest.raises(InvalidInput, match="ice"):
        new_index("none")
    for name in NAMES:
        with pytest.raises(InvalidInput, match="page size"):
            new_index(name, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dci"])  # which merges by rank, as published
def test_a_query_that_looks_at_resident_rows_has_less_of_a_say(name: str) -> None:
    """Two queries want different pages; the one whose softmax lies on sinks and window yields."""
    keys = torch.zeros(1, 64, 16)
    keys[0, :16, 0], keys[0, 32:48, 1] = 6.0, 6.0
    queries = torch.zeros(1, 1, 2, 16)
    queries[0, 0, 0, 0], queries[0, 0, 1, 1] = 1.0, 1.0
    store = MiniStore(new_index(name), keys)
    resident = torch.tensor([[[[20.0, 0.0]]], [[[0.0, 20.0]]]])
    wanted = [store.index.select(queries, 1, 1.0, store.key_pages(), one)[0, 0, 0] for one in resident]
    rows = store.index.pages().rows[0]
    assert keys[0, rows[wanted[0], 0], 1] == 6
    assert keys[0, rows[wanted[1], 0], 0] == 6


@each_index
def test_the_newest_pages_can_be_left_out(name: str) -> None:
    """Then what is chosen is what would have been chosen before their rows came in."""
    keys, queries = torch.randn((2, 96, 16), generator=torch.Generator().manual_seed(0)), torch.randn((2, 3, 4, 16))
    store = MiniStore(new_index(name, 4), keys[:, :80])
    if not store.index.only_appends:
        pytest.skip("its pages do not say when their rows came")
    finders = [store.index.select, *([store.index.select_rows] if isinstance(store.index, FindsRows) else [])]
    before = [find(queries, 9, 0.3, store.key_pages()) for find in finders]
    store.insert(keys[:, 80:])
    for find, expected in zip(finders, before, strict=True):
        np.testing.assert_array_equal(find(queries, 9, 0.3, store.key_pages(), num_left_out=4), expected)


@pytest.mark.parametrize("page_size", [1, 3, 16])
def test_single_rows_are_the_best_of_all_where_every_page_is_a_candidate(page_size: int) -> None:
    generator = torch.Generator().manual_seed(page_size)
    keys, queries = torch.randn((2, 60, 16), generator=generator), torch.randn((2, 2, 3, 16), generator=generator)
    index = IceIndex(IceIndexConfig(page_size))
    store = MiniStore(index, keys)
    chosen = index.select_rows(queries, 20, 0.3, store.key_pages())
    rows = store.index.pages().rows
    shares = torch.softmax(torch.einsum("hlrd,hnd->hlrn", queries, keys) * 0.3, dim=-1).sum(dim=2)
    for head, one in np.ndindex(2, 2):
        found = rows[head, chosen[head, one] // page_size, chosen[head, one] % page_size]
        assert sorted(found.tolist()) == sorted(shares[head, one].topk(20).indices.tolist())


def test_single_rows_catch_more_than_as_many_in_pages() -> None:
    keys = clustered_keys(1, 2048, 32)
    index, queries = IceIndex(), keys[:, None, ::512]
    store = MiniStore(index, keys)
    shares = torch.softmax(torch.einsum("hlrd,hnd->hlrn", queries, keys), dim=-1).sum(dim=(1, 2))[0]
    rows = store.index.pages().rows[0]
    in_pages = rows[store.index.select(queries, 3, 1.0, store.key_pages())[0, 0]].ravel()
    chosen = index.select_rows(queries, 48, 1.0, store.key_pages())[0, 0]
    alone = rows[chosen // 16, chosen % 16]
    assert len(set(alone.tolist())) == len(in_pages) == 48
    assert shares[alone].sum() > shares[in_pages].sum()
