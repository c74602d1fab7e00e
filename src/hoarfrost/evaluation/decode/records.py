"""The figures of one prompt in one mode, and the journal that keeps them while a benchmark runs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from hoarfrost.evaluation.common.journal import OutcomeJournal


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
class PromptOutcome:
    """Everything measured on one prompt: a record per turn and mode, and how many of its turns did not fit the model's context."""

    set: str
    prompt_id: str
    num_skipped: int
    records: list[DecodeRecord] = field(default_factory=list)

    @classmethod
    def from_json(cls, line: str) -> PromptOutcome:
        fields = json.loads(line)
        return cls(**{**fields, "records": [DecodeRecord(**record) for record in fields["records"]]})


class Journal(OutcomeJournal[PromptOutcome]):
    """The journal of a decoding benchmark: one outcome per prompt, with its records in all modes."""

    outcome_type = PromptOutcome
