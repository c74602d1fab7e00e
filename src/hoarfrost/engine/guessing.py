"""From sequences to the trees of a round, and from how these fared to better ones.

    draft -> candidates -> couple (above temperature 0) -> grow under calibration, with retrieved guesses -> allocate (budget "auto")

A `Guesser` lives as long as its engine and is shared by all requests: what it has learnt (calibration, shares of the retrieval sources,
successors of tokens) only moves guesses, never a token.

Under budget "auto" a round drafts, or retrieves alone, or decodes plainly, whichever has promised most tokens per second lately; the other
ways are tried again after one round, then two, four ... up to `MAX_PAUSE`. The drafter's context is brought up to date when it is asked
next, in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import native
from hoarfrost.drafting import Drafter
from hoarfrost.drafting.retrieval import NUM_SUCCESSORS, Repetition, Retrieval
from hoarfrost.engine.costs import CostModel, load_costs
from hoarfrost.engine.sequence import Sequence
from hoarfrost.engine.statistics import StageClock
from hoarfrost.sampling.coupling import NUM_COUPLED, couple
from hoarfrost.target import Target
from hoarfrost.tree import (
    MAX_BUDGET,
    Calibration,
    Candidates,
    DraftTree,
    GrownTree,
    Marginals,
    Transitions,
    TreeConfig,
    Walk,
    allocate,
    build_trees,
    candidates_of,
    grow_trees,
    top_of,
)
from hoarfrost.tree.calibration import NUM_OBSERVED

Way = Literal["draft", "retrieve", "plain"]
"""How a round is decoded: with the drafter (and retrieval), with retrieval alone, with no guesses."""

MAX_PAUSE = 16
NUM_CANDIDATES = 64
"""Candidates per depth where the budget chooses itself: a node of rank r needs r better siblings, and no such tree goes that wide."""
MAX_RETRIEVED_DEPTH = 32
HOST_MS, PLAIN_HOST_MS = 0.8, 0.1
"""What a round costs beside the passes of the models: building, walking, learning, text; and a plain one."""
NUM_FIRST_TRIES: dict[Way, int] = {"draft": 4, "retrieve": 32, "plain": 1}
"""Rounds of each way before they are compared: what retrieval promises has to be learnt first."""
PACE_STEP = 0.1
"""How fast an opinion of whether drafting pays follows what the last round promised."""


Watch = Callable[[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.intp], NDArray[np.intp]], None]
"""Is told of the guesses below m visited rows: probabilities `[m, k]` as drafted and as believed, hits, the rows' depths, off the spine."""


@dataclass(frozen=True, eq=False)
class Guess:
    """The tree for one sequence, and what it was made of: the candidates as they were believed, and the repetition found in the text."""

    tree: DraftTree
    candidates: Candidates | None = None
    path: NDArray[np.int64] | None = None
    num_matched: int = 0


class Guesser:
    """Makes trees for the sequences of one engine; `drafter` may be None, then only retrieval guesses.

    `watch`, if set, is told of every guess that was put to the test.
    """

    def __init__(self, target: Target, drafter: Drafter | None) -> None:
        self.target, self.drafter = target, drafter
        self.watch: Watch | None = None
        self._calibrations: dict[tuple[float, bool], Calibration] = {}
        self._pace = Pace()

    @cached_property
    def retrieval(self) -> Retrieval:
        return Retrieval(self.target.vocab_size)

    @cached_property
    def costs(self) -> CostModel:
        return load_costs(self.target, self.drafter)

    def calibration(self, temperature: float, coupled: bool) -> Calibration:
        """What is known of the drafter at a temperature, with coupled candidates or not."""
        key = temperature, coupled
        if key not in self._calibrations:
            self._calibrations[key] = Calibration(self.drafter.horizon if self.drafter is not None else 1)
        return self._calibrations[key]

    def guess(self, sequences: Many[Sequence], config: TreeConfig, clock: StageClock) -> list[Guess]:
        """The trees of one round."""
        if config.budget == 0:
            return [Guess(DraftTree.single(sequence.bonus_token_id)) for sequence in sequences]
        way: Way = "draft" if config.budget != "auto" else self._pace.choose(self._ways(config))
        if way == "plain":
            self._pace.note(way, 1 / (PLAIN_HOST_MS + self._row_ms(sequences)[len(sequences) - 1]))
            return [Guess(DraftTree.single(sequence.bonus_token_id)) for sequence in sequences]
        drafted = self._draft(sequences) if way == "draft" else None
        clock.lap("draft")
        if drafted is not None and is_published(config) and all(isinstance(one, Marginals) for one in drafted):
            guesses = [Guess(tree) for tree in self._build(sequences, drafted, config)]
        else:
            guesses = self._grow(sequences, drafted, config)
        clock.lap("build")
        return guesses

    def _ways(self, config: TreeConfig) -> list[Way]:
        """The ways in which a round can be decoded."""
        possible: dict[Way, bool] = {"draft": self.drafter is not None, "retrieve": config.retrieval, "plain": True}
        return [way for way, is_possible in possible.items() if is_possible]

    def _draft(self, sequences: Many[Sequence]) -> list[Marginals | Transitions] | None:
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
    def _build(sequences: Many[Sequence], drafted: Many[Marginals | Transitions], config: TreeConfig) -> list[DraftTree]:
        """The published trees. A token past the last one that may be emitted need not be guessed."""
        useful = [
            Marginals(one.logits[: sequence.num_remaining - 1])
            for one, sequence in zip(drafted, sequences, strict=True)
            if isinstance(one, Marginals)
        ]
        assert isinstance(config.budget, int)
        return build_trees(useful, [sequence.bonus_token_id for sequence in sequences], config.budget, config.max_width)

    def _grow(self, sequences: Many[Sequence], drafted: Many[Marginals | Transitions] | None, config: TreeConfig) -> list[Guess]:
        candidates = self._candidates(sequences, drafted, config)
        paths = [self._repeated(sequence) if config.retrieval else (np.empty(0, np.int64), 0) for sequence in sequences]
        row_ms = self._row_ms(sequences) if config.budget == "auto" else None
        budget = min(MAX_BUDGET, len(row_ms) - len(sequences)) if row_ms is not None else int(config.budget)
        grown: list[GrownTree] = [GrownTree(DraftTree.single(sequence.bonus_token_id), np.zeros(1, np.float32)) for sequence in sequences]
        if budget > 0:
            for key, members in self._by_calibration(sequences, config).items():
                hints = self._hints([sequences[index] for index in members], [paths[index] for index in members], key, config)
                roots = [sequences[index].bonus_token_id for index in members]
                trees = grow_trees([candidates[index] for index in members], roots, budget, hints)
                for index, tree in zip(members, trees, strict=True):
                    grown[index] = tree
        trees_kept = self._allocate(grown, row_ms, drafted is not None) if row_ms is not None else [one.tree for one in grown]
        return [Guess(tree, one, *path) for tree, one, path in zip(trees_kept, candidates, paths, strict=True)]

    def _candidates(self, sequences: Many[Sequence], drafted: Many[Marginals | Transitions] | None, config: TreeConfig) -> list[Candidates]:
        if drafted is None:
            return [Candidates.none()] * len(sequences)
        coupled = [is_coupled(sequence, config) for sequence in sequences]
        drafted = [over_the_vocabulary(one) if is_noisy else one for one, is_noisy in zip(drafted, coupled, strict=True)]
        wanted = NUM_CANDIDATES if config.budget == "auto" else int(config.budget)
        result = []
        for one, sequence, is_noisy in zip(
            candidates_of(drafted, max(wanted, NUM_COUPLED) if any(coupled) else wanted), sequences, coupled, strict=True
        ):
            useful = one.within(sequence.num_remaining - 1, None)
            if is_noisy and useful.horizon:
                useful = useful.reranked(*couple(useful.log_probs, useful.token_ids, sequence.params, sequence.store.length + 1))
            result.append(useful.within(useful.horizon, min(wanted, config.max_width or wanted)))
        return result

    @staticmethod
    def _repeated(sequence: Sequence) -> tuple[NDArray[np.int64], int]:
        """Where the text may go on as it did before; the sequence's index takes in what was emitted since the last round."""
        if sequence.repetition is None:
            sequence.repetition = Repetition()
        sequence.repetition.extend(sequence.tokens_from(len(sequence.repetition)))
        return sequence.repetition.path()

    @staticmethod
    def _by_calibration(sequences: Many[Sequence], config: TreeConfig) -> dict[tuple[float, bool], list[int]]:
        groups: dict[tuple[float, bool], list[int]] = {}
        for index, sequence in enumerate(sequences):
            groups.setdefault(calibration_key(sequence, config), []).append(index)
        return groups

    def _hints(
        self, sequences: Many[Sequence], paths: Many[tuple[NDArray[np.int64], int]], key: tuple[float, bool], config: TreeConfig
    ) -> native.TreeHints:
        calibration = self.calibration(*key).parameters if config.calibration else None
        if not config.retrieval:
            return native.TreeHints(calibration)
        return native.TreeHints(
            calibration,
            [path for path, _ in paths],
            [self.retrieval.path_shares(matched, len(path)) for path, matched in paths],
            self.retrieval.successors,
            self.retrieval.successor_shares,
            [max(0, min(MAX_RETRIEVED_DEPTH, sequence.num_remaining - 1)) for sequence in sequences],
        )

    def _row_ms(self, sequences: Many[Sequence]) -> NDArray[np.float64]:
        context = sum(sequence.store.length for sequence in sequences) / len(sequences)
        return self.costs.row_ms(context)

    def _allocate(self, grown: Many[GrownTree], row_ms: NDArray[np.float64], has_drafted: bool) -> list[DraftTree]:
        """The part of each tree that is worth its rows; takes note of what the round promises."""
        num_trees = len(grown)
        if len(row_ms) <= num_trees:
            return [one.first(0) for one in grown]
        draft_ms = self.costs.draft_time_ms(num_trees) if has_drafted else 0.0
        allocation = allocate([one.log_probs for one in grown], row_ms, HOST_MS + draft_ms)
        self._pace.note("draft" if has_drafted else "retrieve", allocation.tokens_per_ms / num_trees)
        return [one.first(num_nodes) for one, num_nodes in zip(grown, allocation.num_nodes, strict=True)]

    def learn(self, sequences: Many[Sequence], guesses: Many[Guess], walks: Many[Walk], logits: Tensor, config: TreeConfig) -> None:
        """Takes in what the target chose: `walks[i]` through `guesses[i].tree`; `logits [sum of rows, V]` of all trees' rows."""
        for sequence, guess, walked in zip(sequences, guesses, walks, strict=True):
            if guess.candidates is not None:
                self._observe(calibration_key(sequence, config), guess, walked, config)
        if config.retrieval and any(guess.candidates is not None for guess in guesses):
            rows = np.concatenate([guess.tree.token_ids for guess in guesses])
            best = top_of([Marginals(logits)], NUM_SUCCESSORS)[1][0]
            self.retrieval.remember(rows, best)

    def _observe(self, key: tuple[float, bool], guess: Guess, walked: Walk, config: TreeConfig) -> None:
        assert guess.candidates is not None
        chosen = np.array(walked.token_ids, np.int64)
        left_over, is_open = np.ones(len(chosen)), np.ones(len(chosen), np.bool_)
        if guess.candidates.horizon:
            log_probs, token_ids, on_spine = guess.candidates.along(chosen[:-1], NUM_OBSERVED)
            num_rows = len(log_probs)
            hits = token_ids == chosen[:num_rows, None]
            depths, off_spine = np.arange(num_rows), (~on_spine).astype(np.intp)
            believed = drafted = np.exp(log_probs.astype(np.float64))
            if config.calibration:
                believed = self.calibration(*key).observe(log_probs, hits, depths, off_spine)
            left_over[:num_rows] -= np.minimum(believed.sum(1), 1.0)
            is_open[:num_rows] = ~hits.any(1)
            if self.watch is not None:
                self.watch(drafted, believed, hits, depths, off_spine)
        if config.retrieval and guess.path is not None:
            row_tokens = np.concatenate((guess.tree.token_ids[:1], chosen[:-1]))
            self.retrieval.observe(row_tokens, chosen, left_over, is_open, guess.path, guess.num_matched)


class Pace:
    """Which way to decode a round, from what rounds of each way have promised per sequence, in tokens per millisecond."""

    def __init__(self) -> None:
        self._promised: dict[Way, float] = {}
        self._num_tries = dict.fromkeys(NUM_FIRST_TRIES, 0)
        self._wait, self._rest, self._num_probes = 1, 1, 0

    def choose(self, ways: Many[Way]) -> Way:
        """The way for this round: the best so far, or one whose turn it is to be tried again."""
        for way in ways:
            if self._num_tries[way] < NUM_FIRST_TRIES[way]:
                return way
        best = max(ways, key=self._promised.__getitem__)
        others = [way for way in ways if way != best]
        self._rest -= 1
        if self._rest > 0 or not others:
            return best
        self._wait = min(MAX_PAUSE, 2 * self._wait)
        self._rest = self._wait
        self._num_probes += 1
        return others[self._num_probes % len(others)]

    def note(self, way: Way, tokens_per_ms: float) -> None:
        """Takes in what a round promises; where that changes which way is best, the others are soon tried again."""
        self._num_tries[way] += 1
        before = max(self._promised, key=self._promised.__getitem__, default=None)
        last = self._promised.get(way, tokens_per_ms)
        self._promised[way] = last + PACE_STEP * (tokens_per_ms - last)
        if before is not None and max(self._promised, key=self._promised.__getitem__) != before:
            self._wait = self._rest = 1


def is_published(config: TreeConfig) -> bool:
    """Whether a config asks for DDTree as published, with nothing added."""
    return not (config.calibration or config.coupling or config.retrieval) and config.budget != "auto"


def is_coupled(sequence: Sequence, config: TreeConfig) -> bool:
    return config.coupling and not sequence.params.is_greedy


def over_the_vocabulary(guess: Marginals | Transitions) -> Marginals | Transitions:
    """What a drafter says of all tokens, rather than of the few whose order it knows."""
    return guess.marginals if isinstance(guess, Transitions) and guess.marginals is not None else guess


def calibration_key(sequence: Sequence, config: TreeConfig) -> tuple[float, bool]:
    return sequence.params.temperature, is_coupled(sequence, config)
