"""What is measured of each peer (Hoarfrost among them) on a prompt, and the figures that come of it; `benchmarks/peers` does the measuring.

Every peer decodes the same prompt greedily to the same number of tokens; its time runs from its first tokens to its last. A peer's figures
are over the prompts that it answered, its ratios over those that both sides answered.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from hoarfrost.evaluation.common.intervals import SpeedRatio, speed_ratio
from hoarfrost.evaluation.common.journal import OutcomeJournal

PLAIN, TREE = "hoarfrost-ar", "hoarfrost-tree"
OVERALL = "all"


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
class PeerOutcome:
    """Everything measured on one prompt: a record per turn and peer, and how many turns did not fit the model's context."""

    set: str
    prompt_id: str
    num_skipped: int
    records: list[PeerRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, line: str) -> Self:
        fields = json.loads(line)
        return cls(**{**fields, "records": [PeerRecord(**record) for record in fields["records"]]})


class PeerJournal(OutcomeJournal[PeerOutcome]):
    """The journal of a comparison with peers."""

    outcome_type = PeerOutcome


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


def make_peer_result(header: dict[str, Any], outcomes: Iterable[PeerOutcome], failures: dict[str, str]) -> dict[str, Any]:
    """The result file's content: the header, then `skipped` (per set), `failures` (peer: reason), `records` and `summary`."""
    records: list[PeerRecord] = []
    skipped: Counter[str] = Counter()
    for outcome in outcomes:
        records.extend(outcome.records)
        skipped[outcome.set] += outcome.num_skipped
    return {
        **header,
        "skipped": {name: count for name, count in skipped.items() if count},
        "failures": failures,
        "records": [asdict(record) for record in records],
        "summary": [asdict(summary) for summary in summarise_peers(records)],
    }
