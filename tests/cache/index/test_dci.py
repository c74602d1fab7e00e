"""The DCI-tree: its native parts against their plain twins, its shape, and what its search finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cache.index.key_pages import MiniStore, clustered_keys
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.cache.index import DciConfig, DciIndex, dci_plain, lift
from hoarfrost.cache.index.dci_tree import DciTree, levels_of
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels import index as kernels
from hoarfrost.kernels import instruction_sets

variants = pytest.mark.parametrize("variant", instruction_sets())


@variants
@settings(max_examples=15, deadline=None)
@given(
    num_rows=st.integers(1, 60),
    head_dim=st.sampled_from((1, 8, 21, 64, 128)),
    half=st.booleans(),
    shrink=st.booleans(),
    seed=st.integers(0, 99),
)
def test_lifted_keys_are_the_same_bits(variant: str, num_rows: int, head_dim: int, half: bool, shrink: bool, seed: int) -> None:
    keys = torch.from_numpy(np.random.default_rng(seed).standard_normal((1, num_rows, head_dim), np.float32))
    keys = keys.bfloat16() if half else keys
    rows = keys[0].float().numpy()
    radii = kernels.largest_squared_lengths(keys, variant)
    np.testing.assert_array_equal(radii, lift.squared_lengths(rows).max(keepdims=True))
    radii = radii / 2 if shrink else radii  # some keys are then longer than the radius
    direction = lift.random_direction(head_dim, seed)
    [lifted], [projections] = kernels.lift_keys(keys, radii, direction, variant)
    np.testing.assert_array_equal(lifted, lift.lift(rows, radii[0]))
    lengths = np.linalg.norm(lifted.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, 32767, rtol=1e-3)
    np.testing.assert_array_equal(projections, lift.project(lifted, direction))


@variants
@settings(max_examples=25, deadline=None)
@given(
    num_points=st.integers(0, 120),
    num_pivots=st.integers(1, 70),
    width=st.sampled_from((2, 10, 66)),
    few=st.booleans(),
    seed=st.integers(0, 99),
)
def test_nearest_pivots(variant: str, num_points: int, num_pivots: int, width: int, few: bool, seed: int) -> None:
    limit = 1 if few else int(32767 / np.sqrt(width))  # few values: ties everywhere
    generator = np.random.default_rng(seed)
    points, pivots = (generator.integers(-limit, limit + 1, (count, width)).astype(np.int16) for count in (num_points, num_pivots))
    np.testing.assert_array_equal(kernels.nearest_pivots(points, pivots, variant), lift.nearest_pivots(points, pivots))


@variants
@pytest.mark.parametrize("kind", ["gaussian", "clustered", "outside", "outliers", "near", "equal"])
@pytest.mark.parametrize("head_dim", [5, 64, 128])
def test_the_screen_loses_no_nearest_pivot(variant: str, kind: str, head_dim: int) -> None:
    generator = np.random.default_rng(head_dim)
    keys = generator.standard_normal((700, head_dim), np.float32)
    if kind == "clustered":
        keys = keys[generator.integers(9, size=700)] + keys / 4
    if kind == "outside":
        keys[100:] = keys[100:] * 3 + 2  # farther out than the pivots
    if kind == "outliers":
        keys[:, ::7] += 30
    if kind == "near":
        keys = keys[0] + keys / 1000
    if kind == "equal":
        keys = keys[generator.integers(2, size=700)]
    lifted = lift.lift(keys, lift.squared_lengths(keys).max())
    pivots = lifted[:99]
    np.testing.assert_array_equal(kernels.nearest_pivots(lifted, pivots, variant), lift.nearest_pivots(lifted, pivots))


def test_levels_hold_their_shares() -> None:
    counts = np.bincount(levels_of(32768, 0.01, 0.2))
    assert counts[1] == 324
    assert abs(counts[2] - 65) <= 1
    assert counts.sum() == 32768
    np.testing.assert_array_equal(levels_of(5000, 0.01, 0.2), levels_of(6000, 0.01, 0.2)[:5000])


def test_rows_are_children_of_the_nearest_pivot_and_pages_follow_the_projection() -> None:
    lifted = lift.lift(clustered_keys(1, 3000, 16)[0].numpy(), 100.0)
    projections = lift.project(lifted, lift.random_direction(16, 0))
    levels = levels_of(3000, 0.01, 0.2)
    tree = DciTree(lifted, projections, levels, 16)
    pivots = np.flatnonzero(levels == 1)
    nearest = pivots[lift.nearest_pivots(lifted[levels == 0], lifted[pivots])]
    parents = np.full(3000, -1)
    for pivot in pivots:
        pages = tree.pages_of(int(tree.child_cells[pivot]))
        rows = [tree.rows[page][tree.rows[page] >= 0] for page in pages]
        sizes = [len(one) for one in rows]
        assert max(sizes, default=0) - min(sizes, default=0) <= 1
        assert len(pages) == -(-sum(sizes) // 16)
        if rows:
            parents[np.concatenate(rows)] = pivot
            assert (np.diff(projections[np.concatenate(rows)]) >= 0).all()
    np.testing.assert_array_equal(parents[levels == 0], nearest)


@variants
def test_a_search_without_limits_scores_every_row(variant: str) -> None:
    store = MiniStore(DciIndex(), clustered_keys(1, 2000, 32))
    index, pages, table = store.index, store.key_pages(), store.index.pages()
    assert isinstance(index, DciIndex)
    queries = clustered_keys(1, 3, 32, seed=5)[0].numpy()
    breadth = kernels.DciBreadth(10_000, 1.0, 128)
    scores = kernels.search_trees(
        index._trees, table.rows, table.counts, pages.pool, pages.slots, queries[None], np.zeros((1, 3), np.int32), breadth, variant
    )
    products = np.append(store.keys[0].numpy() @ queries.T, np.full((1, 3), -np.inf, np.float32), axis=0)
    np.testing.assert_allclose(scores[0], products[table.rows[0]].max(axis=1).T, rtol=1e-4, atol=1e-4)


def test_a_narrow_search_looks_at_a_part_and_finds_most() -> None:
    store = MiniStore(DciIndex(), clustered_keys(1, 8000, 32))
    index, pages, table = store.index, store.key_pages(), store.index.pages()
    assert isinstance(index, DciIndex)
    queries = clustered_keys(1, 20, 32, seed=0)[0].numpy()
    projected = lift.project_query(queries, index._direction)[None]
    breadth = index.config.breadth(8000, 12)
    scores = kernels.search_trees(index._trees, table.rows, table.counts, pages.pool, pages.slots, queries[None], projected, breadth)
    assert np.isinf(scores).mean() > 0.4, "most pages are never read"
    best = (store.keys[0].numpy() @ queries.T).argmax(axis=0)
    page_of = {int(row): page for page, rows in enumerate(table.rows[0]) for row in rows if row >= 0}
    assert np.mean([scores[0, query].argmax() == page_of[int(row)] for query, row in enumerate(best)]) > 0.6


def test_pages_split_when_they_are_full_and_stay_sorted() -> None:
    store = MiniStore(DciIndex(DciConfig(page_size=4)), clustered_keys(2, 300, 16))
    for seed in range(20):
        store.insert(clustered_keys(2, 16, 16, seed=seed))
    index, table = store.index, store.index.pages()
    assert isinstance(index, DciIndex)
    for head, tree in enumerate(index._trees):
        starts, all_pages = tree.flat_cells()
        for pages in np.split(all_pages, starts[1:-1]):
            rows = table.rows[head, pages]
            rows = rows[rows >= 0]
            assert (np.diff(tree.projections[rows]) >= 0).all()


def test_merging_takes_turns() -> None:
    scores = np.array([[[[9, 8, 7, 1, 0], [1, 2, 3, 4, -np.inf]]]], np.float32)
    counts = np.array([[1, 1, 1, 1, 1]], np.int32)
    assert kernels.merge_by_rank(scores, counts, 4)[0, 0].tolist() == [0, 3, 1, 2]


@settings(max_examples=50, deadline=None)
@given(num_pages=st.integers(0, 40), num_wanted=st.integers(1, 20), seed=st.integers(0, 999))
def test_merged_lists_are_those_of_the_twin(num_pages: int, num_wanted: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(-3, 4, (2, 2, 3, num_pages)).astype(np.float32)
    scores[generator.random(scores.shape) < 0.5] = -np.inf
    counts = generator.integers(0, 3, (2, num_pages)).astype(np.int32)
    merged = kernels.merge_by_rank(scores, counts, num_wanted)
    for head, one in np.ndindex(2, 2):
        np.testing.assert_array_equal(merged[head, one], dci_plain.merge_by_rank(scores[head, one], counts[head], num_wanted))


@settings(max_examples=50, deadline=None)
@given(num_rows=st.integers(0, 200), num_cells=st.integers(1, 9), page_size=st.sampled_from((1, 3, 16)), seed=st.integers(0, 999))
def test_cells_are_cut_like_those_of_the_twin(num_rows: int, num_cells: int, page_size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = np.flatnonzero(generator.random(num_rows) < 0.8).astype(np.int32)
    cells = generator.integers(num_cells, size=len(rows)).astype(np.int32)
    projections = generator.integers(-5, 6, num_rows).astype(np.int32) * np.int32(2**27)
    native, twin = (
        kernels.cut_cells(rows, cells, num_cells, projections, page_size),
        dci_plain.cut_cells(rows, cells, projections, page_size),
    )
    for one, other in zip(native, twin, strict=True):
        np.testing.assert_array_equal(one, other)


def test_config_refuses_what_makes_no_tree() -> None:
    for settings_ in ({"first_ratio": 0.0}, {"other_ratio": 0.7}, {"scored_share": 0.0}, {"min_field_of_view": 0}):
        with pytest.raises(InvalidInput):
            DciConfig(**settings_)
