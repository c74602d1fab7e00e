"""What the figures show are the figures of the summaries and records, and nothing where there is nothing to show."""

from __future__ import annotations

import pytest
from decode_results import make_decode_result

from hoarfrost.evaluation.decode.figure_data import (
    acceptance_histogram,
    at_temperature,
    budget_curve,
    speedup_bars,
    stage_bars,
    temperatures,
)


def test_speedups_have_a_bar_per_kind_with_its_interval() -> None:
    result = make_decode_result()
    assert temperatures(result) == [0.0, 1.0]
    bars = speedup_bars(at_temperature(result, 0.0))
    assert bars is not None
    assert bars.sets == ("gsm8k", "mt_bench")
    assert list(bars.bars) == ["DFlash chain", "DDTree, best budget", "DDTree auto"]
    assert bars.bars["DFlash chain"][0] == pytest.approx((1.6, 1.6, 1.6))
    assert speedup_bars(at_temperature(make_decode_result(variants=(("ar", 0),)), 0.0)) is None


def test_the_budget_curve_has_every_set_the_mean_and_the_levels() -> None:
    curve = budget_curve(at_temperature(make_decode_result(), 0.0), "speedup")
    assert curve is not None
    assert curve.budgets == (8, 16, 32)
    assert curve.by_set["gsm8k"] == pytest.approx((2 * 2.4 / 2.6, 2 * 3 / 2.8, 2 * 3.75 / 4))
    assert curve.by_set["mt_bench"][2] == pytest.approx(3.75 / 4)
    assert curve.mean[2] == pytest.approx(1.5 * 3.75 / 4)
    assert (curve.chain, curve.auto) == (pytest.approx(1.6), pytest.approx(2 * 3 / 2.7))
    tau = budget_curve(at_temperature(make_decode_result(), 0.0), "tau")
    assert tau is not None
    assert tau.mean == pytest.approx((2.4, 3.0, 3.75))


def test_one_budget_makes_no_curve() -> None:
    result = make_decode_result(variants=(("ar", 0), ("tree", 16), ("tree", "auto")))
    assert budget_curve(at_temperature(result, 0.0), "tau") is None


def test_the_histogram_pools_all_rounds_of_chain_and_automatic_tree() -> None:
    histogram = acceptance_histogram(make_decode_result(), 0.0)
    assert histogram is not None
    assert list(histogram.shares) == ["DFlash chain", "DDTree auto"]
    assert histogram.shares["DFlash chain"] == pytest.approx((0, 0, 1))
    assert histogram.means == pytest.approx({"DFlash chain": 2.0, "DDTree auto": 3.0})
    fixed = acceptance_histogram(make_decode_result(variants=(("tree", 8), ("tree", 32), ("tree", 16))), 0.0)
    assert fixed is not None
    assert list(fixed.shares) == ["DDTree 16"]
    assert acceptance_histogram(make_decode_result(variants=(("ar", 0),)), 0.0) is None


def test_stages_add_up_to_the_round_for_every_mode() -> None:
    bars = stage_bars(at_temperature(make_decode_result(), 1.0))
    assert bars is not None
    assert bars.stages == ("draft", "verify")
    assert list(bars.milliseconds) == ["AR", "DFlash chain", "DDTree 8", "DDTree 16", "DDTree 32", "DDTree auto"]
    assert bars.milliseconds["DDTree 16"] == pytest.approx((0.2 * 2.8, 0.8 * 2.8))
    assert bars.per_token["DDTree 16"] == pytest.approx(2.8 / 3)
