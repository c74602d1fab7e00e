"""Retrieval accuracy of caches: every sample is read once and answered with each of them.

Order: length by length, and within a length sample by sample over all tasks, so that a run that is cut off has a bit of everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.growth import GrowthMeter
from hoarfrost.evaluation.caches.header import describe_run
from hoarfrost.evaluation.caches.records import AnswerJournal, AnswerOutcome, make_outcome, run_planned
from hoarfrost.evaluation.caches.retrieval_samples import Sample, SampleMaker, encoder, make_frame
from hoarfrost.evaluation.caches.retrieval_tasks import TASKS, score_answer
from hoarfrost.evaluation.caches.runner import CacheRunner
from hoarfrost.evaluation.caches.summary import summarise
from hoarfrost.evaluation.caches.variants import CACHES, plan_variants
from hoarfrost.evaluation.prompts.long_texts import SOURCES, load_texts

if TYPE_CHECKING:
    from hoarfrost.engine import Engine


@dataclass(frozen=True)
class RetrievalSettings:
    """What is compared on what; `limit` samples per task and length. For `num_decoded` and `ask_later` see `SampleMaker`."""

    caches: tuple[str, ...] = CACHES
    budgets: tuple[int, ...] = (64, 128, 256)
    tasks: tuple[str, ...] = tuple(TASKS)
    lengths: tuple[int, ...] = (2048, 4096, 8192)
    limit: int = 50
    texts: tuple[str, ...] = SOURCES
    seed: int = 0
    num_decoded: int = 0
    ask_later: bool = False
    chat: bool | None = None

    def __post_init__(self) -> None:
        plan_variants(self.caches, self.budgets)
        for name, values in (("tasks", self.tasks), ("lengths", self.lengths), ("texts", self.texts)):
            if not values or len(set(values)) < len(values):
                raise InvalidInput(f"The list of {name} ({', '.join(map(str, values))}) is empty or names one twice.")
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown:
            raise InvalidInput(f"Unknown task {unknown[0]!r}; choose from {', '.join(TASKS)}.")
        if self.limit < 1:
            raise InvalidInput(f"The limit of samples per task and length is {self.limit}; it must be at least 1.")
        if self.num_decoded < 0:
            raise InvalidInput(f"The number of decoded tokens is {self.num_decoded}; it must be 0 or more.")


class RetrievalBenchmark:
    """Runs the samples; `describe` gives the result's header and `run` the outcomes. Raises `InvalidInput` before anything is decoded."""

    def __init__(self, engine: Engine, settings: RetrievalSettings, data_dir: Path | None = None) -> None:
        too_long = [length for length in settings.lengths if length > engine.target.max_positions]
        if too_long:
            room = engine.target.max_positions
            raise InvalidInput(f"A length of {too_long[0]} tokens exceeds the model's context of {room}; leave it out.")
        self.engine, self.settings = engine, settings
        self.runner = CacheRunner(engine.target, plan_variants(settings.caches, settings.budgets))
        self.maker = SampleMaker(
            encoder(engine.tokenizer),
            make_frame(engine.tokenizer, settings.chat),
            [load_texts(source, data_dir) for source in settings.texts],
            settings.seed,
            settings.num_decoded,
            settings.ask_later,
        )
        for task in settings.tasks:
            self.maker.make(task, min(settings.lengths), 0, settings.limit)

    def describe(self, command: Iterable[str] = ()) -> dict[str, Any]:
        """What a result says beside its figures; the same whenever the same thing is measured on the same machine."""
        return describe_run("retrieval", self.engine.target, asdict(self.settings), command)

    @property
    def num_samples(self) -> int:
        return len(self.settings.tasks) * len(self.settings.lengths) * self.settings.limit

    def run(self, journal: AnswerJournal | None = None, on_sample: Callable[[str], None] | None = None) -> list[AnswerOutcome]:
        """Answers every sample that `journal` does not hold yet; `on_sample` is told the task of each one that is done."""
        planned = ((task, f"{length}/{index}", partial(self._answer, task, length, index)) for task, length, index in self._plan())
        return run_planned(planned, journal or AnswerJournal(None), on_sample)

    def answer(self, sample: Sample) -> AnswerOutcome:
        """One sample with all caches."""
        meter = GrowthMeter() if self.settings.num_decoded else None
        answers = self.runner.answer(sample.prompt_ids, sample.lead_ids, sample.max_new_tokens, num_decoded=sample.num_decoded, meter=meter)
        texts = {variant: self.engine.tokenizer.decode(ids, skip_special_tokens=True) for variant, ids in answers.items()}
        scored = {variant: (ids, texts[variant], score_answer(sample.expected, texts[variant])) for variant, ids in answers.items()}
        return make_outcome(
            sample.task, sample.prompt_id, scored, meter, length=sample.length, depth=sample.depth, expected=list(sample.expected)
        )

    def _answer(self, task: str, length: int, index: int) -> AnswerOutcome:
        return self.answer(self.maker.make(task, length, index, self.settings.limit))

    def _plan(self) -> Iterator[tuple[str, int, int]]:
        for length in self.settings.lengths:
            for index in range(self.settings.limit):
                for task in self.settings.tasks:
                    yield task, length, index


def make_result(header: dict[str, Any], outcomes: Iterable[AnswerOutcome]) -> dict[str, Any]:
    """The result file's content: the header, `records` and `summary`."""
    records = [record for outcome in outcomes for record in outcome.records]
    return {
        **header,
        "records": [asdict(record) for record in records],
        "summary": [asdict(summary) for summary in summarise(records)],
    }
