"""The journal that keeps the outcomes of a benchmark while it runs, so that an interrupted one goes on where it was.

A JSON lines file: a header that says what is measured, then one line per prompt with everything measured on it, so that every comparison
comes from one process. A torn last line is dropped. A kind of benchmark derives a class that names its outcomes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from hoarfrost.errors import InvalidInput
from hoarfrost.files import write_json, write_text


class Outcome(Protocol):
    """What was measured on one prompt: a frozen dataclass of JSON values, named by its set and its id in there."""

    @property
    def set(self) -> str: ...

    @property
    def prompt_id(self) -> str: ...

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Reads back a line. Raises ValueError, TypeError or KeyError for one that is torn or of another kind."""
        ...


Kind = TypeVar("Kind", bound=Outcome)


class OutcomeJournal(Generic[Kind]):
    """The outcomes so far, kept in `path` (`None`: only in memory)."""

    outcome_type: ClassVar[type[Any]]

    def __init__(self, path: Path | None, outcomes: Sequence[Kind] = ()) -> None:
        self.path = path
        self._outcomes = {(outcome.set, outcome.prompt_id): outcome for outcome in outcomes}

    @classmethod
    def start(cls, path: Path, header: dict[str, Any]) -> tuple[Self, str | None]:
        """Opens the journal at `path`, going on with it if its header is the same, else anew.

        Returns the journal and, if there was an older one, a sentence that says what became of it.
        """
        header = json.loads(json.dumps(header))
        old_header, outcomes = cls._read(path)
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

    @classmethod
    def beside(cls, result_path: Path | None, header: dict[str, Any]) -> tuple[Self, str | None]:
        """The journal of the run that will write `result_path`, in the same folder; without one the outcomes stay in memory.

        Returns what `start` returns. Raises `InvalidInput` where nothing can be written.
        """
        if result_path is None:
            return cls(None), None
        try:
            return cls.start(result_path.with_name(result_path.name + ".partial.jsonl"), header)
        except OSError as error:
            raise InvalidInput(f"The result file {result_path} cannot be written: {error.strerror}.") from None

    def find(self, set_name: str, prompt_id: str) -> Kind | None:
        return self._outcomes.get((set_name, prompt_id))

    def add(self, outcome: Kind) -> None:
        self._outcomes[outcome.set, outcome.prompt_id] = outcome
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_line(outcome))

    def finish(self, result_path: Path, result: dict[str, Any]) -> None:
        """Writes the final result, whole or not at all, and only then removes the journal's own file."""
        write_json(result_path, result)
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _rewrite(self, header: dict[str, Any]) -> None:
        """Drops a torn last line, so that the next one is not glued to it."""
        assert self.path is not None
        write_text(self.path, json.dumps(header) + "\n" + "".join(map(_line, self._outcomes.values())))

    @classmethod
    def _read(cls, path: Path) -> tuple[dict[str, Any] | None, list[Kind]]:
        """The header and the whole lines of a journal; `(None, [])` if there is none."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            header = json.loads(lines[0])
        except (OSError, IndexError, json.JSONDecodeError):
            return None, []
        outcomes: list[Kind] = []
        for line in lines[1:]:
            try:
                outcomes.append(cls.outcome_type.from_json(line))
            except (ValueError, TypeError, KeyError):
                break
        return header, outcomes


def _line(outcome: Any) -> str:
    return json.dumps(asdict(outcome)) + "\n"
