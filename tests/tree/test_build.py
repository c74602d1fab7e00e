"""Built trees: optimal against brute force, and equal to the plain twin on every path, ties and impossible tokens included.

float32 and bfloat16 logits on the CPU go through the kernel that reads logits as it grows, float64 ones through widening.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from tree.random_trees import assert_equal_trees, assert_well_formed

from hoarfrost.errors import InvalidInput
from hoarfrost.tree import Candidates, DraftTree, Marginals, build, build_trees
from hoarfrost.tree.plain import build_tree_plain

DTYPES = [torch.float32, torch.bfloat16, torch.float64]
Path = tuple[int, ...]


def built(logits: Tensor, budget: int, max_width: int | None = None, bonus_token_id: int = 9) -> DraftTree:
    return build_trees([Marginals(logits)], [bonus_token_id], budget, max_width)[0]


def twin(logits: Tensor, budget: int, max_width: int | None = None, bonus_token_id: int = 9) -> DraftTree:
    width = min(logits.shape[1], max_width or logits.shape[1])
    log_probs, token_ids = Marginals(logits).top(width)
    return build_tree_plain(log_probs, token_ids, bonus_token_id, budget)


@st.composite
def small_logits(draw: st.DrawFn, max_horizon: int = 4, max_vocab_size: int = 6) -> Tensor:
    """Logits of few different values, so that ties abound, some of them impossible."""
    horizon, vocab_size = draw(st.integers(0, max_horizon)), draw(st.integers(1, max_vocab_size))
    value = st.sampled_from([-math.inf, -2.0, -1.0, 0.0, 0.0, 1.0, 3.0])
    rows = draw(st.lists(st.lists(value, min_size=vocab_size, max_size=vocab_size), min_size=horizon, max_size=horizon))
    return torch.tensor(rows).reshape(horizon, vocab_size).to(draw(st.sampled_from(DTYPES)))


def random_logits(horizon: int, vocab_size: int, dtype: torch.dtype, scale: float, seed: int = 0) -> Tensor:
    return (torch.randn(horizon, vocab_size, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)


def prefix_closed_sets(frontier: list[Path], size: int, horizon: int, vocab_size: int) -> Iterator[list[Path]]:
    """Every set of at most `size` nodes in which each node's parent is the root or a member, once."""
    yield []
    if size == 0:
        return
    for index, node in enumerate(frontier):
        children = [(*node, token) for token in range(vocab_size)] if len(node) < horizon else []
        for rest in prefix_closed_sets(frontier[index + 1 :] + children, size - 1, horizon, vocab_size):
            yield [node, *rest]


@settings(max_examples=50)
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4))
def test_no_tree_of_that_size_expects_more(data: st.DataObject, horizon: int, vocab_size: int, budget: int) -> None:
    entries = st.lists(st.floats(-4, 4, width=32), min_size=horizon * vocab_size, max_size=horizon * vocab_size)
    logits = torch.tensor(data.draw(entries), dtype=torch.float32).reshape(horizon, vocab_size)
    probs = torch.softmax(logits.double(), dim=1)

    def expected_length(nodes: list[Path]) -> float:
        return sum(math.prod(float(probs[depth, token]) for depth, token in enumerate(node)) for node in nodes)

    tree = built(logits, budget)
    paths: list[Path] = [()]
    for row in range(1, tree.num_rows):
        paths.append((*paths[tree.parents[row]], int(tree.token_ids[row])))
    best = max(map(expected_length, prefix_closed_sets([(token,) for token in range(vocab_size)], budget, horizon, vocab_size)))
    assert expected_length(paths[1:]) == pytest.approx(best, abs=1e-6)


@settings(max_examples=50)
@given(small_logits(), st.integers(0, 40), st.none() | st.integers(1, 4))
def test_equals_the_twin_in_ties(logits: Tensor, budget: int, max_width: int | None) -> None:
    tree = built(logits, budget, max_width)
    assert_well_formed(tree)
    assert_equal_trees(tree, twin(logits, budget, max_width))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 0.3, 3.0, 12.0])
@pytest.mark.parametrize("budget", [1, 16, 63, 64, 300])
def test_equals_the_twin_on_a_real_vocabulary(budget: int, scale: float, dtype: torch.dtype) -> None:
    logits = random_logits(15, 2000, dtype, scale)
    tree = built(logits, budget)
    assert tree.num_rows == budget + 1
    assert_well_formed(tree)
    assert_equal_trees(tree, twin(logits, budget))


@settings(max_examples=50)
@given(small_logits(max_vocab_size=12), st.integers(1, 40), st.integers(1, 3))
def test_widening_changes_nothing(logits: Tensor, budget: int, first_num_ranks: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "INITIAL_NUM_RANKS", first_num_ranks)
        tree = built(logits.double(), budget)
    assert_equal_trees(tree, twin(logits.double(), budget))


def test_only_unfinished_trees_are_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    original = build.candidates_of

    def counted(marginals: list[Marginals], k: int) -> list[Candidates]:
        calls.append((len(marginals), k))
        return original(marginals, k)

    monkeypatch.setattr(build, "candidates_of", counted)
    peaked, flat = random_logits(15, 500, torch.float64, 12.0), random_logits(15, 500, torch.float64, 0.1)
    build_trees([Marginals(peaked), Marginals(flat)], [1, 2], 100)
    assert calls == [(2, 32), (1, 64), (1, 100)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_is_its_sequences(dtype: torch.dtype) -> None:
    batch = [
        random_logits(horizon, 300, dtype, scale, seed) for seed, (horizon, scale) in enumerate([(6, 1.0), (0, 1.0), (3, 9.0), (6, 0.0)])
    ]
    trees = build_trees([Marginals(logits) for logits in batch], [10, 11, 12, 13], 70)
    for index, (tree, logits) in enumerate(zip(trees, batch, strict=True)):
        assert_equal_trees(tree, built(logits, 70, None, 10 + index))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_chain_is_the_best_token_of_each_depth(dtype: torch.dtype) -> None:
    logits = random_logits(7, 100, dtype, 3.0)
    tree = built(logits, 1000, 1)
    assert tree.is_chain
    assert tree.token_ids.tolist() == [9, *logits.argmax(dim=1).tolist()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_decoding_is_the_root_and_reads_nothing(dtype: torch.dtype) -> None:
    assert_equal_trees(built(torch.full((3, 5), torch.nan, dtype=dtype), 0), DraftTree.single(9))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_budget_beyond_all_nodes_gives_them_all(dtype: torch.dtype) -> None:
    tree = built(random_logits(3, 4, dtype, 1.0), 1000)
    assert tree.num_rows == 1 + 4 + 16 + 64
    assert_well_formed(tree)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broken_logits_are_an_error(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidInput, match="NaN"):
        built(torch.full((3, 5), torch.nan, dtype=dtype), 3)


def test_input_must_match() -> None:
    assert build_trees([], [], 16) == []
    with pytest.raises(InvalidInput, match="1 marginals and 2 bonus tokens"):
        build_trees([Marginals(torch.zeros(1, 2))], [1, 2], 16)
