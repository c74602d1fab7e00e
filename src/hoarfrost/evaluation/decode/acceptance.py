"""Why a drafter's acceptance is what it is: each round's guesses against what the answer came to say, per depth.

Judged by the rounds of `bench decode`'s tree in which the drafter was asked. What a round's walk tells (was the right token in the tree,
and where) ends at its first miss; what the slots are worth is told by the answer, which goes on behind it, and so compares with how a
drafter is judged in training: every slot against the true text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hoarfrost.drafting import DFlashDrafter
from hoarfrost.evaluation.common.journal import Outcome
from hoarfrost.evaluation.decode.benchmark import DecodeBenchmark, DecodeSettings, Variant
from hoarfrost.evaluation.decode.records import DecodeRecord
from hoarfrost.tree.calibration import NUM_OBSERVED

if TYPE_CHECKING:
    from hoarfrost.engine import Engine
    from hoarfrost.engine.plan import Part
    from hoarfrost.evaluation.prompts.sets import Prompt
    from hoarfrost.kernels import Verdict
    from hoarfrost.tree import Candidates

COUNTS = ("judged", "among", "guessable", "guessed", "likeliest", "reached", "spine", "off_spine", "retrieved", "near_misses")


class Acceptance:
    """Counts of one variant's rounds.

    Per depth, of the rounds that the drafter was asked in: `judged`, those whose answer goes on so far; `among`, the right token was a
    candidate of that slot; `guessable`, it is in the drafter's vocabulary `token_ids` (None: all are); `guessed`, the drafter has
    candidates behind the tokens before; `likeliest`, the right one was the first of these. Then, of the same, what the tree came to:
    `reached`, all tokens before were in it; `spine`, `off_spine`, `retrieved`: so was the right one, as the drafter's likeliest there, as
    another candidate of its, or as none of them; `near_misses`: it was among the best few, and not in the tree.
    """

    def __init__(self, horizon: int, token_ids: NDArray[np.int64] | None) -> None:
        self.depths = np.zeros((horizon, len(COUNTS)), np.int64)
        self.num_drafted = self.num_nodes = self.num_accepted = 0
        self._vocabulary = None if token_ids is None else frozenset(token_ids.tolist())
        self._noted: list[tuple[Part, list[int], int]] = []

    def note(self, part: Part, token_ids: list[int]) -> None:
        """Takes a round whose tokens its sequence has taken in; what the answer says behind them will be known when `settle` is called."""
        self._noted.append((part, token_ids, len(part.sequence.token_ids)))

    def settle(self) -> None:
        """Counts what was noted."""
        for part, token_ids, behind in self._noted:
            self.num_accepted += len(token_ids) - 1
            if part.choice.way == "drafted" and part.tree is not None and part.candidates is not None:
                self.num_drafted += 1
                self.num_nodes += part.tree.num_rows - 1
                self._count(part.candidates, token_ids + part.sequence.token_ids[behind:], len(token_ids))
        self._noted.clear()

    def _count(self, candidates: Candidates, right: Sequence[int], num_visited: int) -> None:
        """Judges by the `right` tokens from depth 1 on, the first `num_visited` of which the walk chose; all but the last of these were in
        the tree."""
        predecessor = 0
        for depth, token_id in enumerate(right[: candidates.horizon]):
            is_reached, is_accepted = depth < num_visited, depth < num_visited - 1
            rank = rank_of(candidates, depth, predecessor, token_id)
            slot = candidates.token_ids[depth][np.isfinite(candidates.log_probs[depth])]
            self.depths[depth] += (
                True,
                token_id in slot,
                self._vocabulary is None or token_id in self._vocabulary,
                predecessor >= 0,
                rank == 0,
                is_reached,
                is_accepted and rank == 0,
                is_accepted and rank is not None and rank > 0,
                is_accepted and rank is None,
                is_reached and not is_accepted and rank is not None and rank < NUM_OBSERVED,
            )
            if candidates.places is not None:
                predecessor = -1 if rank is None else int(candidates.places[depth, predecessor, rank])

    def record(self, temperature: float, records: Sequence[DecodeRecord]) -> dict[str, Any]:
        """As JSON values. `records` are the answers of the variant and of the chain; tau counts all of their rounds, and nothing cut at a
        stop. `deepest`: the last depth at which either accepted a guess of the drafter."""
        by_depth = [{"depth": depth, **dict(zip(COUNTS, row, strict=True))} for depth, row in enumerate(self.depths.tolist(), start=1)]
        answers = {mode: [one for one in records if one.mode == mode and one.temperature == temperature] for mode in ("chain", "tree")}
        num_from_drafter = sum(row["spine"] + row["off_spine"] for row in by_depth)
        longest = max((len(one.accepted_histogram) for one in answers["chain"]), default=0)
        return {
            "temperature": temperature,
            "chain_tau": tokens_per_round(answers["chain"]),
            "tree_tau": tokens_per_round(answers["tree"]),
            "num_rounds": sum(one.rounds for one in answers["tree"]),
            "num_drafted": self.num_drafted,
            "num_nodes": self.num_nodes,
            "num_from_drafter": num_from_drafter,
            "num_from_retrieval": self.num_accepted - num_from_drafter,
            "deepest": max([longest - 2, 0, *(row["depth"] for row in by_depth if row["spine"] + row["off_spine"])]),
            "depths": by_depth,
        }


def rank_of(candidates: Candidates, depth: int, predecessor: int, token_id: int) -> int | None:
    """The place of a token among the candidates behind a predecessor (negative: there are none), None where it is not there."""
    if predecessor < 0:
        return None
    matches = candidates.token_ids[depth, predecessor] == token_id
    found = np.flatnonzero(matches & np.isfinite(candidates.log_probs[depth, predecessor]))
    return int(found[0]) if len(found) else None


def tokens_per_round(records: Sequence[DecodeRecord]) -> float:
    """Over all rounds, as their walks ended: longer answers count more than in the mean over answers."""
    num_tokens = sum(length * count for one in records for length, count in enumerate(one.accepted_histogram))
    return num_tokens / max(1, sum(one.rounds for one in records))


class DrafterInspection(DecodeBenchmark):
    """Decodes as a chain and as a tree of one budget. The result is that of the benchmark, with `acceptance`, a record per temperature."""

    def __init__(self, engine: Engine, settings: DecodeSettings, prompts: Sequence[Prompt]) -> None:
        super().__init__(engine, settings, prompts)
        assert engine.drafter is not None  # the chain was refused without one
        token_ids = engine.drafter.token_ids if isinstance(engine.drafter, DFlashDrafter) else None
        self.acceptance = {temperature: Acceptance(engine.drafter.horizon, token_ids) for temperature in settings.temperatures}

    def watch(self, variant: Variant, part: Part, token_ids: list[int], verdict: Verdict | None) -> None:
        super().watch(variant, part, token_ids, verdict)
        self.acceptance[variant.temperature].note(part, token_ids)

    def decode_prompt(self, prompt: Prompt, index: int) -> Outcome[DecodeRecord]:
        outcome = super().decode_prompt(prompt, index)
        for acceptance in self.acceptance.values():
            acceptance.settle()
        return outcome

    def describe(self) -> dict[str, Any]:
        header = super().describe()
        drafter = self.engine.drafter
        size = len(drafter.token_ids) if isinstance(drafter, DFlashDrafter) and drafter.token_ids is not None else None
        sizes = {"draft_vocab_size": size, "vocab_size": self.engine.target.vocab_size}
        return {**header, "settings": {**header["settings"], **sizes}}

    def result(self, header: Mapping[str, Any], outcomes: Sequence[Outcome[DecodeRecord]]) -> dict[str, Any]:
        records = [record for outcome in outcomes for record in outcome.records]
        acceptance = [one.record(temperature, records) for temperature, one in self.acceptance.items()]
        return {**super().result(header, outcomes), "acceptance": acceptance}
