"""Loss on long texts with any cache, teacher-forced: the context is read exactly, what follows is decoded token by token through the cache.

With a long continuation this is long generation: rows leave the window and go where the cache keeps them while it decodes. All caches are
compared with the full one on the same tokens, in the same packed passes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.header import describe_run
from hoarfrost.evaluation.caches.loss_records import LossJournal, LossOutcome, LossRecord, summarise_loss
from hoarfrost.evaluation.caches.records import run_planned
from hoarfrost.evaluation.caches.retrieval_samples import encoder
from hoarfrost.evaluation.caches.runner import CacheRunner, PromptRows, read_prompt, step
from hoarfrost.evaluation.caches.variants import CACHES, CacheVariant, plan_variants
from hoarfrost.evaluation.caches.watch import WatchedStore
from hoarfrost.evaluation.prompts.long_texts import SOURCES, draw_tokens, load_texts

if TYPE_CHECKING:
    from hoarfrost.engine import Engine

NUM_PARTS = 8


@dataclass(frozen=True)
class LossSettings:
    """What is compared on what: `limit` stretches per source and context, each of `context` tokens read and `continuation` decoded."""

    caches: tuple[str, ...] = CACHES
    budgets: tuple[int, ...] = (64, 128, 256)
    texts: tuple[str, ...] = SOURCES
    contexts: tuple[int, ...] = (2048, 4096)
    continuation: int = 256
    limit: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        plan_variants(self.caches, self.budgets)
        for name, values in (("contexts", self.contexts), ("texts", self.texts)):
            if not values or len(set(values)) < len(values):
                raise InvalidInput(f"The list of {name} ({', '.join(map(str, values))}) is empty or names one twice.")
        checked = (("limit", self.limit, 1), ("continuation", self.continuation, NUM_PARTS), ("context", min(self.contexts), 1))
        for name, value, least in checked:
            if value < least:
                raise InvalidInput(f"The {name} is {value}; it must be at least {least}.")


class LossBenchmark:
    """Runs the stretches; `describe` gives the result's header and `run` the outcomes. Raises `InvalidInput` before anything is decoded."""

    def __init__(self, engine: Engine, settings: LossSettings, data_dir: Path | None = None) -> None:
        needed, room = max(settings.contexts) + settings.continuation + 1, engine.target.max_positions
        if needed > room:
            raise InvalidInput(f"Context and continuation take {needed} tokens and the model's context is {room}; give less of one.")
        self.engine, self.settings = engine, settings
        self.runner = CacheRunner(engine.target, plan_variants(settings.caches, settings.budgets))
        self._texts = {source: load_texts(source, data_dir) for source in settings.texts}

    def describe(self, command: Iterable[str] = ()) -> dict[str, Any]:
        """What a result says beside its figures; the same whenever the same thing is measured on the same machine."""
        return describe_run("loss", self.engine.target, asdict(self.settings), command)

    @property
    def num_samples(self) -> int:
        return len(self.settings.texts) * len(self.settings.contexts) * self.settings.limit

    def run(self, journal: LossJournal | None = None, on_sample: Callable[[str], None] | None = None) -> list[LossOutcome]:
        """Measures every stretch that `journal` does not hold yet; `on_sample` is told the source of each one that is done."""
        planned = (
            (source, f"{context}/{index}", partial(self._measure_stretch, source, context, index))
            for context in self.settings.contexts
            for index in range(self.settings.limit)
            for source in self.settings.texts
        )
        return run_planned(planned, journal or LossJournal(None), on_sample)

    def _measure_stretch(self, source: str, context: int, index: int) -> LossOutcome:
        rng = random.Random(f"{self.settings.seed}/{source}/{context}/{index}")
        num_tokens = context + self.settings.continuation + 1
        tokens = draw_tokens(self._texts[source], num_tokens, rng, encoder(self.engine.tokenizer))
        return self.measure(source, f"{context}/{index}", tokens, context)

    @torch.inference_mode()
    def measure(self, source: str, prompt_id: str, tokens: Sequence[int], context: int) -> LossOutcome:
        """One stretch with all caches: `context` of the `tokens` are read, all but the last of the others decoded."""
        rows, _ = read_prompt(self.engine.target, tokens[:context])
        records: list[LossRecord] = []
        full_loss = 0.0
        for group, stores in self.runner.filled(rows, len(tokens)):
            watched = [WatchedStore(store, rows) for store in stores]
            losses, divergences, agreements = self._follow(rows, watched, tokens[context:])
            full_loss = float(losses[0].mean())
            for index, (variant, store) in enumerate(zip(group, watched, strict=True)):
                figures = (losses[index + 1], divergences[index + 1], agreements[index + 1])
                records.append(_record(source, prompt_id, context, variant, figures, store))
        return LossOutcome(source, prompt_id, full_loss, records)

    def _follow(self, rows: PromptRows, stores: Sequence[WatchedStore], tokens: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Decodes `tokens` through the full cache and the `stores`; loss, divergence and agreement, each `[1 + stores, tokens - 1]`."""
        full = self.engine.target.new_store(rows.length + len(tokens))
        rows.fill(full)
        figures = []
        for token, following in pairwise(tokens):
            log_probs = step(self.engine.target, [full, *stores], [token] * (1 + len(stores))).float().log_softmax(dim=-1)
            divergence = (log_probs[0].exp() * (log_probs[0] - log_probs)).sum(dim=-1)
            choices = log_probs.argmax(dim=-1)
            figures.append(torch.stack([-log_probs[:, following], divergence, (choices == choices[0]).float()]))
        losses, divergences, agreements = torch.stack(figures, dim=-1).cpu().unbind(dim=0)
        return losses, divergences, agreements


def _record(
    source: str, prompt_id: str, context: int, variant: CacheVariant, figures: tuple[Tensor, Tensor, Tensor], store: WatchedStore
) -> LossRecord:
    loss, divergence, agreement = figures
    return LossRecord(
        texts=source,
        prompt_id=prompt_id,
        context=context,
        cache=variant.cache,
        budget=variant.budget,
        num_tokens=len(loss),
        loss=float(loss.mean()),
        kl=float(divergence.mean()),
        top1=float(agreement.mean()),
        kl_parts=[float(part.mean()) for part in divergence.tensor_split(NUM_PARTS)],
        selection=store.selection(),
    )


def make_result(header: dict[str, Any], outcomes: Sequence[LossOutcome]) -> dict[str, Any]:
    """The result file's content: the header, `records` and `summary`."""
    return {
        **header,
        "records": [asdict(record) for outcome in outcomes for record in outcome.records],
        "summary": [asdict(summary) for summary in summarise_loss(outcomes)],
    }
