"""What the figures and the paper's table show, taken from a decoding result's JSON; numbers and labels, no drawing.

Every value is for one temperature. "Mean" is the plain mean over the prompt sets, as in the paper, so that a set counts once however many
prompts it has. Only the default tree (mode `tree`) is shown over budgets; further tree modes stand in the tables of `report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from hoarfrost.evaluation.common.tables import Result, Summary
from hoarfrost.evaluation.decode.modes import mode_label

AUTO = "auto"


@dataclass(frozen=True)
class SpeedupBars:
    """Speed-up over plain decoding by set: per label, per set, the value and its 95 % interval."""

    sets: tuple[str, ...]
    bars: dict[str, tuple[tuple[float, float, float] | None, ...]]


@dataclass(frozen=True)
class BudgetCurve:
    """One quantity over fixed budgets, by set and on average; and the averages of chain and automatic budget, where measured."""

    budgets: tuple[int, ...]
    by_set: dict[str, tuple[float, ...]]
    mean: tuple[float, ...]
    chain: float | None
    auto: float | None


@dataclass(frozen=True)
class Histogram:
    """Per label the share of rounds that gave 0, 1, 2, ... tokens, and their mean."""

    shares: dict[str, tuple[float, ...]]
    means: dict[str, float]


@dataclass(frozen=True)
class StageBars:
    """Per label the milliseconds of each stage of a round, and of decoding one token."""

    stages: tuple[str, ...]
    milliseconds: dict[str, tuple[float, ...]]
    per_token: dict[str, float]


def temperatures(result: Result) -> list[float]:
    return sorted({summary["temperature"] for summary in result["summary"]})


def set_names(summaries: Iterable[Summary]) -> tuple[str, ...]:
    """The sets in the order of the result."""
    return tuple(dict.fromkeys(summary["set"] for summary in summaries))


def at_temperature(result: Result, temperature: float) -> list[Summary]:
    return [summary for summary in result["summary"] if summary["temperature"] == temperature]


def best_tree(summaries: Iterable[Summary]) -> Summary | None:
    """Of one set's trees with fixed budgets the fastest, as the paper picks its cells; the automatic budget is no candidate."""
    trees = [one for one in summaries if one["mode"] == "tree" and one["budget"] != AUTO and one["speedup"] is not None]
    return max(trees, key=lambda one: float(one["speedup"]), default=None)


def find(summaries: Iterable[Summary], mode: str, budget: int | str | None = None) -> Summary | None:
    return next((one for one in summaries if one["mode"] == mode and budget in (None, one["budget"])), None)


def speedup_bars(summaries: Sequence[Summary]) -> SpeedupBars | None:
    """The chain, each set's best fixed budget, and the automatic one."""
    picks: dict[str, Callable[[list[Summary]], Summary | None]] = {
        "DFlash chain": lambda group: find(group, "chain"),
        "DDTree, best budget": best_tree,
        "DDTree auto": lambda group: find(group, "tree", AUTO),
    }
    sets = set_names(summaries)
    groups = [[one for one in summaries if one["set"] == name] for name in sets]
    bars = {label: tuple(_with_interval(pick(group)) for group in groups) for label, pick in picks.items()}
    bars = {label: values for label, values in bars.items() if any(values)}
    return SpeedupBars(sets, bars) if bars else None


def budget_curve(summaries: Sequence[Summary], quantity: str) -> BudgetCurve | None:
    """`quantity` ("speedup" or "tau") over the fixed budgets; `None` where fewer than two were measured on every set."""
    values: dict[tuple[str, int | str], dict[str, float]] = {}
    for one in summaries:
        if one[quantity] is not None:
            values.setdefault((one["mode"], one["budget"] if one["mode"] != "chain" else 0), {})[one["set"]] = one[quantity]
    sets = set_names(summaries)
    complete = {key: by_set for key, by_set in values.items() if by_set.keys() == set(sets)}
    budgets = tuple(sorted(budget for mode, budget in complete if mode == "tree" and isinstance(budget, int)))
    if len(budgets) < 2:
        return None
    levels = {key: fmean(by_set.values()) for key, by_set in complete.items()}
    return BudgetCurve(
        budgets=budgets,
        by_set={name: tuple(complete["tree", budget][name] for budget in budgets) for name in sets},
        mean=tuple(levels["tree", budget] for budget in budgets),
        chain=levels.get(("chain", 0)),
        auto=levels.get(("tree", AUTO)),
    )


def acceptance_histogram(result: Result, temperature: float) -> Histogram | None:
    """Over all rounds of all sets: the chain, and the tree with the automatic budget or else the fastest on average."""
    summaries = at_temperature(result, temperature)
    shown = [key for key in (("chain", _chain_budget(summaries)), ("tree", _shown_budget(summaries))) if key[1] is not None]
    shares: dict[str, tuple[float, ...]] = {}
    means: dict[str, float] = {}
    for mode, budget in shown:
        counts: Counter[int] = Counter()
        for record in result["records"]:
            if (record["temperature"], record["mode"], record["budget"]) == (temperature, mode, budget):
                counts.update(dict(enumerate(record["accepted_histogram"])))
        if total := counts.total():
            label = mode_label(mode, budget or 0)
            shares[label] = tuple(counts[length] / total for length in range(max(length for length in counts if counts[length]) + 1))
            means[label] = sum(length * count for length, count in counts.items()) / total
    return Histogram(shares, means) if shares else None


def stage_bars(summaries: Sequence[Summary]) -> StageBars | None:
    """Every mode and budget, the mean over the sets."""
    groups: dict[tuple[str, int | str], list[Summary]] = {}
    for one in summaries:
        if one["stage_ms"]:
            groups.setdefault((one["mode"], one["budget"]), []).append(one)
    stages = tuple(dict.fromkeys(stage for one in summaries for stage in one["stage_ms"]))
    if not groups:
        return None
    return StageBars(
        stages=stages,
        milliseconds={
            mode_label(*key): tuple(fmean(one["stage_ms"].get(stage, 0.0) for one in group) for stage in stages)
            for key, group in groups.items()
        },
        per_token={mode_label(*key): fmean(1000 / one["tokens_per_second"] for one in group) for key, group in groups.items()},
    )


def _with_interval(summary: Summary | None) -> tuple[float, float, float] | None:
    if summary is None or summary["speedup"] is None:
        return None
    low, high = summary["speedup_interval"]
    return summary["speedup"], low, high


def _chain_budget(summaries: Sequence[Summary]) -> int | None:
    chain = find(summaries, "chain")
    return None if chain is None else chain["budget"]


def _shown_budget(summaries: Sequence[Summary]) -> int | str | None:
    """The automatic budget if it was measured, else the fixed one with the highest tokens/s on average."""
    rates: dict[int | str, list[float]] = {}
    for one in summaries:
        if one["mode"] == "tree":
            rates.setdefault(one["budget"], []).append(one["tokens_per_second"])
    return AUTO if AUTO in rates else max(rates, key=lambda budget: fmean(rates[budget]), default=None)
