"""The native kernels of the indexes against their plain twins, on every instruction set of this processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.cache.index import KeyPages, plain, scoring, sketch
from hoarfrost.kernels import index as kernels
from hoarfrost.kernels import instruction_sets

variants = pytest.mark.parametrize("variant", instruction_sets())
dims = st.sampled_from((1, 8, 20, 64, 96, 128, 256, 300))


@variants
@settings(max_examples=15, deadline=None)
@given(num_rows=st.integers(1, 70), head_dim=dims, seed=st.integers(0, 99), half=st.booleans())
def test_sketches_are_the_same_bits(variant: str, num_rows: int, head_dim: int, seed: int, half: bool) -> None:
    keys, centre, flips = _keys(2, num_rows, head_dim, seed)
    keys = keys.bfloat16() if half else keys
    scale = np.array([8.0, 30.0], np.float32)
    native, twin = kernels.sketch_keys(keys, centre, flips, scale, variant), plain.sketch_keys(keys, centre, flips, scale)
    for one, other in zip(native, twin, strict=True):
        np.testing.assert_array_equal(one, other)


@variants
@settings(max_examples=25, deadline=None)
@given(
    num_pages=st.integers(0, 60),
    page_size=st.sampled_from((1, 5, 16, 32)),
    width=st.sampled_from((16, 64)),
    spread=st.integers(0, 127),
    seed=st.integers(0, 99),
)
def test_groups_are_the_same(variant: str, num_pages: int, page_size: int, width: int, spread: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    coordinates = generator.integers(-spread, spread + 1, (2, num_pages * page_size, width)).astype(np.int8)
    np.testing.assert_array_equal(kernels.group_similar(coordinates, page_size, variant), plain.group_similar(coordinates, page_size))


@variants
def test_groups_of_many_rows_are_the_same(variant: str) -> None:
    coordinates = np.clip(np.random.default_rng(0).normal(0, 30, (1, 4096, 64)), -127, 127).astype(np.int8)
    np.testing.assert_array_equal(kernels.group_similar(coordinates, 16, variant), plain.group_similar(coordinates, 16))


@variants
@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(1, 200),
    head_dim=dims,
    page_size=st.sampled_from((1, 5, 16, 24, 32)),
    num_queries=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_estimates_are_the_same_bits(variant: str, num_rows: int, head_dim: int, page_size: int, num_queries: int, seed: int) -> None:
    keys, centre, flips = _keys(2, num_rows, head_dim, seed)
    sketches = plain.sketch_keys(keys, centre, flips, np.ones(2, np.float32))
    rows = _random_pages(2, num_rows, page_size, seed)
    laid_out, twin_laid_out = kernels.lay_out(sketches, rows), plain.lay_out(sketches, rows)
    for one, other in zip(laid_out, twin_laid_out, strict=True):
        np.testing.assert_array_equal(one, other)
    counts = (rows >= 0).sum(axis=2, dtype=np.int32)
    queries = torch.from_numpy(np.random.default_rng(seed + 1).standard_normal((2, num_queries, head_dim), np.float32))
    native = kernels.estimate_log_masses(*laid_out, counts, queries, flips, 0.3, variant)
    twin = plain.estimate_log_masses(*laid_out, counts, queries, flips, 0.3)
    np.testing.assert_array_equal(native, twin)


@variants
@settings(max_examples=15, deadline=None)
@given(head_dim=dims, page_size=st.sampled_from((1, 5, 16)), num_queries=st.integers(1, 9), half=st.booleans(), seed=st.integers(0, 99))
def test_exact_masses(variant: str, head_dim: int, page_size: int, num_queries: int, half: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn((9, 2, page_size, head_dim), generator=generator)
    pool = (pool.bfloat16() if half else pool)[:, 0]
    keys = KeyPages(pool, torch.randint(9, (2, 7), generator=generator))
    counts = torch.randint(page_size + 1, (2, 7), generator=generator, dtype=torch.int32).numpy()
    pages = np.array([[0, -1, 6, 3], [2, 1, 5, -1]], np.int32)
    queries = torch.randn((2, num_queries, head_dim), generator=generator)
    native = kernels.page_log_masses((queries * (0.2 * np.log2(np.e))).numpy(), pool, keys.slots, counts, pages, variant)
    np.testing.assert_allclose(native, plain.page_log_masses(queries, 0.2, keys, counts, pages), rtol=1e-4, atol=1e-4)


@variants
@settings(max_examples=30, deadline=None)
@given(num_pages=st.integers(1, 70), num_queries=st.integers(1, 5), count=st.integers(1, 20), seed=st.integers(0, 99))
def test_ranking(variant: str, num_pages: int, num_queries: int, count: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    masses = generator.integers(-6, 4, (2, num_queries, num_pages)).astype(np.float32)  # whole numbers: shares are exact, ties are frequent
    masses[:, :, generator.random(num_pages) < 0.2] = -np.inf
    totals = kernels.sum_log_masses(masses, variant)
    np.testing.assert_allclose(totals, plain.sum_log_masses(masses), rtol=1e-5)
    whole = np.ceil(np.maximum(totals, -99)).astype(np.float32)
    np.testing.assert_array_equal(kernels.rank_pages(masses, whole, count, variant), plain.rank_pages(masses, whole, count))


def test_estimates_are_near() -> None:
    """A bit per dimension leaves an error of about 3/4 of a product's own spread over sqrt(D); of a page's mass far less is left."""
    generator = np.random.default_rng(0)
    keys, centre, flips = _keys(1, 4096, 128, 0)
    queries = generator.standard_normal((1, 8, 128), np.float32)
    sketches = plain.sketch_keys(keys, centre, flips, np.ones(1, np.float32))
    rows = np.arange(4096, dtype=np.int32).reshape(1, -1, 1)
    estimates = kernels.estimate_log_masses(
        *kernels.lay_out(sketches, rows), np.ones((1, 4096), np.int32), torch.from_numpy(queries), flips, 1.0
    )
    exact = queries[0] @ (keys[0].numpy() - centre[0]).T * np.log2(np.e)
    assert np.corrcoef(estimates[0].ravel(), exact.ravel())[0, 1] > 0.75


@variants
@settings(max_examples=25, deadline=None)
@given(
    num_rows=st.integers(1, 400),
    head_dim=dims,
    half=st.booleans(),
    num_sets=st.integers(1, 3),
    num_queries=st.integers(1, 5),
    counts_resident=st.booleans(),
    single_rows=st.booleans(),
    seed=st.integers(0, 99),
)
def test_search_finds_what_its_twin_finds(
    variant: str,
    num_rows: int,
    head_dim: int,
    half: bool,
    num_sets: int,
    num_queries: int,
    counts_resident: bool,
    single_rows: bool,
    seed: int,
) -> None:
    keys, centre, flips = _keys(2, num_rows, head_dim, seed)
    keys = keys.bfloat16() if half else keys
    rows = _random_pages(2, num_rows, 16, seed)
    laid_out, counts = (
        plain.lay_out(plain.sketch_keys(keys, centre, flips, np.ones(2, np.float32)), rows),
        (rows >= 0).sum(2, dtype=np.int32),
    )
    held = torch.from_numpy(np.maximum(rows, 0).astype(np.int64))
    pool = torch.cat([keys[head][held[head]] for head in range(2)])
    pages = KeyPages(pool, torch.arange(len(pool)).view(2, -1))
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn((2, num_sets, num_queries, head_dim), generator=generator)
    resident = torch.randn((2, num_sets, num_queries), generator=generator).numpy() * 3 if counts_resident else None
    num_candidates, num_wanted = min(9, rows.shape[1]), 4
    wanted = num_candidates, num_wanted, single_rows
    native = kernels.search_pages(*laid_out, flips, counts, pool, pages.slots, queries, 0.3, resident, *wanted, variant)
    estimates = plain.estimate_log_masses(*laid_out, counts, queries.flatten(1, 2), flips, 0.3).reshape(2, num_sets, num_queries, -1)
    twin = scoring.search(estimates, queries, 0.3, pages, counts, resident, *wanted)
    np.testing.assert_array_equal(native, twin)


def _keys(num_heads: int, num_rows: int, head_dim: int, seed: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    keys = torch.from_numpy(generator.standard_normal((num_heads, num_rows, head_dim), np.float32))
    return keys, generator.standard_normal((num_heads, head_dim), np.float32) / 4, sketch.random_flips(head_dim, seed)


def _random_pages(num_heads: int, num_rows: int, page_size: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    rows = np.full((num_heads, -(-num_rows // page_size) * page_size), -1, np.int32)
    for head in range(num_heads):
        rows[head, :num_rows] = generator.permutation(num_rows)
    return rows.reshape(num_heads, -1, page_size)
