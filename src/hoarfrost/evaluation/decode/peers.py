"""Other engines on the same prompts: what is measured of each (Hoarfrost among them), the figures of it and their tables.

`benchmarks/peers` does the measuring; the tables are made from the result's JSON alone. Every peer decodes the same prompt greedily to the
same number of tokens; its time runs from its first tokens to its last. A peer's figures are over the prompts that it answered, its ratios
over those that both sides answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hoarfrost.evaluation.common.intervals import SpeedRatio, speed_ratio
from hoarfrost.evaluation.common.tables import Report, Result, Summary, TextTable, between, commit, thread_count

PLAIN, TREE = "hoarfrost-ar", "hoarfrost-tree"
OVERALL = "all"
HEADER = ("engine", "runs in", "tokens/s", "over AR", "DDTree over it", "95 %", "differ")


@dataclass(frozen=True)
class PeerRecord:
    """One prompt decoded by one peer. `seconds` is the time for all of its `tokens` but the `num_first` that came first.

    `agrees` is whether the tokens are those of Hoarfrost's plain decoding, `first_difference` where they are not.
    """

    set: str
    prompt_id: str
    peer: str
    tokens: int
    num_first: int
    seconds: float
    prefill_seconds: float
    agrees: bool
    first_difference: int | None

    @property
    def seconds_per_token(self) -> float | None:
        """`None` for an answer that came all at once."""
        num_timed = self.tokens - self.num_first
        return self.seconds / num_timed if num_timed > 0 and self.seconds > 0 else None


@dataclass(frozen=True)
class PeerSummary:
    """One peer on one set, or over the prompts of all sets (`all`).

    `over_plain` is its speed over Hoarfrost's plain decoding, `tree_over` that of Hoarfrost's tree over it; `None` where there is no pair.
    """

    set: str
    peer: str
    num_answers: int
    num_differing: int
    tokens_per_second: float | None
    over_plain: SpeedRatio | None
    tree_over: SpeedRatio | None


def summarise_peers(records: Iterable[PeerRecord]) -> list[PeerSummary]:
    """Returns the summaries set by set, then those over all sets, the peers in the order in which their first records come."""
    sets: dict[str, dict[str, list[PeerRecord]]] = {}
    for record in records:
        for name in (record.set, OVERALL):
            sets.setdefault(name, {}).setdefault(record.peer, []).append(record)
    overall = sets.pop(OVERALL, {})
    return [
        _summarise(name, peer, peers)
        for name, peers in (*sets.items(), (OVERALL, overall))
        for peer in overall
        if peer in peers  # a peer that failed half-way has no answers in the sets that followed
    ]


def _summarise(set_name: str, peer: str, peers: dict[str, list[PeerRecord]]) -> PeerSummary:
    records = peers[peer]
    times = _times(records)
    return PeerSummary(
        set=set_name,
        peer=peer,
        num_answers=len(records),
        num_differing=sum(not record.agrees for record in records),
        tokens_per_second=len(times) / sum(times.values()) if times else None,
        over_plain=_ratio(peers.get(PLAIN, ()), records),
        tree_over=_ratio(records, peers.get(TREE, ())),
    )


def _ratio(slower: Sequence[PeerRecord], faster: Sequence[PeerRecord]) -> SpeedRatio | None:
    slower_times, faster_times = _times(slower), _times(faster)
    return speed_ratio([(seconds, faster_times[key]) for key, seconds in slower_times.items() if key in faster_times])


def _times(records: Sequence[PeerRecord]) -> dict[tuple[str, str], float]:
    times = {(record.set, record.prompt_id): record.seconds_per_token for record in records}
    return {key: seconds for key, seconds in times.items() if seconds is not None}


def report_peers(result: Result) -> Report:
    """What each peer is over all prompts, and tokens/s set by set."""
    overall = [summary for summary in result["summary"] if summary["set"] == OVERALL]
    rows = tuple(_cells(result, summary) for summary in overall)
    sets = tuple(dict.fromkeys(summary["set"] for summary in result["summary"] if summary["set"] != OVERALL))
    rates = {(summary["peer"], summary["set"]): summary["tokens_per_second"] for summary in result["summary"]}
    by_set = tuple(
        (_label(result, summary["peer"]), *(_number(rates.get((summary["peer"], name))) for name in sets)) for summary in overall
    )
    tables = [
        TextTable("Decoding speed beside other engines", HEADER, 2, rows, sections=False),
        TextTable("Tokens/s by prompt set", ("engine", *sets), 1, by_set, sections=False),
    ]
    return Report(tables, [_caption(result)])


def _caption(result: Result) -> str:
    """Where and under which conditions the peers were measured, and who is missing, in sentences."""
    machine, settings = result["machine"], result["settings"]
    counts = [f"{count} {name}" for name, count in settings["num_prompts"].items()]
    sentences = [
        f"{settings['model']}, greedy, {thread_count(settings)} of {machine['cpu'] or 'an unknown CPU'}, {commit(result)}.",
        f"Prompts: {', '.join(counts)}; every engine decodes as many tokens as Hoarfrost's AR does until its answer ends or repeats "
        f"itself, at most {settings['max_new_tokens']}, prompt by prompt in turns.",
        f"Not counted: {settings['left_out']}. Over AR: its speed over Hoarfrost's AR; DDTree over it: Hoarfrost's DDTree over the engine, "
        "with the 95 % interval over prompts; differ: answers that are not those of Hoarfrost's AR, token for token.",
    ]
    sentences.extend(f"Not measured: {name} ({reason})." for name, reason in result["failures"].items())
    return " ".join(sentences)


def _cells(result: Result, summary: Summary) -> tuple[str, ...]:
    return (
        _label(result, summary["peer"]),
        result["peers"][summary["peer"]]["dtype"],
        _number(summary["tokens_per_second"]),
        _times_as_fast(summary["over_plain"]),
        _times_as_fast(summary["tree_over"]),
        between(summary["tree_over"] and summary["tree_over"]["interval"]),
        f"{summary['num_differing']}/{summary['num_answers']}",
    )


def _label(result: Result, peer: str) -> str:
    return str(result["peers"][peer]["label"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _times_as_fast(value: dict[str, Any] | None) -> str:
    return "-" if value is None else f"{value['ratio']:.2f}x"
