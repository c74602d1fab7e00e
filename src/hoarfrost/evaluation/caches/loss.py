"""Loss on long texts with any cache, teacher-forced: the context is read exactly, what follows is decoded token by token through the cache.

With a long continuation this is long generation: rows leave the window and go where the cache keeps them while it decodes. All caches are
compared with the full one on the same tokens, in the same packed passes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.runner import CacheRunner, PromptRows, read_prompt, step
from hoarfrost.evaluation.caches.variants import CACHES, MEANING, CacheVariant, plan_variants
from hoarfrost.evaluation.caches.watch import Selection, WatchedStore
from hoarfrost.evaluation.common.checks import check_least, check_list
from hoarfrost.evaluation.common.intervals import bootstrap_interval
from hoarfrost.evaluation.common.journal import Benchmark, Outcome, Planned
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.prompts.encoding import encoder
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
        check_list("contexts", self.contexts)
        check_list("texts", self.texts)
        check_least("limit", self.limit)
        check_least("continuation", self.continuation, NUM_PARTS)
        check_least("context", min(self.contexts))


@dataclass(frozen=True)
class LossRecord:
    """One text with one cache: means over its decoded tokens.

    `loss` and `full_loss`: nats per token, of this cache and of the full one; `kl`: divergence of the prediction from the full cache's, in
    nats; `top1`: share of the tokens where both find the same one likeliest; `kl_parts`: `kl` over equal stretches from the first decoded
    tokens to the last; `selection`: see `watch`, `None` where the store does not say what it read.
    """

    texts: str
    prompt_id: str
    context: int
    cache: str
    budget: int | None
    num_tokens: int
    loss: float
    full_loss: float
    kl: float
    top1: float
    kl_parts: list[float]
    selection: Selection | None


@dataclass(frozen=True)
class LossSummary:
    """One cache over the texts of a source and context. `added_loss` is over the full cache's, `added_interval` its 95 % over texts.

    `mass`, `best_mass` and `recall` are means over layers and heads, `None` where the store does not say what it read.
    """

    texts: str
    context: int
    cache: str
    budget: int | None
    count: int
    num_tokens: int
    loss: float
    added_loss: float
    added_interval: tuple[float, float]
    kl: float
    top1: float
    kl_parts: list[float]
    mass: float | None
    best_mass: float | None
    recall: float | None


def make_record(
    source: str, prompt_id: str, context: int, variant: CacheVariant, figures: tuple[Tensor, ...], selection: Selection | None
) -> LossRecord:
    """From what was found at every decoded token: the full cache's loss, the cache's own, its divergence and its agreement."""
    full_loss, loss, divergence, agreement = figures
    return LossRecord(
        texts=source,
        prompt_id=prompt_id,
        context=context,
        cache=variant.cache,
        budget=variant.budget,
        num_tokens=len(loss),
        loss=float(loss.mean()),
        full_loss=float(full_loss.mean()),
        kl=float(divergence.mean()),
        top1=float(agreement.mean()),
        kl_parts=[float(part.mean()) for part in divergence.tensor_split(NUM_PARTS)],
        selection=selection,
    )


def summarise_loss(records: Iterable[LossRecord]) -> list[LossSummary]:
    """A summary per source, context, cache and budget, in the order in which their first records come."""
    groups: dict[tuple[str, int, str, int | None], list[LossRecord]] = {}
    for record in records:
        groups.setdefault((record.texts, record.context, record.cache, record.budget), []).append(record)
    return [_summarise(group) for group in groups.values()]


def _summarise(records: Sequence[LossRecord]) -> LossSummary:
    first = records[0]
    added = np.asarray([record.loss - record.full_loss for record in records])
    return LossSummary(
        texts=first.texts,
        context=first.context,
        cache=first.cache,
        budget=first.budget,
        count=len(records),
        num_tokens=sum(record.num_tokens for record in records),
        loss=_mean(records, lambda record: record.loss),
        added_loss=float(added.mean()),
        added_interval=bootstrap_interval(added),
        kl=_mean(records, lambda record: record.kl),
        top1=_mean(records, lambda record: record.top1),
        kl_parts=np.mean([record.kl_parts for record in records], axis=0).tolist(),
        mass=_mean_of_heads(records, lambda selection: selection.mass),
        best_mass=_mean_of_heads(records, lambda selection: selection.best_mass),
        recall=_mean_of_heads(records, lambda selection: selection.recall),
    )


def _mean(records: Sequence[LossRecord], value: Callable[[LossRecord], float]) -> float:
    return float(np.mean([value(record) for record in records]))


def _mean_of_heads(records: Sequence[LossRecord], value: Callable[[Selection], list[list[float]]]) -> float | None:
    seen = [value(record.selection) for record in records if record.selection is not None]
    return float(np.mean(seen)) if seen else None


class LossBenchmark(Benchmark[LossRecord]):
    """Runs the stretches."""

    record_type = LossRecord
    summarise = staticmethod(summarise_loss)

    def __init__(self, engine: Engine, settings: LossSettings, data_dir: Path | None = None) -> None:
        needed, room = max(settings.contexts) + settings.continuation + 1, engine.target.max_positions
        if needed > room:
            raise InvalidInput(f"Context and continuation take {needed} tokens and the model's context is {room}; give less of one.")
        self.engine, self.settings = engine, settings
        self.runner = CacheRunner(engine.target, plan_variants(settings.caches, settings.budgets))
        self._texts = {source: load_texts(source, data_dir) for source in settings.texts}
        self.num_prompts = len(settings.texts) * len(settings.contexts) * settings.limit

    def describe(self) -> dict[str, Any]:
        return describe_run({**asdict(self.settings), **MEANING}, evaluation="loss", target=self.engine.target)

    def plan(self) -> Iterator[Planned[LossRecord]]:
        for context in self.settings.contexts:
            for index in range(self.settings.limit):
                for source in self.settings.texts:
                    yield source, f"{context}/{index}", partial(self._measure_stretch, source, context, index)

    def _measure_stretch(self, source: str, context: int, index: int) -> Outcome[LossRecord]:
        rng = random.Random(f"{self.settings.seed}/{source}/{context}/{index}")
        num_tokens = context + self.settings.continuation + 1
        tokens = draw_tokens(self._texts[source], num_tokens, rng, encoder(self.engine.tokenizer))
        return self.measure(source, f"{context}/{index}", tokens, context)

    @torch.inference_mode()
    def measure(self, source: str, prompt_id: str, tokens: Sequence[int], context: int) -> Outcome[LossRecord]:
        """One stretch with all caches: `context` of the `tokens` are read, all but the last of the others decoded."""
        rows, _ = read_prompt(self.engine.target, tokens[:context])
        records: list[LossRecord] = []
        for group, stores in self.runner.filled(rows, len(tokens)):
            watched = [WatchedStore(store, rows) for store in stores]
            losses, divergences, agreements = self._follow(rows, watched, tokens[context:])
            for index, (variant, store) in enumerate(zip(group, watched, strict=True)):
                figures = (losses[0], losses[index + 1], divergences[index + 1], agreements[index + 1])
                records.append(make_record(source, prompt_id, context, variant, figures, store.selection()))
        return Outcome(source, prompt_id, records)

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
