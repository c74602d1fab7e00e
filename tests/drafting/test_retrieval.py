"""Guesses from the text so far: the suffix automaton against a search, and shares that are learnt."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.drafting.plain import PlainSourceShares, remember_plain
from hoarfrost.drafting.retrieval import GRADE_PRIORS, GRADES, MAX_MATCH, NUM_SUCCESSORS, PATH_PRIOR, PRIOR_WEIGHT, Retrieval
from hoarfrost.kernels import Repetition, SourceShares, SuccessorTable


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
    assert repetition.longest_match()[0] == 0
    assert repetition.path().size == 0
    repetition.extend([9, 2, 3])
    assert (repetition.path().tolist(), repetition.longest_match()) == ([4, 5, 6, 9, 2, 3], (2, 3))
    assert len(repetition) == 9


def test_a_path_is_bounded_and_long_texts_are_kept_whole() -> None:
    repetition = Repetition()
    text = list(range(1000))
    for start in range(0, 1000, 7):
        repetition.extend(text[start : start + 7])
    repetition.extend([100, 101])
    assert repetition.longest_match() == (2, 102)
    assert repetition.path().tolist() == text[102 : 102 + Repetition.MAX_PATH]


def table_of(token_id: int, best: list[int], probabilities: list[float]) -> SuccessorTable:
    table = Retrieval(10).table
    table.remember(np.array([token_id]), np.array([best]), np.log(np.array([probabilities], np.float32)))
    return table


def text_of(token_ids: list[int]) -> Repetition:
    repetition = Repetition()
    repetition.extend(token_ids)
    return repetition


def new_shares() -> SourceShares:
    return Retrieval(10).shares(True, 0.0)


def test_shares_go_where_the_hits_are() -> None:
    shares, table = new_shares(), table_of(7, [4, 5, 6], [0.5, 0.2, 0.01])
    for _ in range(3000):
        shares.observe(table, Repetition(), 7, [4], np.array([0.8]))
    assert shares.successors[14] == pytest.approx(0.95)
    assert shares.successors[3] < 0.01
    assert shares.successors[1] == pytest.approx(GRADE_PRIORS[1]), "nothing was guessed there"


def test_successors_are_remembered() -> None:
    table = Retrieval(10).table
    assert (table.token_ids == -1).all()
    best = np.array([[3, 4, 5, 6], [1, 2, 3, 4]])
    probabilities = np.array([[0.95, 0.03, 0.01, 0.0], [0.5, 0.3, 0.1, 0.1]], np.float32)
    with np.errstate(divide="ignore"):
        table.remember(np.array([7, 8]), best, np.log(probabilities))
    assert table.grades[[7, 8]].tolist() == [[17, 1, 0, 0], [14, 4, 2, 2]], "the best one apart"
    assert table.token_ids[[7, 8]].tolist() == best.tolist()
    assert table.token_ids.shape[1] == NUM_SUCCESSORS


def test_grades_are_judged_where_something_was_remembered() -> None:
    table, shares = table_of(7, [3, 4], [0.5, 0.06]), new_shares()
    before = shares.successors.copy()
    for _ in range(50):
        shares.observe(table, Repetition(), 7, [4], np.array([0.5]), np.array([True]))
    assert shares.successors[2] > before[2]
    assert shares.successors[14] < before[14]
    assert shares.successors[1] == before[1], "nothing was guessed there"


def test_a_path_is_judged_as_far_as_it_was_followed() -> None:
    repetition, shares = text_of([8, 9, 1, 2, 3, 8, 9]), new_shares()
    before = shares.paths.copy()
    for _ in range(50):
        shares.observe(Retrieval(10).table, repetition, 0, [1, 5, 3])
    assert shares.paths[2] > before[2]
    assert shares.paths[3] < before[3]
    assert shares.paths[4] == before[4], "what was not reached is not judged"


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_learning_equals_the_twin(seed: int) -> None:
    random = np.random.default_rng(seed)
    table, plain = Retrieval(9).table, Retrieval(9).table
    priors = 2 * GRADE_PRIORS, [PATH_PRIOR] * 4, PRIOR_WEIGHT
    shares, twin = SourceShares(*priors), PlainSourceShares(*priors)
    repetition = Repetition()
    for _ in range(20):
        length, width = random.integers(1, 6), random.integers(1, NUM_SUCCESSORS + 1)
        repetition.extend(random.integers(0, 3, random.integers(0, 4)).tolist())
        root, *chosen = random.integers(0, 9, length + 1).tolist()
        followed = repetition.path()[: random.integers(0, 4)].tolist()
        chosen[: len(followed)] = followed
        left_over, is_open = random.random(len(chosen)), random.random(len(chosen)) < 0.7
        shares.observe(table, repetition, root, chosen, left_over, is_open)
        twin.observe(plain, repetition, root, chosen, left_over, is_open)
        best = random.integers(0, 9, (len(chosen), width))
        probabilities = np.sort(random.dirichlet(np.ones(width + 1), len(chosen)))[:, : -width - 1 : -1]
        log_probs = np.log(np.ascontiguousarray(probabilities, np.float32))
        tokens = np.array([root, *chosen[:-1]])
        table.remember(tokens, best, log_probs)
        for token_id, one, log_prob in zip(tokens.tolist(), best, log_probs, strict=True):
            remember_plain(plain, np.log(GRADES), token_id, one, log_prob)
    np.testing.assert_array_equal(table.token_ids, plain.token_ids)
    np.testing.assert_array_equal(table.grades, plain.grades)
    np.testing.assert_allclose(shares.successors, twin.successors, rtol=1e-5)
    np.testing.assert_allclose(shares.paths, twin.paths, rtol=1e-5)


def test_what_does_not_fit_is_refused() -> None:
    table, shares = Retrieval(10).table, new_shares()
    with pytest.raises(ValueError, match="outside the table"):
        shares.observe(table, Repetition(), 10, [1])
    with pytest.raises(ValueError, match="outside the table"):
        table.remember(np.array([-1]), np.zeros((1, 4), np.int64), np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match="as many successors"):
        table.remember(np.array([1]), np.zeros((1, 5), np.int64), np.zeros((1, 5), np.float32))
    with pytest.raises(ValueError, match="left over"):
        shares.observe(table, Repetition(), 1, [1], np.ones(2))
    with pytest.raises(ValueError, match="must be a bucket"):
        SourceShares([], [0.5], 1.0)


def test_rounds_with_and_without_a_drafter_are_judged_apart() -> None:
    retrieval = Retrieval(10)
    retrieval.shares(True, 0.0).observe(table_of(7, [4], [0.5]), Repetition(), 7, [4])
    assert retrieval.shares(True, 0.0).successors[14] > retrieval.shares(False, 0.0).successors[14]
    assert retrieval.shares(False, 1.0) is not retrieval.shares(False, 0.0)


def test_many_matching_tokens_make_a_path_no_surer() -> None:
    shares = new_shares()
    for _ in range(50):
        shares.observe(Retrieval(10).table, text_of([1] * 60), 1, [1])
    assert len(shares.paths) == MAX_MATCH + 1
    assert shares.paths[MAX_MATCH] > PATH_PRIOR
