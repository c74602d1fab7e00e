"""From sequences to their parts of a round, and from how these fared to better ones.

    draft -> candidates -> couple (above temperature 0) -> grow under calibration, with retrieved guesses, as far as it pays (budget "auto")

A `Guesser` lives as long as its engine and is shared by all requests: what it has learnt (calibration, shares of the retrieval sources,
successors of tokens) only moves guesses, never a token. Nothing of a round is kept here: the plan holds it.

Under budget "auto" a round drafts, or retrieves alone, or decodes plainly (`engine.pace`), and verifies as much as pays. The drafter's
context is brought up to date when it is asked next; what it missed while it rested is no part of that round's time.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence as Many
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hoarfrost import kernels
from hoarfrost.drafting import Drafter
from hoarfrost.drafting.retrieval import Retrieval
from hoarfrost.engine.costs import CostModel, load_costs
from hoarfrost.engine.outcome import NO_TOKEN, Outcome
from hoarfrost.engine.pace import Pace, Way
from hoarfrost.engine.plan import Part, Plan, Promise
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
    build_trees,
    candidates_of,
    grow_trees,
    grow_worthwhile,
    judge,
    weighed,
)

logger = logging.getLogger("hoarfrost")

PLAIN = TreeConfig.autoregressive()
NUM_CANDIDATES = 64
"""Candidates per depth where the budget chooses itself: a node of rank r needs r better siblings, and no such tree goes that wide."""
MAX_RETRIEVED_DEPTH = 32
DRAFTED_HOST_MS, RETRIEVED_HOST_MS, PLAIN_HOST_MS = 0.8, 0.4, 0.1
"""What a round costs beside the passes of the models (building, walking, learning, text), about; how much it is will show."""
CONTEXT_STEP = 64  # no pass takes notably longer for fewer tokens behind it than these


Watch = Callable[[Part, list[int], "kernels.Verdict | None"], None]
"""Is told of a part with candidates, the tokens chosen at the rows visited, which its sequence has taken in, and how the drafter's guesses
fared, if there are any."""


class Guesser:
    """Makes trees for the sequences of one engine; `drafter` may be None, then only retrieval guesses.

    `watch`, if set, is told of every round in which guesses were put to the test.
    """

    def __init__(self, target: Target, drafter: Drafter | None) -> None:
        self.target, self.drafter = target, drafter
        self.watch: Watch | None = None
        self._calibrations: dict[tuple[float, bool], Calibration] = {}
        self._paces: defaultdict[tuple[TreeConfig, int], Pace] = defaultdict(Pace)
        self._row_times: dict[int, NDArray[np.float64]] = {}

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

    def guess(self, sequences: Many[Sequence], num_other_rows: int, clock: StageClock) -> tuple[list[Part], Promise | None]:
        """The trees of one round, whose pass will also hold `num_other_rows` rows, and what is promised of it."""
        parts: list[Part] = []
        promise = None
        for config, group in groups_of(sequences):
            guessed, promise = self._guess_safely(group, config, num_other_rows + sum([part.num_rows for part in parts]), clock)
            parts.extend(guessed)
        return parts, promise

    def _guess_safely(
        self, group: Many[Sequence], config: TreeConfig, num_other_rows: int, clock: StageClock
    ) -> tuple[list[Part], Promise | None]:
        """As `_guess`. Where that fails every sequence is tried alone; one for which it fails then goes without guesses from here on."""
        try:
            return self._guess(group, config, num_other_rows, clock)
        except Exception as error:  # a drafter may raise anything, and no guess is worth a request
            if len(group) > 1:
                return [part for one in group for part in self._guess_safely([one], config, num_other_rows, clock)[0]], None
            self._give_up(group[0], error)
            return [plain_part(group[0])], None

    @staticmethod
    def _give_up(sequence: Sequence, error: Exception) -> None:
        logger.warning("Guessing failed (%s: %s); request %d is decoded plainly.", type(error).__name__, error, sequence.id)
        sequence.go_plainly()

    def _guess(
        self, sequences: Many[Sequence], config: TreeConfig, num_other_rows: int, clock: StageClock
    ) -> tuple[list[Part], Promise | None]:
        """The trees of sequences with one config."""
        if config.budget == "auto":
            return self._guess_what_pays(sequences, config, num_other_rows, clock)
        if not config.budget:
            return [plain_part(sequence) for sequence in sequences], None
        drafted = self._draft(sequences, clock)
        if drafted is not None and is_published(config) and all(isinstance(one, Marginals) for one in drafted):
            trees = self._build(sequences, drafted, config)
            clock.lap("build")
            return [Part(sequence, tree) for sequence, tree in zip(sequences, trees, strict=True)], None
        candidates, hints, roots = self._prepare_growth(sequences, drafted, config, clock)
        trees = [grown.tree for grown in grow_trees(candidates, roots, int(config.budget), hints)]
        clock.lap("build")
        return make_parts(sequences, trees, drafted is not None, candidates), None

    def _guess_what_pays(
        self, sequences: Many[Sequence], config: TreeConfig, num_other_rows: int, clock: StageClock
    ) -> tuple[list[Part], Promise | None]:
        """Trees as large as pay, of guesses that pay; while plain decoding does, it is not thought over in every round."""
        pace, num_sequences = self._paces[config, pace_key(sequences)], len(sequences)
        if pace.goes_on():
            return [plain_part(sequence) for sequence in sequences], None
        row_ms = self._row_ms(sequences)[num_other_rows:]
        choice = pace.choose(self._ways(len(row_ms) > num_sequences, config))
        plain_ms = PLAIN_HOST_MS + float(row_ms[min(num_sequences, len(row_ms)) - 1]) if len(row_ms) else 0.0

        def promise(expected: float, milliseconds: float) -> Promise | None:
            return Promise(config, pace, choice, num_sequences, plain_ms, expected, milliseconds) if plain_ms else None

        if choice.way == "plain":
            return [plain_part(sequence) for sequence in sequences], promise(num_sequences, plain_ms)
        drafted = self._draft(sequences, clock) if choice.way == "drafted" else None
        fixed_ms = RETRIEVED_HOST_MS if drafted is None else DRAFTED_HOST_MS + self.costs.draft_time_ms(num_sequences)
        candidates, hints, roots = self._prepare_growth(sequences, drafted, config, clock)
        worth = grow_worthwhile(candidates, roots, row_ms, fixed_ms, hints)
        clock.lap("build")
        parts = make_parts(sequences, worth.trees, drafted is not None, candidates)
        return parts, promise(worth.expected, worth.milliseconds)

    def _ways(self, has_room: bool, config: TreeConfig) -> list[Way]:
        """The ways in which a round can be decoded. A batch with more rows than a pass was worth measuring for has no room for guesses."""
        drafted: list[Way] = ["drafted"] if has_room and self.drafter is not None else []
        retrieved: list[Way] = ["retrieved"] if has_room and config.retrieval else []
        return [*drafted, *retrieved, "plain"]

    def read_prompt(self, sequence: Sequence) -> None:
        """Lets the drafter take in the rows of a prompt's chunk."""
        if self.drafter is None:
            return
        try:
            self._extend(self.drafter, [sequence])
        except Exception as error:  # as above
            self._give_up(sequence, error)

    def _draft(self, sequences: Many[Sequence], clock: StageClock) -> list[Marginals | Conditionals] | None:
        """The drafter's guesses, after it has taken in what was committed since it was asked last."""
        if self.drafter is None:
            return None
        if rested := [sequence for sequence in sequences if len(sequence.pending_features) > 1]:
            self._extend(self.drafter, rested, num_kept=1)
            clock.lap_apart("draft")
        self._extend(self.drafter, [sequence for sequence in sequences if sequence.pending_features])
        states = [sequence.draft_state for sequence in sequences if sequence.draft_state is not None]
        return list(self.drafter.propose(states, [sequence.bonus_token_id for sequence in sequences]))

    @staticmethod
    def _extend(drafter: Drafter, sequences: Many[Sequence], num_kept: int = 0) -> None:
        """Hands the drafter the pending features of sequences, but for those of the last `num_kept` rounds."""
        states = [sequence.draft_state for sequence in sequences if sequence.draft_state is not None]
        if not all(sequence.is_in_step(state) for sequence, state in zip(sequences, states, strict=True)):
            raise RuntimeError("the drafter failed before, in the midst of taking in rows")
        if states:
            drafter.extend(states, [sequence.features(num_kept) for sequence in sequences])
        for sequence in sequences:
            del sequence.pending_features[: len(sequence.pending_features) - num_kept]

    @staticmethod
    def _build(sequences: Many[Sequence], drafted: Many[Marginals | Conditionals], config: TreeConfig) -> list[DraftTree]:
        """The published trees. A token past the last one that may be emitted need not be guessed."""
        useful = [
            one.within(sequence.num_remaining - 1) for one, sequence in zip(drafted, sequences, strict=True) if isinstance(one, Marginals)
        ]
        assert isinstance(config.budget, int)
        return build_trees(useful, [sequence.bonus_token_id for sequence in sequences], config.budget, config.max_width)

    def _prepare_growth(
        self, sequences: Many[Sequence], drafted: Many[Marginals | Conditionals] | None, config: TreeConfig, clock: StageClock
    ) -> tuple[list[Candidates], list[kernels.TreeHints], list[int]]:
        """What trees are grown of: candidates, hints and roots."""
        candidates = self._candidates(sequences, drafted, config)
        clock.lap("draft")
        hints = [self._hints(sequence, drafted is not None, config) for sequence in sequences]
        return candidates, hints, [sequence.bonus_token_id for sequence in sequences]

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

    def learn(self, plan: Plan, outcomes: Many[Outcome], best: BestTokens | None, clock: StageClock) -> None:
        """Takes in what the target chose, how the guesses fared, the likeliest tokens behind all rows (`best`), and the round's time."""
        for part, outcome in zip(plan.parts, outcomes, strict=True):
            if part.candidates is not None and outcome.token_ids:
                self._observe(part, part.candidates, outcome.token_ids)
        if best is not None and best.log_probs is not None:
            self._remember(plan, best.token_ids, best.log_probs)
        clock.lap("walk")
        if plan.promise is not None:
            config = plan.promise.config
            own = [part.chunk is None and (part.sequence.tree is config or part.sequence.tree == config) for part in plan.parts]
            num_tokens = sum([len(outcome.token_ids) for outcome, is_own in zip(outcomes, own, strict=True) if is_own])
            plan.promise.settle(num_tokens, 1000 * clock.total)

    def _remember(self, plan: Plan, token_ids: NDArray[np.int64], log_probs: NDArray[np.float32]) -> None:
        """What followed the tokens of all rows, rejected ones included."""
        rows = np.concatenate([part.tree.token_ids for part in plan.parts if part.tree is not None])
        if (token_ids[:, 0] == NO_TOKEN).any():
            known = token_ids[:, 0] != NO_TOKEN
            rows, token_ids, log_probs = rows[known], token_ids[known], log_probs[known]
        self.retrieval.table.remember(rows, token_ids, log_probs)

    def _observe(self, part: Part, candidates: Candidates, token_ids: list[int]) -> None:
        sequence, config = part.sequence, part.sequence.tree
        key, verdict = calibration_key(sequence, config), None
        if candidates.horizon:
            chosen = np.array(token_ids, np.int64)
            verdict = self.calibration(*key).observe(candidates, chosen) if config.calibration else judge(candidates, chosen)
        if self.watch is not None:
            self.watch(part, token_ids, verdict)
        if config.retrieval and part.tree is not None:
            shares = self.retrieval.shares(part.is_drafted, key[0])
            root = int(part.tree.token_ids[0])
            left_over, is_open = (verdict.left_over, verdict.is_open) if verdict is not None else (None, None)
            shares.observe(self.retrieval.table, sequence.repetition, root, token_ids, left_over, is_open)


def groups_of(sequences: Many[Sequence]) -> list[tuple[TreeConfig, list[Sequence]]]:
    """The sequences by their trees' config, automatic budgets last: what others take of a pass is known to them."""
    groups: dict[TreeConfig, list[Sequence]] = {}
    for sequence in sequences:
        groups.setdefault(PLAIN if sequence.distrusts_guesses else sequence.tree, []).append(sequence)
    return sorted(groups.items(), key=lambda group: group[0].budget == "auto")


def plain_part(sequence: Sequence) -> Part:
    return Part(sequence, DraftTree.single(sequence.bonus_token_id))


def make_parts(sequences: Many[Sequence], trees: Many[DraftTree], is_drafted: bool, candidates: Many[Candidates]) -> list[Part]:
    return [Part(sequence, tree, None, is_drafted, one) for sequence, tree, one in zip(sequences, trees, candidates, strict=True)]


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
