"""Retrieval accuracy of caches: every sample is read once and answered with each of them.

Order: length by length, and within a length sample by sample over all tasks, so that a run that is cut off has a bit of everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.answers import AnswerRecord, make_outcome, summarise
from hoarfrost.evaluation.caches.retrieval_samples import Sample, SampleMaker
from hoarfrost.evaluation.caches.retrieval_tasks import TASKS, score_answer
from hoarfrost.evaluation.caches.runner import CacheRunner, GrowthMeter
from hoarfrost.evaluation.caches.variants import CACHES, MEANING, plan_variants
from hoarfrost.evaluation.common.checks import check_least, check_list, check_names
from hoarfrost.evaluation.common.journal import Benchmark, Outcome, Planned
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.prompts.encoding import encoder, make_frame
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
        check_list("tasks", self.tasks)
        check_list("lengths", self.lengths)
        check_list("texts", self.texts)
        check_names("task", self.tasks, TASKS)
        check_least("limit of samples per task and length", self.limit)
        check_least("number of decoded tokens", self.num_decoded, 0)


class RetrievalBenchmark(Benchmark[AnswerRecord]):
    """Runs the samples."""

    record_type = AnswerRecord
    summarise = staticmethod(summarise)

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
        self.num_prompts = len(settings.tasks) * len(settings.lengths) * settings.limit

    def describe(self) -> dict[str, Any]:
        return describe_run({**asdict(self.settings), **MEANING}, evaluation="retrieval", target=self.engine.target)

    def plan(self) -> Iterator[Planned[AnswerRecord]]:
        for length in self.settings.lengths:
            for index in range(self.settings.limit):
                for task in self.settings.tasks:
                    yield task, f"{length}/{index}", partial(self._answer, task, length, index)

    def answer(self, sample: Sample) -> Outcome[AnswerRecord]:
        """One sample with all caches."""
        meter = GrowthMeter() if self.settings.num_decoded else None
        answers = self.runner.answer(sample.prompt_ids, sample.lead_ids, sample.max_new_tokens, num_decoded=sample.num_decoded, meter=meter)
        about = {"length": sample.length, "depth": sample.depth, "expected": list(sample.expected)}
        score = partial(score_answer, sample.expected)
        return make_outcome(sample.task, sample.prompt_id, answers, self.engine.tokenizer, score, meter, **about)

    def _answer(self, task: str, length: int, index: int) -> Outcome[AnswerRecord]:
        return self.answer(self.maker.make(task, length, index, self.settings.limit))
