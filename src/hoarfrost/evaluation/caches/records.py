"""What a cache answered to one prompt, and the journal of such answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hoarfrost.evaluation.caches.growth import Growth, GrowthMeter
from hoarfrost.evaluation.caches.variants import FULL, CacheVariant
from hoarfrost.evaluation.common.journal import Kind, OutcomeJournal


@dataclass(frozen=True)
class AnswerRecord:
    """One prompt answered with one cache. `budget` is `None` for the full cache, `agrees` where the full cache was not run.

    `length` is the task's nominal length in tokens, or the prompt's own where it has none; `depth` is where the fact asked for stands,
    from 0 (first) to 1, where that is one place; `score` lies between 0 and 1; `agrees`: the same tokens as with the full cache.
    `growth`: what the cache did while it decoded, where that was measured and rows left its window.
    """

    task: str
    prompt_id: str
    length: int
    cache: str
    budget: int | None
    depth: float | None
    expected: list[str]
    answer: str
    score: float
    agrees: bool | None
    growth: Growth | None = None


@dataclass(frozen=True)
class AnswerOutcome:
    """The answers of all caches to one prompt."""

    set: str
    prompt_id: str
    records: list[AnswerRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, line: str) -> AnswerOutcome:
        fields = json.loads(line)
        records = []
        for record in fields["records"]:
            growth = record["growth"]
            records.append(AnswerRecord(**{**record, "growth": None if growth is None else Growth(**growth)}))
        return cls(**{**fields, "records": records})


class AnswerJournal(OutcomeJournal[AnswerOutcome]):
    outcome_type = AnswerOutcome


def make_outcome(
    task: str,
    prompt_id: str,
    answers: Mapping[CacheVariant, tuple[Sequence[int], str, float]],
    meter: GrowthMeter | None = None,
    **about: Any,
) -> AnswerOutcome:
    """From the token ids, the text and the score per variant; `about` is what the records share besides (length, depth, expected).

    `meter` is what the answers were decoded with, where growth was measured.
    """
    full = answers.get(CacheVariant(FULL))
    records = [
        AnswerRecord(
            task=task,
            prompt_id=prompt_id,
            cache=variant.cache,
            budget=variant.budget,
            answer=text,
            score=score,
            agrees=None if full is None else list(token_ids) == list(full[0]),
            growth=None if meter is None else meter.growth(variant),
            **about,
        )
        for variant, (token_ids, text, score) in answers.items()
    ]
    return AnswerOutcome(task, prompt_id, records)


def run_planned(
    planned: Iterable[tuple[str, str, Callable[[], Kind]]], journal: OutcomeJournal[Kind], on_sample: Callable[[str], None] | None
) -> list[Kind]:
    """Measures every prompt (its set, its id, how to measure it) that `journal` does not hold; `on_sample` is told the set of each."""
    outcomes = []
    for set_name, prompt_id, measure in planned:
        outcome = journal.find(set_name, prompt_id)
        if outcome is None:
            outcome = measure()
            journal.add(outcome)
        outcomes.append(outcome)
        if on_sample:
            on_sample(set_name)
    return outcomes
