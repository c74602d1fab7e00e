"""What caches answered to prompts, and the accuracy of it per task, length, cache and budget, with its interval, and the mean over tasks.

The interval is Wilson's at 95 %, which holds for shares and is on the safe side for partial scores. `retained` is the accuracy over that of
the full cache on the same samples; `agreement` the share of answers that are the full cache's, token for token.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hoarfrost.evaluation.caches.runner import Growth, GrowthMeter
from hoarfrost.evaluation.caches.variants import FULL, CacheVariant
from hoarfrost.evaluation.common.intervals import wilson_interval
from hoarfrost.evaluation.common.journal import Outcome

AVERAGE = "average"

Variant = tuple[str, int | None]


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


def make_outcome(
    task: str,
    prompt_id: str,
    answers: Mapping[CacheVariant, Sequence[int]],
    tokenizer: Any,
    score: Callable[[str], float],
    meter: GrowthMeter | None = None,
    **about: Any,
) -> Outcome[AnswerRecord]:
    """From the token ids per variant; `about` is what the records share besides (length, depth, expected).

    `meter` is what the answers were decoded with, where growth was measured.
    """
    full = answers.get(CacheVariant(FULL))
    records = []
    for variant, token_ids in answers.items():
        text = tokenizer.decode(token_ids, skip_special_tokens=True)
        records.append(
            AnswerRecord(
                task=task,
                prompt_id=prompt_id,
                cache=variant.cache,
                budget=variant.budget,
                answer=text,
                score=score(text),
                agrees=None if full is None else list(token_ids) == list(full),
                growth=None if meter is None else meter.growth(variant),
                **about,
            )
        )
    return Outcome(task, prompt_id, records)


@dataclass(frozen=True)
class AccuracySummary:
    """One cache with one budget (`None`: all rows) on one task; the task `average` is the mean over the tasks.

    `length` is the mean of the records', which are all alike where the summary is by length. Where growth was measured: the mean fill of
    pages in the end, the median of the medians of insertions, and the slowest of all.
    """

    task: str
    length: int
    cache: str
    budget: int | None
    accuracy: float
    count: int
    interval: tuple[float, float]
    retained: float | None
    agreement: float | None
    page_fill: float | None
    insert_ms: float | None
    insert_max_ms: float | None


def summarise(records: Iterable[AnswerRecord], *, by_length: bool = True) -> list[AccuracySummary]:
    """A summary per group, in the order in which their first records come; the averages follow the tasks that they are over.

    `by_length=False` throws all lengths of a task together, for tasks whose prompts are as long as they happen to be.
    """
    groups: dict[tuple[int, str], dict[Variant, list[AnswerRecord]]] = {}
    for record in records:
        key = (record.length if by_length else 0, record.task)
        groups.setdefault(key, {}).setdefault((record.cache, record.budget), []).append(record)
    summaries: list[AccuracySummary] = []
    for length in dict.fromkeys(length for length, _ in groups):
        tasks = {task: group for (of_length, task), group in groups.items() if of_length == length}
        for task, variants in tasks.items():
            summaries.extend(_summarise(task, [group], variants) for group in variants.values())
        if len(tasks) > 1:
            summaries.extend(_averages(list(tasks.values())))
    return summaries


def _averages(tasks: Sequence[dict[Variant, list[AnswerRecord]]]) -> list[AccuracySummary]:
    """The mean over the tasks, for each variant that answered all of them."""
    shared = [variant for variant in tasks[0] if all(variant in task for task in tasks)]
    merged = {variant: [record for task in tasks for record in task[variant]] for variant in shared}
    return [_summarise(AVERAGE, [task[variant] for task in tasks], merged) for variant in shared]


def _summarise(task: str, parts: Sequence[Sequence[AnswerRecord]], variants: dict[Variant, list[AnswerRecord]]) -> AccuracySummary:
    """The mean of the parts' means; `variants` holds the full cache's answers to the same samples, if any."""
    first = parts[0][0]
    count = sum(map(len, parts))
    accuracy = _mean_of_means([[record.score for record in part] for part in parts])
    compared = [record.agrees for part in parts for record in part if record.agrees is not None]
    full_scores: dict[str, list[float]] = {}
    for record in variants.get((FULL, None), []):
        full_scores.setdefault(record.task, []).append(record.score)
    grown = [record.growth for part in parts for record in part if record.growth is not None]
    full = _mean_of_means(list(full_scores.values())) if full_scores else 0.0
    return AccuracySummary(
        task=task,
        length=round(sum(record.length for part in parts for record in part) / count),
        cache=first.cache,
        budget=first.budget,
        accuracy=accuracy,
        count=count,
        interval=wilson_interval(accuracy, count),
        retained=accuracy / full if full else None,
        agreement=sum(compared) / len(compared) if compared else None,
        page_fill=statistics.fmean(one.page_fill for one in grown) if grown else None,
        insert_ms=statistics.median(one.insert_ms for one in grown) if grown else None,
        insert_max_ms=max((one.insert_max_ms for one in grown), default=None),
    )


def _mean_of_means(parts: Sequence[Sequence[float]]) -> float:
    return sum(sum(part) / len(part) for part in parts) / len(parts)
