from __future__ import annotations

import pytest

from hoarfrost.engine.pace import TRIAL_SHARE, Pace, Way

WAYS: tuple[Way, ...] = ("drafted", "undrafted")
Rounds = dict[Way, tuple[float, float]]
"""Tokens of a round of each way, and its milliseconds."""


def run(pace: Pace, rounds: Rounds, num_rounds: int, promised: float = 1.0) -> list[Way]:
    """Rounds that expect `promised` times as many tokens as they bring, at least one."""
    chosen = []
    for _ in range(num_rounds):
        way = pace.choose(WAYS)
        tokens, milliseconds = rounds[way]
        pace.note(way, promised * tokens, milliseconds, round(tokens))
        chosen.append(way)
    return chosen


def test_trying_what_does_not_pay_costs_the_share_it_may() -> None:
    rounds: Rounds = {"drafted": (2, 8.0), "undrafted": (1, 2.0)}
    chosen = run(Pace(), rounds, 4000)
    lost = chosen.count("drafted") * (8.0 - 2 * 2.0)
    total = sum(rounds[way][1] for way in chosen)
    assert 0.5 * TRIAL_SHARE < lost / total < 1.5 * TRIAL_SHARE
    assert "drafted" in chosen[-200:], "it is never given up"


def test_what_is_nearly_as_good_is_tried_often() -> None:
    chosen = run(Pace(), {"drafted": (4, 4.4), "undrafted": (2, 2.0)}, 1000)
    assert 60 < chosen.count("drafted") < 200


def test_a_way_that_begins_to_pay_is_found() -> None:
    pace = Pace()
    run(pace, {"drafted": (1, 5.0), "undrafted": (1, 1.0)}, 300)
    chosen = run(pace, {"drafted": (12, 5.0), "undrafted": (1, 1.0)}, 1500)
    assert chosen[-50:].count("drafted") > 35


@pytest.mark.parametrize(("promised", "expected"), [(1.0, "drafted"), (4.0, "undrafted")])
def test_promises_that_are_not_kept_lose_their_weight(promised: float, expected: Way) -> None:
    pace = Pace()
    for _ in range(300):
        way = pace.choose(WAYS)
        pace.note(way, *((4.0, 4.0, round(4 / promised)) if way == "drafted" else (1.0, 2.0, 1)))
    assert run(pace, {"drafted": (4 / promised, 4.0), "undrafted": (1, 2.0)}, 20).count(expected) > 15


def test_one_way_needs_no_choice() -> None:
    pace = Pace()
    for _ in range(5):
        assert pace.choose(["undrafted"]) == "undrafted"
        pace.note("undrafted", 1.0, 1.0, 1)
