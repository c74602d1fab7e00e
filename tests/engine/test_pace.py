from __future__ import annotations

from hoarfrost.engine.guessing import MAX_PAUSE, Pace, Way

WAYS: list[Way] = ["draft", "retrieve", "plain"]


def run(pace: Pace, promised: dict[Way, float], num_rounds: int) -> list[Way]:
    chosen = []
    for _ in range(num_rounds):
        chosen.append(pace.choose(WAYS))
        pace.note(chosen[-1], promised[chosen[-1]])
    return chosen


def test_what_promises_most_is_done_and_the_others_tried_ever_less() -> None:
    chosen = run(Pace(), {"draft": 1.0, "retrieve": 2.0, "plain": 1.5}, 600)
    assert set(chosen[:40]) == set(WAYS), "all are tried first"
    assert chosen.count("retrieve") > 540
    assert set(chosen[-3 * MAX_PAUSE :]) == set(WAYS), "and none is given up"


def test_a_way_that_begins_to_pay_is_found() -> None:
    pace = Pace()
    run(pace, {"draft": 1.0, "retrieve": 1.2, "plain": 2.0}, 100)
    chosen = run(pace, {"draft": 6.0, "retrieve": 1.2, "plain": 2.0}, 600)
    assert chosen[-50:].count("draft") > 45


def test_one_way_needs_no_choice() -> None:
    pace = Pace()
    for _ in range(5):
        assert pace.choose(["plain"]) == "plain"
        pace.note("plain", 1.0)
