"""What a benchmark over prompts is, and the journal that keeps what it measured, so that an interrupted run goes on where it was.

An outcome is all that one process measured on one prompt: records, which are frozen dataclasses of JSON values, of whatever kind the
benchmark makes. The journal is a JSON lines file: a header that says what is measured, then an outcome per line. A torn last line is
dropped.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_type_hints

from hoarfrost.errors import InvalidInput
from hoarfrost.files import append_line, check_writable, is_replaceable, write_json, write_text

Record = TypeVar("Record")


@dataclass(frozen=True)
class Outcome(Generic[Record]):
    """One prompt, named by its set and its id in there; `num_skipped` of its turns did not fit the model's context."""

    set: str
    prompt_id: str
    records: list[Record] = field(default_factory=list)
    num_skipped: int = 0


Planned = tuple[str, str, Callable[[], Outcome[Record]]]
"""A prompt to measure: its set, its id, and what measures it."""


class Journal(Generic[Record]):
    """The outcomes so far, kept in `path` (`None`: only in memory)."""

    def __init__(self, path: Path | None = None, outcomes: Iterable[Outcome[Record]] = ()) -> None:
        self.path = path
        self._outcomes = {(outcome.set, outcome.prompt_id): outcome for outcome in outcomes}

    @classmethod
    def beside(cls, result_path: Path | None, header: Mapping[str, Any], kind: type[Record]) -> tuple[Journal[Record], str | None]:
        """The journal of the run that will write `result_path`, in the same folder; without one, or for a pipe or standard output, the
        outcomes stay in memory.

        It goes on with an older one of the same header, whatever the command, else starts anew. Returns the journal and, if there was an
        older one, a sentence that says what became of it. Raises `InvalidInput` where nothing can be written.
        """
        if result_path is None:
            return cls(), None
        check_writable(result_path)
        if not is_replaceable(result_path):
            return cls(), None
        place = result_path.resolve()
        path = place.with_name(place.name + ".partial.jsonl")
        header = json.loads(json.dumps({key: value for key, value in header.items() if key != "command"}))
        old_header, outcomes = _read(path, kind)
        message = None
        if old_header is not None and old_header != header:
            changed = ", ".join(sorted(key for key in {*header, *old_header} if header.get(key) != old_header.get(key)))
            message, outcomes = f"Starting anew: {path} belongs to a run with another {changed}.", []
        elif outcomes:
            message = f"Going on with {path}: {len(outcomes)} prompts are already measured."
        try:
            write_text(path, json.dumps(header) + "\n" + "".join(map(_line, outcomes)))
        except OSError as error:
            raise InvalidInput(f"The result file {result_path} cannot be written: {error.strerror}.") from None
        return cls(path, outcomes), message

    def find(self, set_name: str, prompt_id: str) -> Outcome[Record] | None:
        return self._outcomes.get((set_name, prompt_id))

    def add(self, outcome: Outcome[Record]) -> None:
        self._outcomes[outcome.set, outcome.prompt_id] = outcome
        if self.path is not None:
            append_line(self.path, _line(outcome))

    def run(self, planned: Iterable[Planned[Record]], on_prompt: Callable[[str], None] | None = None) -> list[Outcome[Record]]:
        """Measures every prompt that is not here yet; `on_prompt` is told the set of each one that is done.

        Raises `InvalidInput` where nothing came of it: a benchmark of nothing has no figures.
        """
        outcomes: list[Outcome[Record]] = []
        for set_name, prompt_id, measure in planned:
            outcome = self.find(set_name, prompt_id)
            if outcome is None:
                outcome = measure()
                self.add(outcome)
            outcomes.append(outcome)
            if on_prompt:
                on_prompt(set_name)
        if not any(outcome.records for outcome in outcomes):
            self._remove()
            raise InvalidInput(
                f"Nothing was measured: of {len(outcomes)} prompts {sum(outcome.num_skipped > 0 for outcome in outcomes)} do not fit the "
                "model's context together with a whole answer; ask for shorter answers or take other prompts."
            )
        return outcomes

    def finish(self, result_path: Path, result: Mapping[str, Any]) -> None:
        """Writes the final result, whole or not at all, and only then removes the journal's own file."""
        write_json(result_path, result)
        self._remove()

    def _remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def make_result(
    header: Mapping[str, Any], outcomes: Sequence[Outcome[Record]], summarise: Callable[[list[Record]], Iterable[Any]]
) -> dict[str, Any]:
    """A result file's content: the header, `skipped` (turns per set that did not fit), `records` and `summary`."""
    records = [record for outcome in outcomes for record in outcome.records]
    skipped: Counter[str] = Counter()
    for outcome in outcomes:
        skipped[outcome.set] += outcome.num_skipped
    return {
        **header,
        "skipped": {name: count for name, count in skipped.items() if count},
        "records": [asdict(record) for record in records],  # type: ignore[call-overload]  # records are dataclasses
        "summary": [asdict(summary) for summary in summarise(records)],
    }


class Benchmark(ABC, Generic[Record]):
    """Made from an engine and its settings, it refuses what cannot be measured with `InvalidInput` before anything is decoded."""

    record_type: ClassVar[type[Any]]
    num_prompts: int

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The header of the result (`describe_run`)."""

    @abstractmethod
    def plan(self) -> Iterable[Planned[Record]]:
        """The prompts in their order, `num_prompts` of them."""

    @staticmethod
    @abstractmethod
    def summarise(records: list[Any]) -> Iterable[Any]:
        """Dataclasses with the figures of all records."""

    def run(self, journal: Journal[Record] | None = None, on_prompt: Callable[[str], None] | None = None) -> list[Outcome[Record]]:
        """Measures what `journal` does not hold yet; `on_prompt` is told the set of each prompt that is done."""
        return (journal or Journal()).run(self.plan(), on_prompt)

    def result(self, header: Mapping[str, Any], outcomes: Sequence[Outcome[Record]]) -> dict[str, Any]:
        """The result file's content."""
        return make_result(header, outcomes, self.summarise)


def _line(outcome: Outcome[Any]) -> str:
    return json.dumps(asdict(outcome)) + "\n"


def _read(path: Path, kind: type[Record]) -> tuple[dict[str, Any] | None, list[Outcome[Record]]]:
    """The header and the whole lines of a journal; `(None, [])` if there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        header = json.loads(lines[0])
    except (OSError, IndexError, ValueError):
        return None, []
    outcomes: list[Outcome[Record]] = []
    for line in lines[1:]:
        try:
            fields = json.loads(line)
            outcomes.append(Outcome(**{**fields, "records": [restore(kind, record) for record in fields["records"]]}))
        except (ValueError, TypeError, KeyError):
            break
    return header, outcomes


def restore(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """A dataclass from what `asdict` made of it, together with those among its fields.

    Raises KeyError or TypeError for the values of another kind.
    """
    hints = get_type_hints(kind)
    restored = {}
    for name, value in values.items():
        nested = next((one for one in (hints[name], *get_args(hints[name])) if is_dataclass(one)), None)
        restored[name] = restore(nested, value) if isinstance(nested, type) and isinstance(value, Mapping) else value
    return kind(**restored)
