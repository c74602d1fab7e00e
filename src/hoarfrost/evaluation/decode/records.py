"""The figures of one prompt in one mode, and what they sum up to per set, mode, budget and temperature.

Speed-up is over plain decoding, on the prompts that both decoded in the same run (`speed_ratio` says how); tau is the mean over responses
of each response's mean (the protocol of the DDTree paper, arXiv 2604.12989, section 5). Answers of one token have no round and are left out
of the rates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hoarfrost.evaluation.common.intervals import speed_ratio

Group = tuple[str, float, str, int | str]


@dataclass(frozen=True)
class DecodeRecord:
    """One prompt decoded in one mode. Times leave out prefill and what belongs to the first token; `tau` counts the bonus token.

    `budget` is 0 for plain decoding, the horizon for the chain, a number of nodes or "auto" for trees.
    `stage_ms` is per round. `first_difference` is the index of the first token that is not plain decoding's, where `agrees` is false;
    `agrees` is `None` where plain decoding was not run.
    """

    set: str
    prompt_id: str
    mode: str
    budget: int | str
    temperature: float
    tokens: int
    seconds: float
    rounds: int
    tau: float
    stage_ms: dict[str, float]
    tokens_per_second: float
    ms_per_round: float
    prompt_tokens: int
    prefill_seconds: float
    finish_reason: str
    accepted_histogram: list[int]
    agrees: bool | None
    first_difference: int | None


@dataclass(frozen=True)
class DecodeSummary:
    """The figures of one mode on one set; `speedup` and what belongs to it are `None` where plain decoding was not run.

    `speedup_interval` and `pair_speedup_quartiles` are its spread, as in `SpeedRatio`. `flip_rate` is differing
    answers per token compared: after its first difference an answer is not compared any further.
    """

    set: str
    mode: str
    budget: int | str
    temperature: float
    num_answers: int
    tokens: int
    tokens_per_second: float
    tau: float
    ms_per_round: float
    stage_ms: dict[str, float]
    speedup: float | None
    speedup_interval: tuple[float, float] | None
    pair_speedup_quartiles: tuple[float, float, float] | None
    num_compared: int
    num_differing: int
    flip_rate: float | None
    finish_reasons: dict[str, int]


def summarise(records: Iterable[DecodeRecord]) -> list[DecodeSummary]:
    """Returns the summaries in the order in which their first records come."""
    groups: dict[Group, list[DecodeRecord]] = {}
    for record in records:
        groups.setdefault((record.set, record.temperature, record.mode, record.budget), []).append(record)
    summaries = []
    for (set_name, temperature, _, _), group in groups.items():
        summaries.append(_summarise_group(group, groups.get((set_name, temperature, "ar", 0), [])))
    return summaries


def _summarise_group(group: Sequence[DecodeRecord], plain: Sequence[DecodeRecord]) -> DecodeSummary:
    first, timed = group[0], [record for record in group if record.rounds]
    num_rounds = sum(record.rounds for record in timed)
    compared = [record for record in group if record.agrees is not None]
    differing = [record for record in compared if not record.agrees]
    num_compared_tokens = sum(record.tokens if record.agrees else (record.first_difference or 0) + 1 for record in compared)
    return DecodeSummary(
        set=first.set,
        mode=first.mode,
        budget=first.budget,
        temperature=first.temperature,
        num_answers=len(group),
        tokens=sum(record.tokens for record in group),
        tokens_per_second=1 / float(np.mean([1 / record.tokens_per_second for record in timed])) if timed else 0.0,
        tau=float(np.mean([record.tau for record in timed])) if timed else 0.0,
        ms_per_round=1000 * sum(record.seconds for record in timed) / num_rounds if timed else 0.0,
        stage_ms=_mean_stages(timed),
        **_compare_speed(timed, plain),
        num_compared=len(compared),
        num_differing=len(differing),
        flip_rate=len(differing) / num_compared_tokens if num_compared_tokens else None,
        finish_reasons=dict(Counter(record.finish_reason for record in group)),
    )


def _mean_stages(timed: Sequence[DecodeRecord]) -> dict[str, float]:
    """Milliseconds per round of each stage, over all rounds of the group."""
    totals: Counter[str] = Counter()
    for record in timed:
        for stage, milliseconds in record.stage_ms.items():
            totals[stage] += milliseconds * record.rounds  # type: ignore[assignment]
    num_rounds = sum(record.rounds for record in timed)
    return {stage: total / num_rounds for stage, total in totals.items()}


def _compare_speed(timed: Sequence[DecodeRecord], plain: Sequence[DecodeRecord]) -> dict[str, Any]:
    """The speed-up over plain decoding and its spread, over the answers that both gave."""
    plain_rates = {record.prompt_id: record.tokens_per_second for record in plain if record.rounds}
    pairs = [(1 / plain_rates[record.prompt_id], 1 / record.tokens_per_second) for record in timed if record.prompt_id in plain_rates]
    compared = speed_ratio(pairs)
    return {
        "speedup": compared and compared.ratio,
        "speedup_interval": compared and compared.interval,
        "pair_speedup_quartiles": compared and compared.quartiles,
    }
