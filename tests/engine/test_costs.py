"""What rounds take: from a few passes that are timed, and then from the rounds."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from reference import random_drafter

from hoarfrost import Engine
from hoarfrost.engine import costs
from hoarfrost.engine.costs import CONTEXT_UNIT, MAX_DELAY, Times, measure, timed


def test_times_are_linear_between_powers_of_two_and_on() -> None:
    times = Times((1, 4, 8), (1.0, 4.0, 12.0))
    assert [times.at(count) for count in (1, 2, 3, 4, 6, 8, 16)] == pytest.approx([1, 2, 3, 4, 8, 12, 28])
    assert times.at(8192) == pytest.approx(12 + 2 * (8192 - 8))
    assert times.up_to(6).tolist() == pytest.approx([1, 2, 3, 4, 6, 8])


def test_a_single_point_stands_for_all_in_proportion() -> None:
    assert Times((2,), (3.0,)).at(64) == pytest.approx(3.0 + 62 * 1.5)


def test_a_context_adds_its_part() -> None:
    times = Times((1, 16), (1.0, 4.0))
    times.grow((1, 16), (2.0, 12.0))
    assert times.at(1, CONTEXT_UNIT) == pytest.approx(2.0)
    assert times.at(16, 2 * CONTEXT_UNIT) == pytest.approx(4.0 + 2 * 8.0)
    assert times.up_to(16, CONTEXT_UNIT)[[0, 15]] == pytest.approx([2.0, 12.0])


def test_a_disturbed_time_counts_no_more_than_that_of_a_larger_pass() -> None:
    assert np.diff(Times((1, 2, 4, 8), (1.0, 9.0, 1.5, 2.0)).up_to(16)).min() >= 0


@pytest.mark.parametrize("context", [0, 300, 8000])
def test_times_become_what_is_observed(context: float) -> None:
    """Whatever was thought before, at every size that is visited: here a machine that takes its rows by sixes."""

    def truth(count: int) -> float:
        return 3.0 + 2.0 * ((count + 5) // 6) + 0.002 * count * context / 8

    times, chance = Times((1, 4), (1.0, 1.5)), random.Random(0)
    for _ in range(3000):
        count = chance.choice([1, 2, 4, 8, 12, 24])
        times.observe(count, truth(count) * chance.uniform(0.95, 1.05), context)
    for count in (1, 2, 4, 8, 24):
        assert times.at(count, context) == pytest.approx(truth(count), rel=0.25)


def test_a_delay_counts_as_far_as_it_may_be_one() -> None:
    times, delayed = Times((1, 4), (1.0, 2.0)), Times((1, 4), (1.0, 2.0))
    times.observe(1, MAX_DELAY * 1.0)
    delayed.observe(1, 1000.0)
    assert delayed.at(1) == times.at(1) < 1.5


def test_what_is_measured_first(model_folder: Callable[[str], str]) -> None:
    engine = Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")
    assert measure(engine.target, None).drafts is None
    measured = measure(engine.target, random_drafter(engine.target))
    assert measured.drafts is not None
    assert 0 < measured.passes.at(1) <= measured.passes.at(64)
    assert 0 < measured.drafts.at(1) <= measured.drafts.at(4)


def test_a_model_that_would_take_long_is_measured_at_few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(costs, "MEASURING_SECONDS", 0.0)
    sizes, milliseconds = timed((1, 4, 16), lambda size: lambda: calls.append(size), torch.device("cpu"))
    assert sizes == (1, 4)
    assert len(milliseconds) == 2
    assert calls == [1, 1, 1, 4, 4], "two that count, and one to begin with"
