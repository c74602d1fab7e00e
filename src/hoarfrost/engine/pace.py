"""Which way the next round is decoded: with the drafter, or without it (retrieved guesses alone, or no tree at all).

Every round of a way says how many tokens it expects in how much time, and later how many it got. The better way is taken. The other one is
tried again when the time that may be lost on trying, `TRIAL_SHARE` of all time, has been saved up: where it is nearly as good that is soon,
where it is hopeless seldom, and no more than that share is ever lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Way = Literal["drafted", "undrafted"]

TRIAL_SHARE = 0.02
NUM_FIRST_TRIES: dict[Way, int] = {"drafted": 2, "undrafted": 1}
"""Rounds of each way before they are compared."""
STEP, TRIAL_STEP = 0.2, 0.5
"""How fast an opinion follows what the last round of a way expected; faster at a trial, since what is known from before is old."""
TRUST_MEMORY = 0.98  # of a round, a round later
TRUST_PRIOR = 16.0  # tokens that speak for expectations being right


@dataclass
class Record:
    """What rounds of one way have been like: tokens expected and time, of late; and by what factor expectations were too low."""

    expected: float
    milliseconds: float
    num_tries: int = 0
    sum_expected: float = TRUST_PRIOR
    sum_emitted: float = TRUST_PRIOR

    @property
    def tokens_per_ms(self) -> float:
        return self.expected / self.milliseconds * self.sum_emitted / self.sum_expected

    def add(self, expected: float, milliseconds: float, emitted: int, step: float) -> None:
        self.num_tries += 1
        self.expected += step * (expected - self.expected)
        self.milliseconds += step * (milliseconds - self.milliseconds)
        self.sum_expected = TRUST_MEMORY * self.sum_expected + expected
        self.sum_emitted = TRUST_MEMORY * self.sum_emitted + emitted


class Pace:
    """Chooses among ways by what their rounds were like."""

    def __init__(self) -> None:
        self._records: dict[Way, Record] = {}
        self._saved_ms = 0.0
        self._is_trial = False

    def choose(self, ways: Sequence[Way]) -> Way:
        """The way for this round: the better one, or the other if its turn has come."""
        self._is_trial = False
        for way in ways:
            if way not in self._records or self._records[way].num_tries < NUM_FIRST_TRIES[way]:
                return way
        best = max(ways, key=lambda way: self._records[way].tokens_per_ms)
        for way in ways:
            if way != best and self._saved_ms > self._loss_ms(way, best):
                self._saved_ms, self._is_trial = 0.0, True
                return way
        return best

    def note(self, way: Way, expected: float, milliseconds: float, emitted: int) -> None:
        """Takes in a round: the tokens it expected, the time they were to take, and the tokens there were."""
        record = self._records.setdefault(way, Record(expected, milliseconds))
        record.add(expected, milliseconds, emitted, TRIAL_STEP if self._is_trial else STEP)
        self._saved_ms += TRIAL_SHARE * milliseconds

    def _loss_ms(self, way: Way, best: Way) -> float:
        """What a round of `way` takes longer than the best one would for the same tokens."""
        record = self._records[way]
        return record.milliseconds * (1 - record.tokens_per_ms / self._records[best].tokens_per_ms)
