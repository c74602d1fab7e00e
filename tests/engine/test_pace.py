from __future__ import annotations

from hoarfrost.engine.guessing import MAX_PAUSE, Pace


def run(pace: Pace, promised: dict[bool, float], num_rounds: int) -> list[bool]:
    drafted = []
    for _ in range(num_rounds):
        drafted.append(pace.wants_draft())
        pace.note(drafted[-1], promised[drafted[-1]])
    return drafted


def test_what_promises_more_is_done_and_the_other_tried_ever_less() -> None:
    pace = Pace()
    drafted = run(pace, {True: 1.0, False: 2.0}, 400)
    assert drafted[:2] == [True, False], "both are tried first"
    assert sum(drafted[2:]) < 15
    assert any(drafted[-2 * MAX_PAUSE :]), "but not given up"


def test_a_drafter_that_begins_to_pay_is_found() -> None:
    pace = Pace()
    run(pace, {True: 1.0, False: 2.0}, 100)
    drafted = run(pace, {True: 6.0, False: 2.0}, 400)
    assert sum(drafted[-50:]) > 45
