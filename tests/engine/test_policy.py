"""What the policy loses and finds, on a machine that takes known times for what is guessed with known luck."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from hoarfrost import SamplingParams, TreeConfig
from hoarfrost.engine.costs import RoundCosts, Times
from hoarfrost.engine.outcome import Outcome
from hoarfrost.engine.plan import Choice, Part, Plan, Way
from hoarfrost.engine.policy import PLAIN_STRETCH, Policy
from hoarfrost.engine.statistics import StageClock
from hoarfrost.tree import DraftTree

HOST_MS: dict[Way, float] = {"plain": 0.1, "retrieved": 0.3, "drafted": 0.4}


@dataclass(eq=False)
class Text:
    """A sequence; `luck` is how many tokens beyond the first each way brings in the mean. Its trees grow the larger the better it is."""

    luck: dict[Way, float]
    params: SamplingParams = field(default_factory=SamplingParams)
    tree: TreeConfig = field(default_factory=TreeConfig)
    draft_state: Any = "there is one"
    num_remaining: int = 1000
    store: Any = field(default_factory=lambda: SimpleNamespace(length=200))


class Machine:
    """Runs rounds of a policy; a pass takes 10 milliseconds and half of one for every row beyond the first, a draft 4 and a half for each.

    `mood` is what all of it is multiplied by.
    """

    def __init__(self, policy: Policy | None = None) -> None:
        rows, batches = (1, 4, 16, 64), (1, 4)
        costs = RoundCosts(Times(rows, [self.pass_ms(one) for one in rows]), Times(batches, [self.draft_ms(one) for one in batches]))
        self.policy, self.chance, self.mood = policy or Policy(costs), random.Random(1), 1.0
        self.milliseconds, self.num_tokens = 0.0, 0
        self.chosen: list[list[Choice]] = []

    @staticmethod
    def pass_ms(num_rows: int) -> float:
        return 9.5 + 0.5 * num_rows

    @staticmethod
    def draft_ms(num_sequences: int) -> float:
        return 3.5 + 0.5 * num_sequences

    def round(self, texts: list[Text]) -> None:
        choices = self.policy.choose(texts, 0)  # type: ignore[arg-type]
        parts, outcomes = [], []
        for text, choice in zip(texts, choices, strict=True):
            num_rows = 1 if choice.way == "plain" else 2 + round(2 * text.luck[choice.way])
            mean = text.luck.get(choice.way, 0.0)
            expected = 1 + mean if choice.way != "plain" else 1.0
            num_guessed = sum(self.chance.random() < mean / 6 for _ in range(6))
            parts.append(Part(text, DraftTree.from_parents([0] * num_rows, range(-1, num_rows - 1)), None, choice, expected))  # type: ignore[arg-type]
            outcomes.append(Outcome([], [0] * (1 + num_guessed)))
        clock = StageClock()
        num_drafted = [choice.way for choice in choices].count("drafted")
        clock.seconds = dict.fromkeys(clock.seconds, 0.0)
        clock.seconds["verify"] = self.mood * self.pass_ms(sum(part.num_rows for part in parts)) / 1000
        clock.seconds["draft"] = self.mood * (self.draft_ms(num_drafted) if num_drafted else 0.0) / 1000
        clock.seconds["host"] = self.mood * sum(HOST_MS[choice.way] for choice in choices) / 1000
        self.policy.learn(Plan(parts), outcomes, clock)
        self.milliseconds += 1000 * clock.total
        self.num_tokens += sum(len(outcome.token_ids) for outcome in outcomes)
        self.chosen.append(choices)

    def run(self, texts: list[Text], seconds: float) -> float:
        """Rounds for so long: tokens per millisecond, relative to plain decoding."""
        start_ms, start_tokens = self.milliseconds, self.num_tokens
        while self.milliseconds < start_ms + 1000 * seconds:
            self.round(texts)
        plain = len(texts) / (self.mood * (self.pass_ms(len(texts)) + len(texts) * HOST_MS["plain"]))
        return (self.num_tokens - start_tokens) / (self.milliseconds - start_ms) / plain

    def share(self, way: Way, num_rounds: int) -> float:
        """Of the choices in the last rounds."""
        ways = [choice.way for choices in self.chosen[-num_rounds:] for choice in choices]
        return ways.count(way) / len(ways)


HOPELESS: dict[Way, float] = {"drafted": 0.05, "retrieved": 0.0}
USEFUL: dict[Way, float] = {"drafted": 3.0, "retrieved": 0.1}
REPETITIVE: dict[Way, float] = {"drafted": 3.0, "retrieved": 3.0}


@pytest.mark.parametrize("num_texts", [1, 4, 16])
def test_a_minute_of_hopeless_guesses_costs_two_percent_at_most(num_texts: int) -> None:
    assert Machine().run([Text(HOPELESS) for _ in range(num_texts)], 60) > 0.98


@pytest.mark.parametrize("num_texts", [1, 4, 16])
def test_a_good_drafter_is_used(num_texts: int) -> None:
    machine = Machine()
    texts = [Text(USEFUL) for _ in range(num_texts)]
    machine.run(texts, 2)
    always = (1 + 3.0) * num_texts / (machine.pass_ms(8 * num_texts) + machine.draft_ms(num_texts) + 0.4 * num_texts)
    plain = num_texts / (machine.pass_ms(num_texts) + 0.1 * num_texts)
    assert machine.run(texts, 20) > 0.95 * max(1.0, always / plain)


@pytest.mark.parametrize("num_texts", [1, 4])
def test_a_drafter_that_gets_good_is_found_within_a_second(num_texts: int) -> None:
    found = []
    for seed in range(10):
        machine, texts = Machine(), [Text(HOPELESS) for _ in range(num_texts)]
        machine.chance.seed(seed)
        machine.run(texts, 30)
        for text in texts:
            text.luck = USEFUL
        start = machine.milliseconds
        while machine.share("drafted", 10) < 0.7:
            machine.round(texts)
        found.append(machine.milliseconds - start)
    assert sorted(found)[5] < 1000, found


def test_guesses_without_a_drafter_are_preferred_where_they_are_as_good() -> None:
    machine = Machine()
    machine.run([Text(REPETITIVE)], 10)
    assert machine.share("retrieved", 100) > 0.9


def test_every_sequence_goes_its_own_way() -> None:
    """A drafter that knows two of four texts is used for these alone, but for trials, which cost little beside them."""
    machine = Machine()
    known: dict[Way, float] = {"drafted": 4.5, "retrieved": 0.0}
    texts = [Text(known), Text(HOPELESS), Text(known), Text(HOPELESS)]
    machine.run(texts, 5)
    ideal_ms = machine.pass_ms(2 + 2 * (2 + 9)) + machine.draft_ms(2) + 2 * 0.4 + 2 * 0.1
    ideal = (2 * (1 + 4.5) + 2) / ideal_ms / (4 / (machine.pass_ms(4) + 4 * 0.1))
    assert machine.run(texts, 10) > 0.96 * ideal
    assert machine.run([Text(known) for _ in range(4)], 5) > 1.1 * ideal, "it knows them all"


def test_what_others_knew_counts_for_a_sequence_that_comes() -> None:
    machine = Machine()
    machine.run([Text(HOPELESS)], 20)
    start = len(machine.chosen)
    for _ in range(40):
        machine.run([Text(HOPELESS)], 0.5)
    assert machine.share("drafted", len(machine.chosen) - start) < 0.03


def test_a_slow_moment_moves_nothing_and_a_slow_machine_everything_alike() -> None:
    machine, texts = Machine(), [Text(HOPELESS)]
    machine.run(texts, 20)
    machine.mood = 8.0
    machine.round(texts)
    machine.mood = 1.0
    assert machine.run(texts, 10) > 0.98
    machine.mood = 3.0
    machine.run(texts, 5)
    assert machine.policy.costs.passes.at(64) > 2 * machine.pass_ms(64), "what was not seen lately is dearer too"


def test_plain_rounds_that_are_best_come_in_stretches() -> None:
    machine, texts = Machine(), [Text(HOPELESS)]
    machine.run(texts, 20)
    ways = "".join(choices[0].way[0] for choices in machine.chosen[-2000:])
    stretches = re.findall("p+", ways)[1:-1]
    assert len(stretches) > 5
    assert all(len(stretch) % PLAIN_STRETCH == 0 for stretch in stretches)
    machine.round([*texts, Text(HOPELESS)])
    assert len(machine.chosen[-1]) == 2, "who comes is not kept waiting"


def test_what_cannot_be_is_never_chosen() -> None:
    machine = Machine()
    nothing = [Text(USEFUL, draft_state=None, tree=TreeConfig(retrieval=False)), Text(USEFUL, num_remaining=1)]
    machine.run(nothing, 1)
    assert machine.share("plain", len(machine.chosen)) == 1.0
