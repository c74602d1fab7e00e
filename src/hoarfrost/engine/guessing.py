"""From sequences to the trees of a round, and from how these fared to better ones.

    draft -> candidates -> couple (above temperature 0) -> grow under calibration, with retrieved guesses, as far as it pays (budget "auto")

A `Guesser` lives as long as its engine and is shared by all requests: what it has learnt (calibration, shares of the retrieval sources,
successors of tokens) only moves guesses, never a token.

Under budget "auto" a round drafts, or retrieves alone, or decodes plainly (`engine.pace`), and verifies as much as pays. The drafter's
context is brought up to date when it is asked next, in one go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hoarfrost import kernels
from hoarfrost.drafting import Drafter
from hoarfrost.drafting.retrieval import Retrieval
from hoarfrost.engine.costs import CostModel, load_costs
from hoarfrost.engine.pace import Pace, Way
from hoarfrost.engine.sequence import Sequence
from hoarfrost.engine.statistics import StageClock
from hoarfrost.sampling import BestTokens
from hoarfrost.sampling.coupling import couple
from hoarfrost.target import Target
from hoarfrost.tree import (
    Calibration,
    Candidates,
    Conditionals,
    DraftTree,
    Marginals,
    TreeConfig,
    Walk,
    build_trees,
    candidates_of,
    grow_trees,
    grow_worthwhile,
    judge,
    weighed,
)

NUM_CANDIDATES = 64
"""Candidates per depth where the budget chooses itself: a node of rank r needs r better siblings, and no such tree goes that wide."""
MAX_RETRIEVED_DEPTH = 32
DRAFTED_HOST_MS, RETRIEVED_HOST_MS, PLAIN_HOST_MS = 0.8, 0.4, 0.1
"""What a round costs beside the passes of the models (building, walking, learning, text), about; how much it is will show."""
CONTEXT_STEP = 64  # no pass takes notably longer for fewer tokens behind it than these


Watch = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]], None]
"""Is told of the guesses below m visited rows: probabilities `[m, k]` as drafted and as believed, hits, the rows' depths, off the spine."""


@dataclass(frozen=True, eq=False)
class Guess:
    """The tree for one sequence, and the drafter's candidates in it: empty without a drafter, None where nothing is to be learnt."""

    tree: DraftTree
    is_drafted: bool = False
    candidates: Candidates | None = None


class Scale(NamedTuple):
    """What makes rounds of different batches comparable: how many sequences they decode, and what a plain round would take, about."""

    num_sequences: int
    plain_ms: float


class Guesser:
    """Makes trees for the sequences of one engine; `drafter` may be None, then only retrieval guesses.

    `watch`, if set, is told of every guess that was put to the test.
    """

    def __init__(self, target: Target, drafter: Drafter | None) -> None:
        self.target, self.drafter = target, drafter
        self.watch: Watch | None = None
        self._calibrations: dict[tuple[float, bool], Calibration] = {}
        self._paces: defaultdict[int, Pace] = defaultdict(Pace)
        self._row_times: dict[int, NDArray[np.float64]] = {}
        self._pace, self._scale = Pace(), Scale(1, 1.0)  # of the round in progress
        self._promise: tuple[Way, float, float] | None = None
        self._num_plain_left = 0  # rounds of the stretch

    @cached_property
    def retrieval(self) -> Retrieval:
        return Retrieval(self.target.vocab_size)

    @cached_property
    def costs(self) -> CostModel:
        return load_costs(self.target, self.drafter)

    def prepare(self, config: TreeConfig) -> None:
        """Measures what rounds cost, if `config` will need to know: now rather than in a round that is timed."""
        if config.budget == "auto":
            self._row_ms_at(0)

    def calibration(self, temperature: float, coupled: bool) -> Calibration:
        """What is known of the drafter at a temperature, with coupled candidates or not."""
        key = temperature, coupled
        if key not in self._calibrations:
            self._calibrations[key] = Calibration(self.drafter.horizon if self.drafter is not None else 1)
        return self._calibrations[key]

    def guess(self, sequences: Many[Sequence], config: TreeConfig, clock: StageClock) -> list[Guess]:
        """The trees of one round."""
        way = self._way(sequences, config)
        if way == "plain":
            return [Guess(DraftTree.single(sequence.bonus_token_id)) for sequence in sequences]
        drafted = self._draft(sequences) if way == "drafted" else None
        if drafted is not None and is_published(config) and all(isinstance(one, Marginals) for one in drafted):
            clock.lap("draft")
            guesses = [Guess(tree) for tree in self._build(sequences, drafted, config)]
        else:
            candidates = self._candidates(sequences, drafted, config)
            clock.lap("draft")
            guesses = self._grow(sequences, candidates, drafted is not None, config)
        clock.lap("build")
        return guesses

    def _way(self, sequences: Many[Sequence], config: TreeConfig) -> Way:
        """How this round is decoded."""
        if config.budget != "auto":
            return "drafted" if config.budget else "plain"
        if self._num_plain_left:
            self._num_plain_left -= 1
            return "plain"
        row_ms, num_sequences = self._row_ms(sequences), len(sequences)
        self._scale = Scale(num_sequences, PLAIN_HOST_MS + float(row_ms[min(num_sequences, len(row_ms)) - 1]))
        self._pace = self._paces[pace_key(sequences)]
        way = self._pace.choose(self._ways(len(row_ms) > num_sequences, config))
        if way == "plain":
            self._num_plain_left = self._pace.stretch - 1
            self._promise = way, num_sequences, self._scale.plain_ms
        return way

    def _ways(self, has_room: bool, config: TreeConfig) -> list[Way]:
        """The ways in which a round can be decoded. A batch with more rows than a pass was worth measuring for has no room for guesses."""
        drafted: list[Way] = ["drafted"] if has_room and self.drafter is not None else []
        retrieved: list[Way] = ["retrieved"] if has_room and config.retrieval else []
        return [*drafted, *retrieved, "plain"]

    def _draft(self, sequences: Many[Sequence]) -> list[Marginals | Conditionals] | None:
        """The drafter's guesses, after it has taken in what was committed since it was asked last."""
        if self.drafter is None:
            return None
        late = [sequence for sequence in sequences if sequence.pending_features]
        states = [sequence.draft_state for sequence in late if sequence.draft_state is not None]
        if states:
            self.drafter.extend(states, [sequence.take_features() for sequence in late])
        states = [sequence.draft_state for sequence in sequences if sequence.draft_state is not None]
        return list(self.drafter.propose(states, [sequence.bonus_token_id for sequence in sequences]))

    @staticmethod
    def _build(sequences: Many[Sequence], drafted: Many[Marginals | Conditionals], config: TreeConfig) -> list[DraftTree]:
        """The published trees. A token past the last one that may be emitted need not be guessed."""
        useful = [
            one.within(sequence.num_remaining - 1) for one, sequence in zip(drafted, sequences, strict=True) if isinstance(one, Marginals)
        ]
        assert isinstance(config.budget, int)
        return build_trees(useful, [sequence.bonus_token_id for sequence in sequences], config.budget, config.max_width)

    def _grow(self, sequences: Many[Sequence], candidates: list[Candidates], is_drafted: bool, config: TreeConfig) -> list[Guess]:
        hints = [self._hints(sequence, is_drafted, config) for sequence in sequences]
        roots = [sequence.bonus_token_id for sequence in sequences]
        if config.budget == "auto":
            fixed_ms = DRAFTED_HOST_MS + self.costs.draft_time_ms(len(sequences)) if is_drafted else RETRIEVED_HOST_MS
            trees, expected, milliseconds = grow_worthwhile(candidates, roots, self._row_ms(sequences), fixed_ms, hints)
            self._promise = "drafted" if is_drafted else "retrieved", expected, milliseconds
        else:
            trees = [grown.tree for grown in grow_trees(candidates, roots, int(config.budget), hints)]
        return [Guess(tree, is_drafted, one) for tree, one in zip(trees, candidates, strict=True)]

    def _candidates(
        self, sequences: Many[Sequence], drafted: Many[Marginals | Conditionals] | None, config: TreeConfig
    ) -> list[Candidates]:
        """The guesses in the order in which they are likely to come true: the noise first, which decides what is worth weighing."""
        if drafted is None:
            return [Candidates.none()] * len(sequences)
        wanted = NUM_CANDIDATES if config.budget == "auto" else int(config.budget)
        conditional = {index: one for index, one in enumerate(drafted) if isinstance(one, Conditionals)}
        marginals = [one.marginals if isinstance(one, Conditionals) else one for one in drafted]
        num_read = max((one.selector.num_candidates for one in conditional.values()), default=wanted)
        noisy = [index for index, sequence in enumerate(sequences) if is_coupled(sequence, config)]
        quiet = [index for index in range(len(sequences)) if index not in noisy]
        result = dict(zip(quiet, candidates_of([marginals[index] for index in quiet], num_read), strict=True))
        params = [sequences[index].params for index in noisy]
        positions = [sequences[index].store.length + 1 for index in noisy]
        result.update(zip(noisy, couple([marginals[index] for index in noisy], params, positions, num_read), strict=True))
        if conditional:
            temperatures = [sequences[index].params.temperature if index in noisy else 1.0 for index in conditional]
            after = weighed(list(conditional.values()), [result[index] for index in conditional], temperatures)
            result.update(zip(conditional, after, strict=True))
        width = min(wanted, config.max_width or wanted)
        return [result[index].within(sequence.num_remaining - 1, width) for index, sequence in enumerate(sequences)]

    def _hints(self, sequence: Sequence, is_drafted: bool, config: TreeConfig) -> kernels.TreeHints:
        """What is known beside the drafter's guesses, and of these; the repetition takes in what was emitted since the last round."""
        temperature, is_noisy = calibration_key(sequence, config)
        calibration = self.calibration(temperature, is_noisy).parameters if config.calibration and is_drafted else None
        if not config.retrieval:
            return kernels.TreeHints(calibration)
        sequence.repetition.extend(sequence.tokens_from(len(sequence.repetition)))
        return kernels.TreeHints(
            calibration,
            self.retrieval.table,
            sequence.repetition,
            self.retrieval.shares(is_drafted, temperature),
            max(0, min(MAX_RETRIEVED_DEPTH, sequence.num_remaining - 1)),
            (sequence.params.seed, sequence.store.length + 1) if is_noisy else None,
        )

    def _row_ms(self, sequences: Many[Sequence]) -> NDArray[np.float64]:
        context = sum(sequence.store.length for sequence in sequences) // len(sequences)
        return self._row_ms_at(context // CONTEXT_STEP * CONTEXT_STEP)

    def _row_ms_at(self, context: int) -> NDArray[np.float64]:
        if context not in self._row_times:
            self._row_times[context] = self.costs.row_ms(context)
        return self._row_times[context]

    def learn(
        self, sequences: Many[Sequence], guesses: Many[Guess], walks: Many[Walk], best: BestTokens | None, config: TreeConfig
    ) -> None:
        """Takes in what the target chose: `walks[i]` through `guesses[i].tree`; and the likeliest tokens behind all rows, where
        guesses are to be retrieved."""
        for sequence, guess, walked in zip(sequences, guesses, walks, strict=True):
            if guess.candidates is not None:
                self._observe(sequence, guess, guess.candidates, walked, config)
        if config.retrieval and best is not None and best.log_probs is not None:
            self.retrieval.table.remember(np.concatenate([guess.tree.token_ids for guess in guesses]), best.token_ids, best.log_probs)

    def conclude(self, walks: Many[Walk], seconds: float) -> None:
        """Takes in how long the round was and what it brought, for the choice among the ways."""
        if self._promise is not None:
            way, expected, milliseconds = self._promise
            num_sequences, plain_ms = self._scale
            num_tokens = sum([len(walked.token_ids) for walked in walks])
            self._pace.note(way, expected / num_sequences, milliseconds / plain_ms, num_tokens / num_sequences, 1000 * seconds / plain_ms)
            self._promise = None

    def _observe(self, sequence: Sequence, guess: Guess, candidates: Candidates, walked: Walk, config: TreeConfig) -> None:
        key, left_over, is_open = calibration_key(sequence, config), None, None
        if candidates.horizon:
            chosen = np.array(walked.token_ids, np.int64)
            verdict = self.calibration(*key).observe(candidates, chosen) if config.calibration else judge(candidates, chosen)
            if self.watch is not None and len(verdict.hits):
                self.watch(verdict.drafted, verdict.believed, verdict.hits, np.arange(len(verdict.hits)), verdict.off_spine)
            left_over, is_open = verdict.left_over, verdict.is_open
        if config.retrieval:
            shares = self.retrieval.shares(guess.is_drafted, key[0])
            shares.observe(self.retrieval.table, sequence.repetition, sequence.bonus_token_id, walked.token_ids, left_over, is_open)


def is_published(config: TreeConfig) -> bool:
    """Whether a config asks for DDTree as published, with nothing added."""
    return not (config.calibration or config.coupling or config.retrieval) and config.budget != "auto"


def is_coupled(sequence: Sequence, config: TreeConfig) -> bool:
    return config.coupling and not sequence.params.is_greedy


def pace_key(sequences: Many[Sequence]) -> int:
    """Rounds that have much the same worth of guesses: those of a like mean temperature."""
    return round(4 * sum([sequence.params.temperature for sequence in sequences]) / len(sequences))


def calibration_key(sequence: Sequence, config: TreeConfig) -> tuple[float, bool]:
    return sequence.params.temperature, is_coupled(sequence, config)
