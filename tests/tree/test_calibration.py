from __future__ import annotations

import numpy as np
import pytest

from hoarfrost.tree import Calibration


def observe(calibration: Calibration, claimed: float, true: float, rounds: int, off_spine: int = 0, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for _ in range(rounds):
        log_probs = np.log(np.array([[claimed, (1 - claimed) / 2]], np.float32))
        hits = np.array([[random.random() < true, False]])
        calibration.observe(log_probs, hits, np.array([1]), np.array([off_spine]))


def test_starts_as_the_identity() -> None:
    log_probs = np.log(np.array([[0.9, 0.05, 1e-4]], np.float32))
    believed = Calibration(3).apply(log_probs, np.array([2]), np.array([1]))
    assert believed[0].tolist() == pytest.approx([0.9, 0.05, 1e-4], rel=1e-3)


@pytest.mark.parametrize(("claimed", "true"), [(0.9, 0.5), (0.4, 0.8), (0.7, 0.7)])
def test_learns_how_often_a_claim_comes_true(claimed: float, true: float) -> None:
    calibration = Calibration(3)
    observe(calibration, claimed, true, 600)
    believed = calibration.apply(np.log(np.array([[claimed]], np.float32)), np.array([1]), np.array([0]))
    assert believed[0, 0] == pytest.approx(true, abs=0.08)


def test_depths_and_branches_learn_apart() -> None:
    calibration = Calibration(3)
    observe(calibration, 0.9, 0.2, 300, off_spine=1)
    assert calibration.parameters[:, 0].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert calibration.parameters[:, 1, 0].tolist() == [1, 0]
    assert calibration.apply(np.log(np.array([[0.9]], np.float32)), np.array([1]), np.array([1]))[0, 0] < 0.35


def test_impossible_candidates_teach_nothing_and_certain_ones_stay_finite() -> None:
    calibration = Calibration(2)
    calibration.observe(np.array([[0.0, -np.inf]], np.float32), np.array([[False, False]]), np.array([0]), np.array([0]))
    assert np.isfinite(calibration.parameters).all()
    before = calibration.parameters.copy()
    calibration.observe(np.array([[-np.inf, -np.inf]], np.float32), np.array([[False, False]]), np.array([0]), np.array([0]))
    assert (calibration.parameters == before).all()
