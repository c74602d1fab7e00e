"""Calibration: what it learns, and the native kernel against its plain twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree.random_trees import random_candidates

from hoarfrost.tree import Calibration, Candidates, judge
from hoarfrost.tree.plain import calibrated, judge_walk_plain

VOCAB_SIZE = 12


def observe(calibration: Calibration, claimed: float, true: float, rounds: int, off_spine: bool = False, seed: int = 0) -> None:
    """Guesses that claim a probability at depth 1 and come true as often as `true` says."""
    random = np.random.default_rng(seed)
    row = np.log(np.array([claimed, (1 - claimed) / 2], np.float32))
    candidates = Candidates(np.stack((row, row))[:, None], np.array([[[1, 2]], [[3, 4]]]))
    for _ in range(rounds):
        calibration.observe(candidates, np.array([2 if off_spine else 1, 3 if random.random() < true else 9]))


def believed(calibration: Calibration, probability: float, off_spine: bool = False) -> float:
    return float(np.exp(calibrated(np.log(probability), calibration.parameters, 1, not off_spine)))


def test_starts_as_the_identity() -> None:
    for probability in (0.9, 0.05, 1e-4):
        assert believed(Calibration(3), probability) == pytest.approx(probability, rel=1e-3)


@pytest.mark.parametrize(("claimed", "true"), [(0.9, 0.5), (0.4, 0.8), (0.7, 0.7)])
def test_learns_how_often_a_claim_comes_true(claimed: float, true: float) -> None:
    calibration = Calibration(3)
    observe(calibration, claimed, true, 600)
    assert believed(calibration, claimed) == pytest.approx(true, abs=0.08)


def test_depths_and_branches_learn_apart() -> None:
    calibration = Calibration(3)
    observe(calibration, 0.9, 0.2, 300, off_spine=True)
    assert calibration.parameters[:, 0, 1:].tolist() == [[1, 1], [0, 0]], "on the spine nothing was seen at depth 1"
    assert calibration.parameters[:, 1, 0].tolist() == [1, 0]
    assert believed(calibration, 0.9, off_spine=True) < 0.35


def test_impossible_candidates_teach_nothing_and_certain_ones_stay_finite() -> None:
    calibration = Calibration(2)
    calibration.observe(Candidates(np.array([[[0.0, -np.inf]]], np.float32), np.array([[[1, 2]]])), np.array([5]))
    assert np.isfinite(calibration.parameters).all()
    before = calibration.parameters.copy()
    calibration.observe(Candidates(np.full((1, 1, 2), -np.inf, np.float32), np.array([[[1, 2]]])), np.array([5]))
    assert (calibration.parameters == before).all()


def test_guesses_are_judged_where_the_walk_went() -> None:
    log_probs = np.log(np.array([[[0.6, 0.3], [0.5, 0.5]], [[0.2, 0.1], [0.9, 0.05]]], np.float32))
    token_ids = np.array([[[1, 2], [1, 2]], [[3, 4], [4, 3]]])
    candidates = Candidates(log_probs, token_ids, np.array([[[0, 1], [0, 1]], [[0, 1], [1, 0]]], np.int32))
    verdict = judge(candidates, np.array([2, 4, 7]))
    assert verdict.drafted == pytest.approx(np.array([[0.6, 0.3], [0.9, 0.05]])), "behind token 2, which is place 1"
    assert verdict.hits.tolist() == [[False, True], [True, False]]
    assert verdict.off_spine.tolist() == [0, 1]
    assert verdict.left_over == pytest.approx([0.1, 0.05, 1], abs=1e-6)
    assert verdict.is_open.tolist() == [False, False, True]
    assert len(judge(candidates, np.array([9, 4])).hits) == 1, "below a foreign token nothing is known"


@settings(max_examples=150)
@given(random_candidates(VOCAB_SIZE), st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=6), min_size=1, max_size=4))
def test_equals_the_twin(candidates: Candidates, walks: list[list[int]]) -> None:
    calibration, twin = Calibration(4), Calibration(4)
    for chosen in walks:
        verdict = calibration.observe(candidates, np.array(chosen))
        expected = judge_walk_plain(candidates, np.array(chosen), twin.parameters, twin.information)
        for name, value in verdict._asdict().items():
            np.testing.assert_allclose(value, getattr(expected, name), atol=1e-5, err_msg=name)
        np.testing.assert_allclose(calibration.information, twin.information, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(calibration.parameters, twin.parameters, rtol=1e-3, atol=1e-4)
