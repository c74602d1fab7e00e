from __future__ import annotations

import numpy as np
import pytest

from hoarfrost.evaluation.decode.reliability import Reliability, calibration_error


def test_guesses_are_counted_before_and_after_calibration() -> None:
    reliability = Reliability(3)
    raw, believed = np.array([[0.95, 0.02], [0.55, 0.3]]), np.array([[0.5, 0.02], [0.45, 1.0]])
    hits = np.array([[True, False], [False, True]])
    for _ in range(2):
        reliability.note(raw, believed, hits, np.array([0, 2]), np.array([0, 1]))
    records = reliability.records()
    assert sum(one["count"] for one in records if one["calibrated"]) == sum(one["count"] for one in records if not one["calibrated"]) == 8
    [sure] = [one for one in records if not one["calibrated"] and one["expected"] > 0.9]
    assert (sure["depth"], sure["spine"], sure["observed"], sure["count"]) == (1, True, 1.0, 2)
    assert {one["depth"] for one in records if not one["spine"]} == {3}
    assert calibration_error(records, calibrated=False) == pytest.approx((0.05 + 0.02 + 0.55 + 0.7) / 4)
    assert calibration_error([], calibrated=True) == 0.0
