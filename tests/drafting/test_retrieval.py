"""Guesses from the text so far: the suffix automaton against a search, and shares that are learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.drafting.retrieval import MAX_PATH, NUM_SUCCESSORS, Repetition, Retrieval, Shares, SourceShares
from hoarfrost.native import SuffixIndex


def longest_repeated_suffix(text: list[int]) -> int:
    """Length of the longest suffix that also ends somewhere before the end."""
    for length in range(len(text) - 1, 0, -1):
        if any(text[end - length : end] == text[-length:] for end in range(length, len(text))):
            return length
    return 0


@settings(max_examples=200)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 7))
def test_the_match_is_the_longest_and_was_there_before(text: list[int], step: int) -> None:
    index = SuffixIndex()
    for start in range(0, len(text), step):
        index.extend(np.array(text[start : start + step], np.int64))
        so_far = text[: start + step]
        length, end = index.longest_match()
        assert len(index) == len(so_far)
        assert length == longest_repeated_suffix(so_far)
        if length:
            assert end < len(so_far)
            assert so_far[end - length : end] == so_far[-length:]


def test_a_repetition_goes_on_as_it_did_before() -> None:
    repetition = Repetition()
    repetition.extend([1, 2, 3, 4, 5, 6])
    assert repetition.path()[1] == 0
    repetition.extend([9, 2, 3])
    path, matched = repetition.path()
    assert (path.tolist(), matched) == ([4, 5, 6, 9, 2, 3], 2)
    assert len(repetition) == 9


def test_a_path_is_bounded_and_long_texts_are_kept_whole() -> None:
    repetition = Repetition()
    text = list(range(1000))
    for start in range(0, 1000, 7):
        repetition.extend(text[start : start + 7])
    repetition.extend([100, 101])
    path, matched = repetition.path()
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


def test_grades_are_judged_where_something_was_remembered() -> None:
    shares = SourceShares()
    before = shares.successors.values.copy()
    for _ in range(50):
        shares.observe([[3, 4, -1, -1]], [[6, 2, 1, 1]], [4], [0.5], [True], [], 0)
    after = shares.successors.values
    assert after[2] > before[2]
    assert after[6] < before[6]
    assert after[1] == before[1], "nothing was proposed there"


def test_a_path_is_judged_as_far_as_it_was_followed() -> None:
    shares = SourceShares()
    before = shares.of_path(2, 3).copy()
    for _ in range(50):
        shares.observe([[]] * 3, [[]] * 3, [1, 5, 3], [1.0] * 3, [True] * 3, [1, 2, 3], 2)
    after = shares.of_path(2, 3)
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert after[2] == before[2], "what was not reached is not judged"


def test_rounds_with_and_without_a_drafter_are_judged_apart() -> None:
    retrieval = Retrieval(10)
    retrieval.shares(True, 0.0).observe([[4]], [[0]], [4], [1.0], [True], [], 0)
    assert retrieval.shares(True, 0.0).successors.values[0] > retrieval.shares(False, 0.0).successors.values[0]
    assert retrieval.shares(False, 1.0) is not retrieval.shares(False, 0.0)
