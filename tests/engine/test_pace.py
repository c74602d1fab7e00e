from __future__ import annotations

import pytest

from hoarfrost.engine.pace import NUM_FIRST_TRIES, PLAIN_STRETCH, TRIAL_SHARE, Pace, Way

WAYS: tuple[Way, ...] = ("drafted", "plain")
Rounds = dict[Way, tuple[float, float]]
"""Tokens of a round of each way, and its milliseconds."""


def run(pace: Pace, rounds: Rounds, num_rounds: int, promised: float = 1.0) -> list[Way]:
    """Rounds that expect `promised` times as many tokens as they bring, at least one."""
    chosen: list[Way] = []
    while len(chosen) < num_rounds:
        choice = pace.choose(WAYS)
        tokens, milliseconds = rounds[choice.way]
        pace.note(choice, promised * tokens, milliseconds, round(tokens), milliseconds)
        chosen.extend([choice.way] * choice.num_rounds)
    return chosen


def test_trying_what_does_not_pay_costs_the_share_it_may() -> None:
    rounds: Rounds = {"drafted": (2, 8.0), "plain": (1, 2.0)}
    pace = Pace()
    run(pace, rounds, 4000)  # it is no longer young
    chosen = run(pace, rounds, 8000)
    lost = chosen.count("drafted") * (8.0 - 2 * 2.0)
    total = sum(rounds[way][1] for way in chosen)
    assert 0.5 * TRIAL_SHARE < lost / total < 1.5 * TRIAL_SHARE
    rounds_between = 4.0 / (TRIAL_SHARE * 2.0) + PLAIN_STRETCH
    assert "drafted" in chosen[-round(1.1 * rounds_between) :], "it is never given up"


def test_what_is_nearly_as_good_is_tried_often() -> None:
    pace = Pace()
    rounds: Rounds = {"drafted": (4, 4.4), "plain": (2, 2.0)}
    run(pace, rounds, 2000)
    chosen = run(pace, rounds, 2000)
    expected = TRIAL_SHARE * 2000 * 2.0 / (4.4 - 2 * 2.0)  # what the share of all time pays for
    assert 0.6 * expected < chosen.count("drafted") < 2 * expected


def test_a_young_pace_tries_more() -> None:
    chosen = run(Pace(), {"drafted": (2, 8.0), "plain": (1, 2.0)}, 400)
    assert chosen[:100].count("drafted") > 2 * chosen[300:].count("drafted")
    assert sum(way == "drafted" for way in chosen) * (8.0 - 2 * 2.0) < 25 * 2.0, "some twenty rounds' worth"


def test_a_way_that_begins_to_pay_is_found() -> None:
    pace = Pace()
    run(pace, {"drafted": (1, 5.0), "plain": (1, 1.0)}, 300)
    chosen = run(pace, {"drafted": (12, 5.0), "plain": (1, 1.0)}, 1500)
    assert chosen[-50:].count("drafted") > 35


@pytest.mark.parametrize(("promised", "expected"), [(1.0, "drafted"), (4.0, "plain")])
def test_promises_that_are_not_kept_lose_their_weight(promised: float, expected: Way) -> None:
    pace = Pace()
    for _ in range(300):
        choice = pace.choose(WAYS)
        pace.note(choice, *((4.0, 4.0, round(4 / promised), 4.0) if choice.way == "drafted" else (1.0, 2.0, 1, 2.0)))
    assert run(pace, {"drafted": (4 / promised, 4.0), "plain": (1, 2.0)}, 20).count(expected) > 15


def test_one_way_needs_no_choice() -> None:
    pace = Pace()
    for _ in range(5):
        choice = pace.choose(["plain"])
        assert choice.way == "plain"
        pace.note(choice, 1.0, 1.0, 1, 1.0)


def test_only_plain_rounds_that_are_best_come_in_stretches() -> None:
    pace = Pace()
    rounds: Rounds = {"drafted": (2, 8.0), "plain": (1, 2.0)}
    for num_chosen in range(400):
        choice = pace.choose(WAYS)
        way = choice.way
        assert choice.num_rounds == (PLAIN_STRETCH if way == "plain" and num_chosen >= 2 * NUM_FIRST_TRIES else 1)
        assert [pace.goes_on() for _ in range(PLAIN_STRETCH)] == [index < choice.num_rounds - 1 for index in range(PLAIN_STRETCH)]
        pace.note(choice, *rounds[way], *((2, 8.0) if way == "drafted" else (1, 2.0)))
    rounds = {"drafted": (6, 4.0), "plain": (1, 2.0)}
    run(pace, rounds, 1000)
    for _ in range(100):
        choice = pace.choose(WAYS)
        pace.note(choice, *rounds[choice.way], *((6, 4.0) if choice.way == "drafted" else (1, 2.0)))
        assert choice.num_rounds == 1


def test_what_is_hopeless_does_not_keep_what_is_nearly_as_good_waiting() -> None:
    pace, ways = Pace(), ("drafted", "retrieved", "plain")
    rounds: Rounds = {"drafted": (1, 42.0), "retrieved": (2, 4.4), "plain": (1, 2.0)}
    chosen: list[Way] = []
    while len(chosen) < 8000:
        choice = pace.choose(ways)
        pace.note(choice, *rounds[choice.way], int(rounds[choice.way][0]), rounds[choice.way][1])
        chosen.extend([choice.way] * choice.num_rounds)
    loss_ms, saved_ms = 4.4 - 2 * 2.0, TRIAL_SHARE / 2 * 2.0 * 4000
    assert chosen[-4000:].count("retrieved") > 0.6 * saved_ms / loss_ms


def test_every_other_way_has_its_turn_and_a_busy_moment_is_forgiven() -> None:
    pace, ways = Pace(), ("drafted", "retrieved", "plain")
    rounds: Rounds = {"drafted": (2, 8.0), "retrieved": (1, 2.5), "plain": (1, 2.0)}
    chosen: list[Way] = []
    for index in range(4000):
        choice = pace.choose(ways)
        tokens, milliseconds = rounds[choice.way]
        pace.note(choice, tokens, milliseconds, int(tokens), 50.0 if index % 100 == 99 else milliseconds)
        chosen.extend([choice.way] * choice.num_rounds)
    expected = TRIAL_SHARE / 2 * 2.0 * 8000 / (8.0 - 2 * 2.0)  # what a half of the share pays for
    assert chosen.count("plain") > 0.9 * len(chosen)
    assert 0.5 * expected < chosen[-8000:].count("drafted") < 2 * expected
    assert chosen[-8000:].count("retrieved") > expected


def test_rounds_that_take_longer_than_they_promised_lose_their_weight() -> None:
    pace = Pace()
    for _ in range(300):
        choice = pace.choose(WAYS)
        pace.note(choice, *((2.0, 2.0, 2, 6.0) if choice.way == "drafted" else (1.0, 2.0, 1, 2.0)))
    assert [pace.choose(WAYS).way for _ in range(3)].count("plain") >= 2
