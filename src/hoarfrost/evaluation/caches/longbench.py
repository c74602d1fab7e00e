"""LongBench with any cache: a prompt is cut in the middle where the model's context demands it, read once, and answered by each cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.answers import AnswerRecord, make_outcome, summarise
from hoarfrost.evaluation.caches.longbench_metrics import CHINESE_UNIT
from hoarfrost.evaluation.caches.longbench_tasks import BENCHES, Item, cut_middle, load_items, long_tasks, score
from hoarfrost.evaluation.caches.runner import CacheRunner
from hoarfrost.evaluation.caches.variants import CACHES, MEANING, plan_variants
from hoarfrost.evaluation.common.checks import check_least, check_list
from hoarfrost.evaluation.common.journal import Benchmark, Outcome, Planned
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.prompts.encoding import encode_messages
from hoarfrost.target.encoding import encode_text

if TYPE_CHECKING:
    from hoarfrost.engine import Engine


@dataclass(frozen=True)
class LongBenchSettings:
    """What is compared. `limit` items per task, `None` for all; `max_prompt_tokens` cuts earlier than the model's context does."""

    caches: tuple[str, ...] = CACHES
    budgets: tuple[int, ...] = (64, 128, 256)
    bench: str = BENCHES[0]
    tasks: tuple[str, ...] = tuple(long_tasks())
    limit: int | None = None
    max_prompt_tokens: int | None = None
    chat: bool | None = None

    def __post_init__(self) -> None:
        plan_variants(self.caches, self.budgets)
        check_list("tasks", self.tasks)
        check_least("limit of items per task", self.limit)
        check_least("number of prompt tokens", self.max_prompt_tokens)


class LongBench(Benchmark[AnswerRecord]):
    """Runs the items."""

    record_type = AnswerRecord
    summarise = staticmethod(partial(summarise, by_length=False))

    def __init__(self, engine: Engine, settings: LongBenchSettings, data_dir: Path | None = None) -> None:
        self.engine, self.settings = engine, settings
        self.runner = CacheRunner(engine.target, plan_variants(settings.caches, settings.budgets))
        self.items = [item for name in settings.tasks for item in load_items(settings.bench, name, data_dir, settings.limit)]
        self.num_prompts = len(self.items)
        longest = max(item.task.max_new_tokens for item in self.items)
        if longest >= engine.target.max_positions:
            raise InvalidInput(f"The model's context of {engine.target.max_positions} tokens has no room for answers of {longest}.")

    def describe(self) -> dict[str, Any]:
        settings = {**asdict(self.settings), "chinese_unit": CHINESE_UNIT, **MEANING}
        return describe_run(settings, evaluation="longbench", target=self.engine.target)

    def plan(self) -> Iterator[Planned[AnswerRecord]]:
        for item in self.items:
            yield item.task.name, item.prompt_id, partial(self.answer, item)

    def answer(self, item: Item) -> Outcome[AnswerRecord]:
        """One item with all caches."""
        prompt_ids = self.encode(item)
        answers = self.runner.answer(prompt_ids, [], item.task.max_new_tokens)
        return make_outcome(
            item.task.name,
            item.prompt_id,
            answers,
            self.engine.tokenizer,
            partial(score, item),
            length=len(prompt_ids),
            depth=None,
            expected=list(item.answers),
        )

    def encode(self, item: Item) -> list[int]:
        """The prompt's token ids, cut in the middle until it fits together with the answer.

        As LongBench does, the text is cut and encoded again; that may add tokens at the cut, so the room shrinks by what is too much.
        """
        room = self.engine.target.max_positions - item.task.max_new_tokens
        room = room if self.settings.max_prompt_tokens is None else min(room, self.settings.max_prompt_tokens)
        plain = encode_text(self.engine.tokenizer, item.prompt, add_special_tokens=False, verbose=False)
        kept = min(len(plain), room)
        while kept >= 2:
            parts = (item.prompt,) if kept == len(plain) else map(self._decode, cut_middle(plain, kept))
            ids = self._encode(item, "".join(parts))
            if len(ids) <= room:
                return ids
            kept -= len(ids) - room
        raise InvalidInput(f"A prompt of {room} tokens has no room for {item.task.name} in the model's chat template; give more.")

    def _decode(self, token_ids: Sequence[int]) -> str:
        text: str = self.engine.tokenizer.decode(token_ids, skip_special_tokens=True)
        return text

    def _encode(self, item: Item, text: str) -> list[int]:
        chat = self.settings.chat if item.task.chat else False
        return encode_messages(self.engine, [{"role": "user", "content": text}], chat)
