"""The figures of one prompt in one mode, and the journal that keeps them while a benchmark runs.

The journal is a JSON lines file: a header that says what is measured, then one line per prompt with its records in all modes, so that an
interrupted benchmark resumes at a prompt and every comparison between modes comes from one process. A torn last line is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hoarfrost.evaluation.machine import write_json, write_text


@dataclass(frozen=True)
class DecodeRecord:
    """One prompt decoded in one mode. Times leave out prefill and what belongs to the first token; `tau` counts the bonus token.

    `stage_ms` is per round. `first_difference` is the index of the first token that is not plain decoding's, where `agrees` is false;
    `agrees` is `None` where plain decoding was not run.
    """

    set: str
    prompt_id: str
    mode: str
    budget: int
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


class Journal:
    """The outcomes so far, kept in `path` (`None`: only in memory)."""

    def __init__(self, path: Path | None, outcomes: Sequence[PromptOutcome] = ()) -> None:
        self.path = path
        self._outcomes = {(outcome.set, outcome.prompt_id): outcome for outcome in outcomes}

    @classmethod
    def start(cls, path: Path, header: dict[str, Any]) -> tuple[Journal, str | None]:
        """Opens the journal at `path`, going on with it if its header is the same, else anew.

        Returns the journal and, if there was an older one, a sentence that says what became of it.
        """
        header = json.loads(json.dumps(header))
        old_header, outcomes = _read(path)
        goes_on = old_header == header
        message = None
        if goes_on and outcomes:
            message = f"Going on with {path}: {len(outcomes)} prompts are already measured."
        elif old_header is not None and not goes_on:
            changed = ", ".join(sorted(key for key in {*header, *old_header} if header.get(key) != old_header.get(key)))
            message = f"Starting anew: {path} belongs to a run with another {changed}."
        journal = cls(path, outcomes if goes_on else ())
        journal._rewrite(header)
        return journal, message

    def find(self, set_name: str, prompt_id: str) -> PromptOutcome | None:
        return self._outcomes.get((set_name, prompt_id))

    def add(self, outcome: PromptOutcome) -> None:
        self._outcomes[outcome.set, outcome.prompt_id] = outcome
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")

    def finish(self, result_path: Path, result: dict[str, Any]) -> None:
        """Writes the final result, whole or not at all, and only then removes the journal's own file."""
        write_json(result_path, result)
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _rewrite(self, header: dict[str, Any]) -> None:
        """Drops a torn last line, so that the next one is not glued to it."""
        assert self.path is not None
        lines = [header, *(asdict(outcome) for outcome in self._outcomes.values())]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))


def _read(path: Path) -> tuple[dict[str, Any] | None, list[PromptOutcome]]:
    """The header and the whole lines of a journal; `(None, [])` if there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        header = json.loads(lines[0])
    except (OSError, IndexError, json.JSONDecodeError):
        return None, []
    outcomes = []
    for line in lines[1:]:
        try:
            outcomes.append(PromptOutcome.from_json(line))
        except (ValueError, TypeError, KeyError):
            break
    return header, outcomes
