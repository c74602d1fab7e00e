"""What a cache did to the predictions on one long text, and the figures over several."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hoarfrost.evaluation.caches.watch import Selection
from hoarfrost.evaluation.common.journal import OutcomeJournal

NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class LossRecord:
    """One text with one cache: means over its decoded tokens.

    `loss`: nats per token; `kl`: divergence of the prediction from the full cache's, in nats; `top1`: share of the tokens where both find
    the same one likeliest; `kl_parts`: `kl` over equal stretches from the first decoded tokens to the last; `selection`: see `cache_watch`,
    `None` where the store does not say what it read.
    """

    texts: str
    prompt_id: str
    context: int
    cache: str
    budget: int | None
    num_tokens: int
    loss: float
    kl: float
    top1: float
    kl_parts: list[float]
    selection: Selection | None


@dataclass(frozen=True)
class LossOutcome:
    """One text with all caches, and its loss with the full one."""

    set: str
    prompt_id: str
    full_loss: float
    records: list[LossRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, line: str) -> LossOutcome:
        fields = json.loads(line)
        records = []
        for record in fields["records"]:
            selection = record["selection"]
            records.append(LossRecord(**{**record, "selection": None if selection is None else Selection(**selection)}))
        return cls(**{**fields, "records": records})


class LossJournal(OutcomeJournal[LossOutcome]):
    outcome_type = LossOutcome


@dataclass(frozen=True)
class LossSummary:
    """One cache over the texts of a source and context. `added_loss` is over the full cache's, `added_interval` its 95 % over texts.

    `mass`, `best_mass` and `recall` are means over layers and heads, `None` where the store does not say what it read.
    """

    texts: str
    context: int
    cache: str
    budget: int | None
    count: int
    num_tokens: int
    loss: float
    added_loss: float
    added_interval: tuple[float, float]
    kl: float
    top1: float
    kl_parts: list[float]
    mass: float | None
    best_mass: float | None
    recall: float | None


def summarise_loss(outcomes: Iterable[LossOutcome]) -> list[LossSummary]:
    """A summary per source, context, cache and budget, in the order in which their first records come."""
    groups: dict[tuple[str, int, str, int | None], list[tuple[LossRecord, float]]] = {}
    for outcome in outcomes:
        for record in outcome.records:
            key = (record.texts, record.context, record.cache, record.budget)
            groups.setdefault(key, []).append((record, outcome.full_loss))
    return [_summarise(group) for group in groups.values()]


def _summarise(group: Sequence[tuple[LossRecord, float]]) -> LossSummary:
    records = [record for record, _ in group]
    first = records[0]
    added = np.asarray([record.loss - full_loss for record, full_loss in group])
    return LossSummary(
        texts=first.texts,
        context=first.context,
        cache=first.cache,
        budget=first.budget,
        count=len(records),
        num_tokens=sum(record.num_tokens for record in records),
        loss=_mean(records, lambda record: record.loss),
        added_loss=float(added.mean()),
        added_interval=_bootstrap_interval(added),
        kl=_mean(records, lambda record: record.kl),
        top1=_mean(records, lambda record: record.top1),
        kl_parts=np.mean([record.kl_parts for record in records], axis=0).tolist(),
        mass=_mean_of_heads(records, lambda selection: selection.mass),
        best_mass=_mean_of_heads(records, lambda selection: selection.best_mass),
        recall=_mean_of_heads(records, lambda selection: selection.recall),
    )


def _mean(records: Sequence[LossRecord], value: Callable[[LossRecord], float]) -> float:
    return float(np.mean([value(record) for record in records]))


def _mean_of_heads(records: Sequence[LossRecord], value: Callable[[Selection], list[list[float]]]) -> float | None:
    seen = [value(record.selection) for record in records if record.selection is not None]
    return float(np.mean(seen)) if seen else None


def _bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of the mean when texts are drawn with replacement."""
    draws = np.random.default_rng(0).integers(0, len(values), (NUM_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
