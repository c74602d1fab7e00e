"""Guesses from the text so far: the suffix automaton against a search, and shares that are learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.drafting.plain import PlainSourceShares, remember_plain
from hoarfrost.drafting.retrieval import MAX_MATCH, MAX_PATH, NUM_SUCCESSORS, Retrieval, SourceShares, path_of
from hoarfrost.native import Repetition, Shares

NO_PATH = np.empty(0, np.int64)


def longest_repeated_suffix(text: list[int]) -> int:
    """Length of the longest suffix that also ends somewhere before the end."""
    for length in range(len(text) - 1, 0, -1):
        if any(text[end - length : end] == text[-length:] for end in range(length, len(text))):
            return length
    return 0


@settings(max_examples=200)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 7))
def test_the_match_is_the_longest_and_was_there_before(text: list[int], step: int) -> None:
    repetition = Repetition()
    for start in range(0, len(text), step):
        repetition.extend(text[start : start + step])
        so_far = text[: start + step]
        length, end = repetition.longest_match()
        assert len(repetition) == len(so_far)
        assert length == longest_repeated_suffix(so_far)
        if length:
            assert end < len(so_far)
            assert so_far[end - length : end] == so_far[-length:]


def test_a_repetition_goes_on_as_it_did_before() -> None:
    repetition = Repetition()
    repetition.extend([1, 2, 3, 4, 5, 6])
    assert path_of(repetition)[1] == 0
    assert path_of(repetition)[0].size == 0
    repetition.extend([9, 2, 3])
    path, matched = path_of(repetition)
    assert (path.tolist(), matched) == ([4, 5, 6, 9, 2, 3], 2)
    assert len(repetition) == 9


def test_a_path_is_bounded_and_long_texts_are_kept_whole() -> None:
    repetition = Repetition()
    text = list(range(1000))
    for start in range(0, 1000, 7):
        repetition.extend(text[start : start + 7])
    repetition.extend([100, 101])
    path, matched = path_of(repetition)
    assert matched == 2
    assert path.tolist() == text[102 : 102 + MAX_PATH]


def test_shares_go_where_the_hits_are() -> None:
    shares = Shares([0.1] * 3)
    for _ in range(500):
        shares.forget()
        shares.observe(0, True, 0.8)
        shares.observe(1, False, 0.8)
    assert shares.values[0] == pytest.approx(0.95)
    assert shares.values[1] < 0.02
    assert shares.values[2] == pytest.approx(0.1)


def test_successors_are_remembered() -> None:
    retrieval = Retrieval(10)
    assert (retrieval.successors == -1).all()
    best = np.array([[3, 4, 5, 6], [1, 2, 3, 4]])
    probabilities = np.array([[0.95, 0.03, 0.01, 0.0], [0.5, 0.3, 0.1, 0.1]], np.float32)
    with np.errstate(divide="ignore"):
        retrieval.remember(np.array([7, 8]), best, np.log(probabilities))
    assert retrieval.grades[[7, 8]].tolist() == [[17, 1, 0, 0], [14, 4, 2, 2]], "the best one apart"
    assert retrieval.successors[[7, 8]].tolist() == best.tolist()
    assert retrieval.successors.shape[1] == NUM_SUCCESSORS


def remembered(token_id: int, best: list[int], probabilities: list[float]) -> Retrieval:
    retrieval = Retrieval(10)
    retrieval.remember(np.array([token_id]), np.array([best]), np.log(np.array([probabilities], np.float32)))
    return retrieval


def test_grades_are_judged_where_something_was_remembered() -> None:
    retrieval = remembered(7, [3, 4], [0.5, 0.06])
    shares = SourceShares()
    before = shares.successors.values.copy()
    for _ in range(50):
        shares.observe(retrieval, 7, [4], NO_PATH, 0, np.array([0.5]), np.array([True]))
    after = shares.successors.values
    assert after[2] > before[2]
    assert after[14] < before[14]
    assert after[1] == before[1], "nothing was proposed there"


def test_a_path_is_judged_as_far_as_it_was_followed() -> None:
    shares = SourceShares()
    before = shares.of_path(2, 3).copy()
    for _ in range(50):
        shares.observe(Retrieval(10), 0, [1, 5, 3], np.array([1, 2, 3]), 2)
    after = shares.of_path(2, 3)
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert after[2] == before[2], "what was not reached is not judged"


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_learning_equals_the_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    retrieval, plain = Retrieval(9), Retrieval(9)
    shares, twin = SourceShares(), PlainSourceShares()
    for _ in range(20):
        length, width = random.integers(1, 6), random.integers(1, NUM_SUCCESSORS + 1)
        root, *chosen = random.integers(0, 9, length + 1).tolist()
        path, matched = random.integers(0, 9, random.integers(0, 5)), int(random.integers(0, 2 * MAX_MATCH))
        path[: random.integers(0, 3)] = chosen[0]
        left_over, is_open = random.random(length), random.random(length) < 0.7
        shares.observe(retrieval, root, chosen, path, matched, left_over, is_open)
        twin.observe(plain, root, chosen, path, matched, left_over, is_open)
        best = random.integers(0, 9, (length, width))
        log_probs = np.log(np.sort(random.dirichlet(np.ones(width + 1), length))[:, : -width - 1 : -1].astype(np.float32), order="C")
        tokens = np.array([root, *chosen[:-1]])
        retrieval.remember(tokens, best, log_probs)
        for token_id, one, log_prob in zip(tokens.tolist(), best, log_probs, strict=True):
            remember_plain(plain, token_id, one, log_prob)
    np.testing.assert_array_equal(retrieval.successors, plain.successors)
    np.testing.assert_array_equal(retrieval.grades, plain.grades)
    np.testing.assert_allclose(shares.successors.values, twin.successors.values, rtol=1e-5)
    np.testing.assert_allclose(shares.of_path(0, MAX_MATCH + 4), twin.paths.values[[*range(MAX_MATCH + 1), *[MAX_MATCH] * 3]], rtol=1e-5)


def test_what_lies_outside_the_table_is_refused() -> None:
    retrieval = Retrieval(10)
    with pytest.raises(ValueError, match="outside the table"):
        SourceShares().observe(retrieval, 10, [1], NO_PATH, 0)
    with pytest.raises(ValueError, match="outside the table"):
        retrieval.remember(np.array([-1]), np.zeros((1, 4), np.int64), np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="as many successors"):
        retrieval.remember(np.array([1]), np.zeros((1, 5), np.int64), np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match="left over"):
        SourceShares().observe(retrieval, 1, [1], NO_PATH, 0, np.ones(2))


def test_rounds_with_and_without_a_drafter_are_judged_apart() -> None:
    retrieval = remembered(7, [4], [0.5])
    retrieval.shares(True, 0.0).observe(retrieval, 7, [4], NO_PATH, 0)
    assert retrieval.shares(True, 0.0).successors.values[14] > retrieval.shares(False, 0.0).successors.values[14]
    assert retrieval.shares(False, 1.0) is not retrieval.shares(False, 0.0)
