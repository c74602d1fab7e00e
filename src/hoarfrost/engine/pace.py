"""Which way the next round is decoded: with the drafter, with retrieved guesses alone, or plainly.

Every round says how many tokens it expects in what time, and then how many there were and how long it took. The way with most tokens per
time is taken: what its rounds expected of late, corrected by how such expectations have been met. The others are tried again when the time
that may be lost on trying, `TRIAL_SHARE` of all time and `NUM_YOUNG` rounds' worth early on, has been saved up. Each of them has an equal
part of it to itself, so that what is nearly as good is tried soon, what is hopeless seldom and at nobody else's cost, and no more than that
is ever lost.

Tokens count per sequence, and time in plain rounds of as many sequences: so what is known of one batch size goes on to count when sequences
come and go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Way = Literal["drafted", "retrieved", "plain"]

TRIAL_SHARE = 0.005
NUM_YOUNG = 3.0
"""In round n the n-th part of so many rounds is set aside for trying, at most `MAX_SHARE` of one: what a way is worth shows only when its
guesses have been learnt, and that takes rounds."""
MAX_SHARE = 0.2
NUM_FIRST_TRIES = 2
"""Rounds of each way before they are compared."""
STEP, TRIAL_STEP = 0.2, 0.5
"""How fast an opinion follows what the last round of a way expected; faster at a trial, since what is known from before is old."""
PLAIN_STRETCH = 8
"""Rounds that are plain one after the other where plain decoding is best, before the choice is made again: they bring one token each in a
time that is known, and looking at every one of them costs more than it teaches."""
MAX_DELAY = 2.0
"""A round counts as no longer than so many times what was to be expected: the machine may have been at something else."""
MEMORY, TIME_MEMORY = 0.98, 0.9
"""What is left, a round later, of how a round met what it expected. Times scatter much less than tokens, and a machine has its moods."""
PRIOR_ROUNDS, TIME_PRIOR_ROUNDS = 8.0, 2.0
"""Rounds that speak for expectations being right."""


class Record:
    """What rounds of one way expected of late, tokens and time; and sums of what was expected and of what came.

    Attributes:
        saved: time that may be lost on trying the way.
        time: what a round is likely to take.
        speed: the tokens that it is likely to bring, over that.
    """

    def __init__(self, expected: float, promised_time: float) -> None:
        self.num_tries, self.saved = 0, 0.0
        self._expected, self._promised_time = expected, promised_time
        self._sum_expected = self._sum_emitted = PRIOR_ROUNDS * expected
        self._sum_promised_time = self._sum_time = TIME_PRIOR_ROUNDS * promised_time

    def add(self, expected: float, promised_time: float, emitted: float, time: float, step: float) -> None:
        likely_time = promised_time * self._sum_time / self._sum_promised_time
        self._expected += step * (expected - self._expected)
        self._promised_time += step * (promised_time - self._promised_time)
        self._sum_expected = MEMORY * self._sum_expected + expected
        self._sum_emitted = MEMORY * self._sum_emitted + emitted
        self._sum_promised_time = TIME_MEMORY * self._sum_promised_time + promised_time
        self._sum_time = TIME_MEMORY * self._sum_time + min(time, MAX_DELAY * likely_time)
        self.num_tries += 1
        self.time = self._promised_time * self._sum_time / self._sum_promised_time
        self.speed = self._expected * self._sum_emitted / self._sum_expected / self.time


class Choice(NamedTuple):
    """How a round is decoded, and the `num_rounds - 1` after it too; whether just to see what that is worth."""

    way: Way
    is_trial: bool = False
    num_rounds: int = 1


class Pace:
    """Chooses among ways by what their rounds were like."""

    def __init__(self) -> None:
        self._records: dict[Way, Record] = {}
        self._num_rounds = 0
        self._num_plain_left = 0

    def choose(self, ways: Sequence[Way]) -> Choice:
        """The way for this round, of which `note` is to be told: the best one, or another whose turn has come."""
        for way in ways:
            if way not in self._records or self._records[way].num_tries < NUM_FIRST_TRIES:
                return Choice(way)
        best = max(ways, key=lambda way: self._records[way].speed)
        for way in ways:
            if way != best and self._records[way].saved >= (loss := self._loss(way, best)):
                self._records[way].saved -= loss
                return Choice(way, is_trial=True)
        if best != "plain":
            return Choice(best)
        self._num_plain_left = PLAIN_STRETCH - 1
        return Choice(best, num_rounds=PLAIN_STRETCH)

    def goes_on(self) -> bool:
        """Whether the choice before covers this round."""
        self._num_plain_left -= 1
        return self._num_plain_left >= 0

    def note(self, choice: Choice, expected: float, promised_time: float, emitted: float, time: float) -> None:
        """Takes in the round that was chosen, the first of its stretch: the tokens that it expected and the time it was to take; the tokens
        there were, and its time."""
        way, is_trial, num_rounds = choice
        self._num_rounds += num_rounds
        record = self._records.get(way)
        if record is None:
            record = self._records[way] = Record(expected, promised_time)
        record.add(expected, promised_time, emitted, time, TRIAL_STEP if is_trial else STEP)
        share = max(TRIAL_SHARE, min(MAX_SHARE, NUM_YOUNG / self._num_rounds)) / max(1, len(self._records) - 1)
        for other in self._records.values():
            if other is not record:
                other.saved += share * time * num_rounds

    def _loss(self, way: Way, best: Way) -> float:
        """What a round of `way` takes longer than the best one would for the same tokens."""
        record = self._records[way]
        return record.time * (1 - record.speed / self._records[best].speed)
