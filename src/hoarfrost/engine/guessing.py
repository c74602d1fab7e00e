"""From sequences to their parts of a round, and from how these fared to better ones.

    draft -> candidates -> couple (above temperature 0) -> grow under calibration, with retrieved guesses, as far as it pays (budget "auto")

A `Guesser` lives as long as its engine and is shared by all requests: what it has learnt (calibration, shares of the retrieval sources,
successors of tokens) only moves guesses, never a token. Nothing of a round is kept here: the plan holds it.

Under budget "auto" a sequence is drafted for, retrieves alone, or is decoded plainly (`engine.policy`), and the trees of all such
sequences share the rows that pay. The drafter's context is brought up to date when it is asked next; what it missed while it rested is no
part of that round's time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as Many
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hoarfrost import kernels
from hoarfrost.drafting import Drafter
from hoarfrost.drafting.retrieval import Retrieval
from hoarfrost.engine.costs import measure
from hoarfrost.engine.outcome import NO_TOKEN, Outcome
from hoarfrost.engine.plan import Choice, Part, Plan, Way
from hoarfrost.engine.policy import Policy
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

PLAIN, AUTOMATIC = TreeConfig.autoregressive(), TreeConfig()
NO_CANDIDATES = Candidates.none()
NUM_CANDIDATES = 64
"""Candidates per depth where the budget chooses itself: a node of rank r needs r better siblings, and no such tree goes that wide."""
MAX_RETRIEVED_DEPTH = 32

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

    @cached_property
    def retrieval(self) -> Retrieval:
        return Retrieval(self.target.vocab_size)

    @cached_property
    def policy(self) -> Policy:
        logger.info("Measuring what the passes of %s cost on this machine.", self.target.name)
        return Policy(measure(self.target, self.drafter))

    def prepare(self, config: TreeConfig) -> None:
        """Measures what rounds cost, if `config` will need to know: now rather than in a round that is timed."""
        if config.budget == "auto":
            _ = self.policy

    def calibration(self, temperature: float, coupled: bool) -> Calibration:
        """What is known of the drafter at a temperature, with coupled candidates or not."""
        key = temperature, coupled
        if key not in self._calibrations:
            self._calibrations[key] = Calibration(self.drafter.horizon if self.drafter is not None else 1)
        return self._calibrations[key]

    def guess(self, sequences: Many[Sequence], num_other_rows: int, clock: StageClock) -> list[Part]:
        """The trees of one round, whose pass will also hold `num_other_rows` rows."""
        parts: list[Part] = []
        for config, group in groups_of(sequences):
            guessed = self._guess_safely(group, config, num_other_rows + sum([part.num_rows for part in parts]), clock)
            parts.extend(map(within_reach, guessed))
        return parts

    def _guess_safely(self, group: Many[Sequence], config: TreeConfig, num_other_rows: int, clock: StageClock) -> list[Part]:
        """As `_guess`. Where that fails every sequence is tried alone; one for which it fails then goes without guesses from here on."""
        try:
            return self._guess(group, config, num_other_rows, clock)
        except Exception as error:  # a drafter may raise anything, and no guess is worth a request
            if len(group) > 1:
                return [part for one in group for part in self._guess_safely([one], config, num_other_rows, clock)]
            self._give_up(group[0], error)
            return plain_parts(group)

    @staticmethod
    def _give_up(sequence: Sequence, error: Exception) -> None:
        logger.warning("Guessing failed (%s: %s); request %d is decoded plainly.", type(error).__name__, error, sequence.id)
        sequence.go_plainly()

    def _guess(self, sequences: Many[Sequence], config: TreeConfig, num_other_rows: int, clock: StageClock) -> list[Part]:
        """The trees of sequences with one fixed budget, or with automatic ones: these are grown together, as large as pays."""
        choices = self._choose(sequences, config, num_other_rows)
        clock.lap("host")
        if all(choice.way == "plain" for choice in choices):
            return plain_parts(sequences)
        drafting = [sequence for sequence, choice in zip(sequences, choices, strict=True) if choice.way == "drafted"]
        drafted = self._draft(drafting, clock) if drafting else []
        if drafted and is_published(config) and all(isinstance(one, Marginals) for one in drafted):
            trees = self._build(sequences, drafted, config)
            clock.lap("build")
            return [Part(*one) for one in zip(sequences, trees, strict=True)]
        of_drafter = iter(self._candidates(drafting, drafted, NUM_CANDIDATES if config.budget == "auto" else int(config.budget)))
        candidates = [next(of_drafter) if choice.way == "drafted" else NO_CANDIDATES for choice in choices]
        clock.lap("draft")
        hints = [self._hints(*one) for one in zip(sequences, choices, strict=True)]
        roots = [sequence.bonus_token_id for sequence in sequences]
        if config.budget == "auto":
            row_ms = self.policy.row_ms(sequences, num_other_rows)
            trees, expected, _ = grow_worthwhile(candidates, roots, row_ms, self.policy.fixed_ms(choices), hints)
        else:
            trees, expected = [grown.tree for grown in grow_trees(candidates, roots, int(config.budget), hints)], [1.0] * len(roots)
        clock.lap("build")
        return [Part(*one) for one in zip(sequences, trees, candidates, choices, expected, strict=True)]

    def _choose(self, sequences: Many[Sequence], config: TreeConfig, num_other_rows: int) -> list[Choice]:
        if config.budget == "auto":
            return self.policy.choose(sequences, num_other_rows)
        way: Way = "plain" if not config.budget else "drafted" if self.drafter is not None else "retrieved"
        return [Choice(way)] * len(sequences)

    def read_prompt(self, sequence: Sequence) -> None:
        """Lets the drafter take in the rows of a prompt's chunk."""
        if self.drafter is None:
            return
        try:
            self._extend(self.drafter, [sequence])
        except Exception as error:  # as above
            self._give_up(sequence, error)

    def _draft(self, sequences: Many[Sequence], clock: StageClock) -> list[Marginals | Conditionals]:
        """The drafter's guesses, after it has taken in what was committed since it was asked last."""
        assert self.drafter is not None
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

    @staticmethod
    def _candidates(sequences: Many[Sequence], drafted: Many[Marginals | Conditionals], wanted: int) -> list[Candidates]:
        """The best guesses in the order in which they are likely to come true: the noise first, which decides what is worth weighing."""
        conditional = {index: one for index, one in enumerate(drafted) if isinstance(one, Conditionals)}
        marginals = [one.marginals if isinstance(one, Conditionals) else one for one in drafted]
        num_read = max((one.selector.num_candidates for one in conditional.values()), default=wanted)
        noisy = [index for index, sequence in enumerate(sequences) if is_coupled(sequence)]
        quiet = [index for index in range(len(sequences)) if index not in noisy]
        result = dict(zip(quiet, candidates_of([marginals[index] for index in quiet], num_read), strict=True))
        params = [sequences[index].params for index in noisy]
        positions = [sequences[index].store.length + 1 for index in noisy]
        result.update(zip(noisy, couple([marginals[index] for index in noisy], params, positions, num_read), strict=True))
        if conditional:
            temperatures = [sequences[index].params.temperature if index in noisy else 1.0 for index in conditional]
            after = weighed(list(conditional.values()), [result[index] for index in conditional], temperatures)
            result.update(zip(conditional, after, strict=True))
        widths = [min(wanted, sequence.tree.max_width or wanted) for sequence in sequences]
        return [result[index].within(one.num_remaining - 1, widths[index]) for index, one in enumerate(sequences)]

    def _hints(self, sequence: Sequence, choice: Choice) -> kernels.TreeHints:
        """What is known beside the drafter's guesses, and of these; the repetition takes in what was emitted since the last round."""
        config, is_drafted = sequence.tree, choice.way == "drafted"
        temperature, is_noisy = calibration_key(sequence)
        calibration = self.calibration(temperature, is_noisy).parameters if config.calibration and is_drafted else None
        if not config.retrieval or choice.way == "plain":
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

    def learn(self, plan: Plan, outcomes: Many[Outcome], best: BestTokens | None, clock: StageClock) -> None:
        """Takes in what the target chose, how the guesses fared, the likeliest tokens behind all rows (`best`), and the round's time."""
        for part, outcome in zip(plan.parts, outcomes, strict=True):
            if part.candidates is not None and part.choice.way != "plain" and outcome.token_ids:
                self._observe(part, part.candidates, outcome.token_ids)
        if best is not None and best.log_probs is not None:
            self._remember(plan, best.token_ids, best.log_probs)
        clock.lap("walk")
        if any(part.is_automatic for part in plan.parts):
            self.policy.learn(plan, outcomes, clock)

    def _remember(self, plan: Plan, token_ids: NDArray[np.int64], log_probs: NDArray[np.float32]) -> None:
        """What followed the tokens of all rows, rejected ones included."""
        rows = np.concatenate([part.tree.token_ids for part in plan.parts if part.tree is not None])
        if (token_ids[:, 0] == NO_TOKEN).any():
            known = token_ids[:, 0] != NO_TOKEN
            rows, token_ids, log_probs = rows[known], token_ids[known], log_probs[known]
        self.retrieval.table.remember(rows, token_ids, log_probs)

    def _observe(self, part: Part, candidates: Candidates, token_ids: list[int]) -> None:
        sequence, config = part.sequence, part.sequence.tree
        key, verdict = calibration_key(sequence), None
        if candidates.horizon:
            chosen = np.array(token_ids, np.int64)
            verdict = self.calibration(*key).observe(candidates, chosen) if config.calibration else judge(candidates, chosen)
        if self.watch is not None:
            self.watch(part, token_ids, verdict)
        if config.retrieval and part.tree is not None:
            shares = self.retrieval.shares(part.choice.way == "drafted", key[0])
            root = int(part.tree.token_ids[0])
            left_over, is_open = (verdict.left_over, verdict.is_open) if verdict is not None else (None, None)
            shares.observe(self.retrieval.table, sequence.repetition, root, token_ids, left_over, is_open)


def groups_of(sequences: Many[Sequence]) -> list[tuple[TreeConfig, list[Sequence]]]:
    """The sequences by their trees' config, those with automatic budgets together and last: what others take of a pass is known to them."""
    groups: dict[TreeConfig, list[Sequence]] = {}
    for sequence in sequences:
        config = AUTOMATIC if sequence.tree.budget == "auto" else sequence.tree
        groups.setdefault(PLAIN if sequence.distrusts_guesses else config, []).append(sequence)
    return sorted(groups.items(), key=lambda group: group[0].budget == "auto")


def within_reach(part: Part) -> Part:
    """The part without rows that the sequence's store cannot let attend as if they were decoded alone."""
    max_depth = part.sequence.store.max_depth
    return part if part.tree is None or max_depth is None else part._replace(tree=part.tree.within_depth(max_depth))


def plain_parts(sequences: Many[Sequence]) -> list[Part]:
    return [Part(sequence, DraftTree.single(sequence.bonus_token_id)) for sequence in sequences]


def is_published(config: TreeConfig) -> bool:
    """Whether a config asks for DDTree as published, with nothing added."""
    return not (config.calibration or config.coupling or config.retrieval) and config.budget != "auto"


def is_coupled(sequence: Sequence) -> bool:
    return sequence.tree.coupling and not sequence.params.is_greedy


def calibration_key(sequence: Sequence) -> tuple[float, bool]:
    return sequence.params.temperature, is_coupled(sequence)
