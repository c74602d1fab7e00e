"""Which guesses a round is made with: for every sequence none ("plain"), those of its own text ("retrieved"), or the drafter's too.

A way of guessing is known by what it brought of late, tokens beyond the first and nodes, per sequence and round: of the sequence itself
and, as long as there is little of that, of all of a like temperature (`Yield`). What a round takes is known from its `costs`. A sequence
guesses in the way whose tokens are worth more than its time, at the tokens per millisecond that the round as a whole will bring; that rate
and the ways are found in turns (Dinkelbach's method). How large trees become is then theirs to say (`tree.allocation`).

What is not in use is tried again, by one sequence at a time, the one that knows least of it, whenever the time that this is likely to lose
has been set aside: `TRIAL_SHARE` of all time for each way, and more early on, since guesses get better as they are learnt from. That bounds
what is ever lost, and what is nearly as good is tried often. While plain decoding is best it goes on for `PLAIN_STRETCH` rounds: looking at
each of them costs more than it teaches.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from hoarfrost.engine.costs import RoundCosts
from hoarfrost.engine.outcome import Outcome
from hoarfrost.engine.plan import PLAIN, Choice, Part, Plan, Way
from hoarfrost.engine.sequence import Sequence
from hoarfrost.engine.statistics import StageClock
from hoarfrost.tree import MAX_BUDGET

TRIAL_SHARE: dict[Way, float] = {"retrieved": 0.0025, "drafted": 0.0075}
NUM_YOUNG, MAX_SHARE = 0.5, 0.2
"""In round n the n-th part of so many rounds is set aside, if that is more, at most `MAX_SHARE` of one."""
PLAIN_STRETCH = 8
NUM_TURNS = 4
HOPE = 3.0
"""Tokens that a way is hoped to bring of which nothing is known."""
MEMORY, MAX_WEIGHT, TRIAL_STEP = 0.99, 10.0, 0.5
"""What is left of evidence a round later; how many rounds it counts as at the most; and how far a trial moves what is thought."""
COMMON_WEIGHT = 1.0
"""Rounds of its own as which a sequence counts those of the others."""
HOST_MS: dict[Way, float] = {"plain": 0.1, "retrieved": 0.3, "drafted": 0.4}
"""What a sequence's part of a round takes beside the passes of the models, to begin with."""
HOST_STEP = 0.05


class Yield:
    """What one way brought of late: a mean over rounds, the older the less they count."""

    def __init__(self, weight: float) -> None:
        """As many rounds speak for `HOPE`."""
        self.tokens, self.nodes = HOPE, HOPE
        self._weight, self._last_round = weight, 0

    def weight(self, this_round: int) -> float:
        """How many rounds speak for it."""
        return self._weight * MEMORY ** (this_round - self._last_round)

    def add(self, tokens: float, nodes: float, this_round: int, *, is_trial: bool) -> None:
        self._weight, self._last_round = min(MAX_WEIGHT, self.weight(this_round) + 1), this_round
        step = max(TRIAL_STEP if is_trial else 0.0, 1 / self._weight)
        self.tokens += step * (tokens - self.tokens)
        self.nodes += step * (nodes - self.nodes)


class Prospect(NamedTuple):
    """Tokens beyond the first that a way is likely to bring a sequence, and the milliseconds that the round becomes longer."""

    tokens: float
    milliseconds: float

    def gain(self, rate: float) -> float:
        """In tokens, at so many tokens per millisecond."""
        return self.tokens - rate * self.milliseconds


NOTHING = Prospect(0.0, 0.0)


class Policy:
    """Chooses among ways by what their rounds were like."""

    def __init__(self, costs: RoundCosts) -> None:
        self.costs = costs
        self._common: dict[tuple[Way, int], Yield] = {}
        self._own: WeakKeyDictionary[Sequence, dict[Way, Yield]] = WeakKeyDictionary()
        self._host_ms = dict(HOST_MS)
        self._saved = dict.fromkeys(TRIAL_SHARE, 0.0)
        self._num_rounds = 0
        self._num_plain_left, self._num_plain_sequences = 0, 0

    def choose(self, sequences: Many[Sequence], num_other_rows: int) -> list[Choice]:
        """How each sequence guesses in this round, whose pass also holds `num_other_rows` rows of others."""
        num_sequences = len(sequences)
        if self._num_plain_left and self._num_plain_sequences == num_sequences:
            self._num_plain_left -= 1
            return [PLAIN] * num_sequences
        plain_ms, draft_ms, prospects = self._prospects(sequences, num_other_rows)
        ways, rate = best_ways(prospects, plain_ms, draft_ms)
        choices = [Choice(way) for way in ways]
        for way in self._saved:
            resting = [index for index, one in enumerate(prospects) if way in one and ways[index] != way]
            if not resting:
                self._saved[way] = 0.0
                continue
            index = min(resting, key=lambda index: self._yield(sequences[index], way).weight(self._num_rounds))
            loss = (prospects[index][ways[index]].gain(rate) - prospects[index][way].gain(rate)) / rate
            loss += draft_ms if way == "drafted" and "drafted" not in ways else 0.0
            if self._saved[way] >= loss:
                self._saved[way] -= max(0.0, loss)
                choices[index] = Choice(way, is_trial=True)
                break
        self._num_plain_left = PLAIN_STRETCH - 1 if all(choice == PLAIN for choice in choices) else 0
        self._num_plain_sequences = num_sequences
        return choices

    def row_ms(self, sequences: Many[Sequence], num_other_rows: int) -> NDArray[np.float64]:
        """float64: what passes take over 1, 2, 3 ... rows beside the `num_other_rows` of others."""
        return self.costs.passes.up_to(num_other_rows + len(sequences) + MAX_BUDGET, mean_context(sequences))[num_other_rows:]

    def fixed_ms(self, choices: Many[Choice]) -> float:
        """What a round takes beside the target's pass."""
        num_drafted = sum([choice.way == "drafted" for choice in choices])
        drafting = self.costs.drafts.at(num_drafted) if num_drafted and self.costs.drafts is not None else 0.0
        return drafting + sum([self._host_ms[choice.way] for choice in choices])

    def learn(self, plan: Plan, outcomes: Many[Outcome], clock: StageClock) -> None:
        """Takes in what came of a plan that was chosen here, and how long it took."""
        chosen = [(part, outcome) for part, outcome in zip(plan.parts, outcomes, strict=True) if part.is_automatic]
        self._num_rounds += 1
        young = min(MAX_SHARE, NUM_YOUNG / self._num_rounds)
        for way, share in TRIAL_SHARE.items():
            self._saved[way] += max(share, young) * 1000 * clock.total
        self._learn_times(plan, [part for part, _ in chosen], clock)
        for part, outcome in chosen:
            choice = part.choice
            if choice.way != "plain" and part.tree is not None and outcome.token_ids:
                tokens = (part.expected + 2 * len(outcome.token_ids)) / 3 - 1  # what comes scatters, what is expected may be wrong
                for one in (self._yield(part.sequence, choice.way), self._common_yield(part.sequence, choice.way)):
                    one.add(tokens, part.tree.num_rows - 1, self._num_rounds, is_trial=choice.is_trial)

    def _learn_times(self, plan: Plan, parts: Many[Part], clock: StageClock) -> None:
        seconds, ways = clock.seconds, [part.choice.way for part in parts]
        if len(parts) == len(plan.parts):
            num_rows, context = sum([part.num_rows for part in parts]), mean_context([part.sequence for part in parts])
            self.costs.passes.observe(num_rows, 1000 * (seconds["verify"] + seconds["walk"]), context)
        if (num_drafted := ways.count("drafted")) and self.costs.drafts is not None:
            self.costs.drafts.observe(num_drafted, 1000 * (seconds["draft"] - clock.apart))
        if len(set(ways)) == 1:
            beside = 1000 * (seconds["build"] + seconds["host"]) / len(parts)
            self._host_ms[ways[0]] += HOST_STEP * (min(beside, 2 * self._host_ms[ways[0]]) - self._host_ms[ways[0]])

    def _prospects(self, sequences: Many[Sequence], num_other_rows: int) -> tuple[float, float, list[dict[Way, Prospect]]]:
        """What a plain round takes; what a draft takes for any number of sequences, beside what it takes for each; and per sequence what
        each way of guessing is likely to bring and to take."""
        passes, num_sequences = self.costs.passes, len(sequences)
        context = mean_context(sequences)
        expected = [{way: self._expected(sequence, way) for way in self._ways(sequence)} for sequence in sequences]
        num_rows = num_other_rows + num_sequences
        num_nodes = max(1, round(sum([max((nodes for _, nodes in one.values()), default=0.0) for one in expected])))
        pass_ms = passes.at(num_rows, context)
        node_ms = max(0.0, passes.at(num_rows + num_nodes, context) - pass_ms) / num_nodes
        extra_ms = {way: self._host_ms[way] - self._host_ms["plain"] for way in self._saved}
        draft_ms = 0.0
        if (drafts := self.costs.drafts) is not None:
            each_ms = (drafts.at(num_sequences + 1) - drafts.at(1)) / num_sequences
            draft_ms = drafts.at(1) - each_ms
            extra_ms["drafted"] += each_ms
        prospects = [
            {"plain": NOTHING, **{way: Prospect(tokens, extra_ms[way] + nodes * node_ms) for way, (tokens, nodes) in one.items()}}
            for one in expected
        ]
        return pass_ms + num_sequences * self._host_ms["plain"], draft_ms, prospects

    def _ways(self, sequence: Sequence) -> list[Way]:
        if sequence.num_remaining < 2:
            return []
        drafted: list[Way] = ["drafted"] if sequence.draft_state is not None and self.costs.drafts is not None else []
        retrieved: list[Way] = ["retrieved"] if sequence.tree.retrieval else []
        return drafted + retrieved

    def _expected(self, sequence: Sequence, way: Way) -> tuple[float, float]:
        """Tokens beyond the first, and nodes."""
        own, common = self._yield(sequence, way), self._common_yield(sequence, way)
        weight = own.weight(self._num_rounds)
        share = weight / (weight + COMMON_WEIGHT)
        return common.tokens + share * (own.tokens - common.tokens), common.nodes + share * (own.nodes - common.nodes)

    def _yield(self, sequence: Sequence, way: Way) -> Yield:
        return self._own.setdefault(sequence, {}).setdefault(way, Yield(0.0))

    def _common_yield(self, sequence: Sequence, way: Way) -> Yield:
        return self._common.setdefault((way, round(4 * sequence.params.temperature)), Yield(1.0))


def best_ways(prospects: Many[dict[Way, Prospect]], plain_ms: float, draft_ms: float) -> tuple[list[Way], float]:
    """The ways of all sequences that make tokens per millisecond largest, and how many those are."""
    ways: list[Way] = ["plain"] * len(prospects)
    rate = len(prospects) / plain_ms
    for _ in range(NUM_TURNS):
        undrafted = [best_way(one, rate, without="drafted") for one in prospects]
        picked = [best_way(one, rate) for one in prospects]
        gained = sum([one[way].gain(rate) - one[other].gain(rate) for one, way, other in zip(prospects, picked, undrafted, strict=True)])
        if gained < rate * draft_ms:
            picked = undrafted
        taken = [one[way] for one, way in zip(prospects, picked, strict=True)]
        milliseconds = plain_ms + (draft_ms if "drafted" in picked else 0.0) + sum([one.milliseconds for one in taken])
        reached = (len(prospects) + sum([one.tokens for one in taken])) / milliseconds
        if reached <= rate:
            break
        ways, rate = picked, reached
    return ways, rate


def best_way(prospect: dict[Way, Prospect], rate: float, without: Way | None = None) -> Way:
    return max((way for way in prospect if way != without), key=lambda way: prospect[way].gain(rate))


def mean_context(sequences: Many[Sequence]) -> float:
    return sum([sequence.store.length for sequence in sequences]) / len(sequences)
