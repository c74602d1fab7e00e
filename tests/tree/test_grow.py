"""Growing trees under calibration, with other sources of guesses and path-conditional candidates: the native builder against its twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree.random_trees import assert_equal_trees, assert_well_formed, random_candidates

from hoarfrost.kernels import Repetition, SourceShares, SuccessorTable, TreeHints, gumbel_noise_range
from hoarfrost.tree import Candidates, grow_trees, grow_worthwhile
from hoarfrost.tree.plain import PlainHints, allocate_plain, grow_tree_plain, share_given

VOCAB_SIZE = 12
MARKER = 1000


@st.composite
def random_hints(draw: st.DrawFn) -> PlainHints:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    calibration = None
    if draw(st.booleans()):
        calibration = np.stack((random.uniform(0.3, 2, (2, 5)), random.normal(0, 1, (2, 5)))).astype(np.float32)
    length = draw(st.integers(0, 6))
    successors = None
    if draw(st.booleans()):
        successors = np.stack([random.permutation(VOCAB_SIZE)[:3] for _ in range(VOCAB_SIZE)]).astype(np.int32)
        successors[random.random((VOCAB_SIZE, 3)) < 0.3] = -1
    noise = (int(random.integers(2**62)), int(random.integers(1000))) if draw(st.booleans()) else None
    return PlainHints(
        calibration,
        [*random.integers(0, VOCAB_SIZE, length).tolist(), MARKER] if length else [],
        random.uniform(0, 0.9, length + 1).astype(np.float32).tolist() if length else [],
        successors,
        None if successors is None else random.integers(0, 4, successors.shape).astype(np.uint8),
        [] if successors is None else random.uniform(0, 0.3, 4).astype(np.float32).tolist(),
        draw(st.integers(0, 8)),
        noise,
    )


def native_hints(hints: PlainHints) -> TreeHints:
    """The same for the kernel. A path is what followed a marker, up to it, in a text that ends with it again."""
    vocab_size, width = (VOCAB_SIZE, 1) if hints.successors is None else hints.successors.shape
    table, repetition = SuccessorTable(vocab_size, width, []), Repetition()
    if hints.successors is not None:
        table.token_ids[:], table.grades[:] = hints.successors, hints.grades
    if hints.path:
        assert MARKER not in hints.path[:-1]
        assert hints.path[-1] == MARKER
        repetition.extend([MARKER, *hints.path])
    shares = SourceShares(hints.grade_shares or [0.5], [0.5, *hints.path_shares], 1.0)
    return TreeHints(hints.calibration, table, repetition, shares, hints.max_depth, hints.noise)


def of_one_drafter(batch: list[tuple[Candidates, PlainHints]]) -> tuple[list[Candidates], list[PlainHints]]:
    """A drafter gives one kind of candidates, here marginals where they are mixed; and a calibration is of all its depths."""
    is_mixed = len({one.places is None for one, _ in batch if one.horizon}) > 1
    candidates = [Candidates.none() if is_mixed and one.places is not None else one for one, _ in batch]
    return candidates, [hints for _, hints in batch]


@settings(max_examples=200)
@given(random_candidates(VOCAB_SIZE), random_hints(), st.integers(0, 30))
def test_equals_the_twin(candidates: Candidates, hints: PlainHints, budget: int) -> None:
    [grown] = grow_trees([candidates], [3], budget, [native_hints(hints)])
    tree, log_probs = grow_tree_plain(candidates, 3, budget, hints, like=grown.tree)
    assert_well_formed(grown.tree)
    assert_equal_trees(grown.tree, tree)
    np.testing.assert_allclose(grown.log_probs, log_probs, atol=1e-5)


@settings(max_examples=50)
@given(random_candidates(VOCAB_SIZE), random_hints(), st.integers(1, 30))
def test_a_row_is_no_likelier_than_its_parent_and_siblings_differ(candidates: Candidates, hints: PlainHints, budget: int) -> None:
    [grown] = grow_trees([candidates], [3], budget, [native_hints(hints)])
    tree = grown.tree
    assert (grown.log_probs[1:] <= grown.log_probs[tree.parents[1:]] + 1e-6).all()
    pairs = set(zip(tree.parents.tolist(), tree.token_ids.tolist(), strict=True))
    assert len(pairs) == tree.num_rows


@settings(max_examples=30)
@given(st.lists(st.tuples(random_candidates(VOCAB_SIZE), random_hints()), min_size=2, max_size=4), st.integers(1, 20))
def test_a_batch_is_its_sequences(batch: list[tuple[Candidates, PlainHints]], budget: int) -> None:
    candidates, hints = of_one_drafter(batch)
    grown = grow_trees(candidates, list(range(len(batch))), budget, [native_hints(one) for one in hints])
    for index, (one, own) in enumerate(zip(candidates, hints, strict=True)):
        assert_equal_trees(grown[index].tree, grow_tree_plain(one, index, budget, own, like=grown[index].tree)[0])


@settings(max_examples=100)
@given(
    st.lists(st.tuples(random_candidates(VOCAB_SIZE), random_hints()), min_size=1, max_size=4),
    st.lists(st.floats(0.01, 1), min_size=16, max_size=16),
    st.floats(0, 3),
)
def test_what_is_worthwhile_is_what_the_twin_keeps_of_all(
    batch: list[tuple[Candidates, PlainHints]], row_ms: list[float], fixed_ms: float
) -> None:
    """Also where passes over more rows take less."""
    candidates, plain = of_one_drafter(batch)
    roots, hints, times = list(range(len(batch))), [native_hints(one) for one in plain], np.array(row_ms)
    found = grow_worthwhile(candidates, roots, times, fixed_ms, hints)
    grown = grow_trees(candidates, roots, len(times), hints)
    num_nodes, expected, milliseconds = allocate_plain([one.log_probs for one in grown], times, fixed_ms)
    assert sum(found.expected) / found.milliseconds == pytest.approx(expected / milliseconds)
    if sum(found.expected) == pytest.approx(expected):
        for tree, one, count in zip(found.trees, grown, num_nodes, strict=True):
            assert_equal_trees(tree, one.tree.first(count + 1))


def test_rows_that_cost_nothing_are_all_taken_and_dear_ones_are_not() -> None:
    candidates = [Candidates(np.log(np.array([[[0.5, 0.25]]], np.float32)), np.array([[[1, 2]]]))]
    assert grow_worthwhile(candidates, [0], np.full(8, 3.0), 1.0).trees[0].num_rows == 3
    assert grow_worthwhile(candidates, [0], 10.0 * np.arange(1, 9), 0.0).trees[0].num_rows == 1


def test_no_round_has_more_rows_than_were_measured() -> None:
    candidates = [Candidates(np.full((1, 1, 10), -1, np.float32), np.arange(10)[None, None])] * 2
    assert sum(tree.num_rows for tree in grow_worthwhile(candidates, [0, 0], np.ones(7), 1.0).trees) == 7


def test_the_spine_is_never_behind_where_the_drafter_put_it() -> None:
    """A calibration that has lost all trust in the second depth on the spine still lets the greedy chain in."""
    log_probs = np.log(np.array([[[0.9, 0.05]], [[0.9, 0.05]]], np.float32))
    candidates = Candidates(log_probs, np.array([[[1, 2]], [[3, 4]]]))
    calibration = np.ones((2, 2, 2), np.float32)
    calibration[1] = 0
    calibration[1, 0, 1] = -8
    [grown] = grow_trees([candidates], [0], 2, [TreeHints(calibration)])
    assert grown.tree.token_ids.tolist() == [0, 1, 3]
    assert grown.log_probs[2] < -4, "and says what it is worth"


def test_a_share_hears_the_noise_without_bias() -> None:
    """Over all noise, a token that wins with probability s is believed to win with probability s; and more where its noise is high."""
    noise = gumbel_noise_range(5, 9, 200_000)
    for share in (0.05, 0.3, 0.8):
        believed = np.exp((1 - 1 / share) * np.exp(-noise))
        assert believed.mean() == pytest.approx(share, abs=0.005)
        assert share_given(share, float(noise[0])) == pytest.approx(believed[0])
    assert share_given(0.0, 9.0) == 0


def test_what_the_noise_favours_comes_first() -> None:
    noise = gumbel_noise_range(3, 8, 10)
    hints = PlainHints(
        successors=np.arange(10, dtype=np.int32)[None].repeat(10, 0),
        grades=np.zeros((10, 10), np.uint8),
        grade_shares=[0.1],
        max_depth=1,
        noise=(3, 8),
    )
    [grown] = grow_trees([Candidates.none()], [4], 10, [native_hints(hints)])
    assert grown.tree.token_ids[1:].tolist() == np.argsort(-noise).tolist()


def test_retrieval_alone_makes_a_tree() -> None:
    hints = PlainHints(path=[5, 6, 7, MARKER], path_shares=[0.5, 0.5, 0.5, 0.5], max_depth=2)
    [grown] = grow_trees([Candidates.none()], [4], 10, [native_hints(hints)])
    assert grown.tree.token_ids.tolist() == [4, 5, 6], "as deep as allowed"
    assert np.exp(grown.log_probs).tolist() == pytest.approx([1, 0.5, 0.25])


def test_hints_that_do_not_fit_are_refused() -> None:
    candidates = Candidates(np.zeros((2, 1, 1), np.float32), np.zeros((2, 1, 1), np.int64))
    with pytest.raises(ValueError, match="every depth"):
        grow_trees([candidates], [0], 3, [TreeHints(np.ones((2, 2, 1), np.float32))])
    with pytest.raises(ValueError, match="needs its hints"):
        grow_trees([candidates], [0], 3, [TreeHints()] * 2)
    with pytest.raises(ValueError, match="come together"):
        TreeHints(table=SuccessorTable(3, 2, []))


def test_candidates_may_lie_apart() -> None:
    """Parts of larger tables are read where they are."""
    random = np.random.default_rng(0)
    log_probs = np.sort(np.log(random.dirichlet(np.ones(9), (5, 4))).astype(np.float32))[..., ::-1].copy()
    whole = Candidates(log_probs, np.tile(random.permutation(9), (5, 4, 1)), random.integers(0, 4, (5, 4, 9), np.int32))
    part = whole.within(3, 4)
    assert not part.log_probs.flags.c_contiguous
    copied = Candidates(part.log_probs.copy(), part.token_ids.copy(), None if part.places is None else part.places.copy())
    apart, together = grow_trees([part, copied], [0, 0], 20)
    assert_equal_trees(apart.tree, together.tree)
