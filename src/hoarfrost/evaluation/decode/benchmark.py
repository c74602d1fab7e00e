"""Plain decoding, DFlash chain and DDTree on the same prompts, same engine, same weights, one after the other.

The modes alternate prompt by prompt in an order that is drawn anew for each, so that a machine that drifts, or remembers what it did just
before (clock rates, caches), touches all alike. Answers end where they start
to repeat themselves: small models loop, and loops flatter every speculative method. Prefill, the first token and the drafter's pass over
the prompt are not counted. A second turn follows plain decoding's first answer in every mode, so that all modes decode the same prompts;
prompts that do not fit the model's context together with a whole answer are left out and counted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.machine import describe_commit, describe_machine, describe_versions
from hoarfrost.evaluation.decode.modes import MODES
from hoarfrost.evaluation.decode.records import DecodeRecord, Journal, PromptOutcome
from hoarfrost.evaluation.decode.reliability import Reliability
from hoarfrost.evaluation.decode.summary import summarise
from hoarfrost.evaluation.prompts.encoding import Message, encode_messages
from hoarfrost.evaluation.prompts.sets import Prompt
from hoarfrost.models import SHIPPED
from hoarfrost.sampling import SamplingParams
from hoarfrost.tree import TreeConfig

if TYPE_CHECKING:
    from hoarfrost.engine import Completion, Engine
    from hoarfrost.engine.guessing import Guesser

NUM_WARM_UP_TOKENS = 32


@dataclass(frozen=True)
class DecodeSettings:
    """What is compared. Every temperature is measured in every mode (`decode_modes`), and every tree mode with every budget."""

    modes: tuple[str, ...] = ("ar", "chain", "tree")
    budgets: tuple[int | str, ...] = (TreeConfig().budget,)
    temperatures: tuple[float, ...] = (SamplingParams().temperature,)
    max_new_tokens: int = SamplingParams().max_new_tokens
    seed: int = SamplingParams().seed
    chat: bool | None = None

    def __post_init__(self) -> None:
        for name, values in (("modes", self.modes), ("budgets", self.budgets), ("temperatures", self.temperatures)):
            if not values or len(set(values)) < len(values):
                raise InvalidInput(f"The list of {name} ({', '.join(map(str, values))}) is empty or names one twice.")
        unknown = [mode for mode in self.modes if mode not in MODES]
        if unknown:
            raise InvalidInput(f"Unknown mode {unknown[0]!r}; choose from {', '.join(MODES)}.")
        for temperature in self.temperatures:
            self.params(temperature, 0)
        for mode in self.modes:
            make_trees(mode, self.budgets)

    def params(self, temperature: float, prompt_index: int) -> SamplingParams:
        """The same noise for a prompt in all modes, other noise for every prompt."""
        return SamplingParams(
            temperature=temperature, seed=self.seed + prompt_index, max_new_tokens=self.max_new_tokens, stop_on_repetition=True
        )


@dataclass(frozen=True)
class Variant:
    """One mode at one temperature. `budget` counts the guesses that can be verified in a round; `"auto"` leaves it to the engine."""

    mode: str
    budget: int | str
    temperature: float
    tree: TreeConfig


def make_trees(mode: str, budgets: Sequence[int | str]) -> list[TreeConfig]:
    """The trees of a mode: one, or for a tree mode one per budget."""
    if mode == "ar":
        return [TreeConfig.autoregressive()]
    if mode == "chain":
        return [TreeConfig.chain()]
    return [TreeConfig(budget, **MODES[mode].options) for budget in budgets]  # type: ignore[arg-type]  # which budgets there are is its word


def plan_variants(settings: DecodeSettings, horizon: int | None) -> list[Variant]:
    """The variants of a run with a drafter that guesses `horizon` tokens (`None`: no drafter)."""
    drafted = [mode for mode in settings.modes if any(tree.budget and not tree.retrieval for tree in make_trees(mode, settings.budgets))]
    if drafted and horizon is None:
        raise InvalidInput(f"The mode {drafted[0]!r} needs a drafter; name one with --drafter, or leave it out with --modes ar,tree.")
    variants = []
    for temperature in settings.temperatures:
        for mode in settings.modes:
            for tree in make_trees(mode, settings.budgets):
                budget = (horizon or 0) if mode == "chain" else tree.budget
                variants.append(Variant(mode, budget, temperature, tree))
    return variants


class DecodeBenchmark:
    """Runs the variants over prompts; `describe` gives the result's header and `run` the whole of it."""

    def __init__(self, engine: Engine, settings: DecodeSettings) -> None:
        self.engine, self.settings = engine, settings
        self.variants = plan_variants(settings, engine.drafter.horizon if engine.drafter else None)
        self._is_warm = False
        self._guessers: dict[Variant, Guesser] = {}
        self.reliability = Reliability(engine.drafter.horizon if engine.drafter else 1)

    def describe(self, prompts: Sequence[Prompt], command: Sequence[str] = ()) -> dict[str, Any]:
        """What a result says beside its figures: JSON values that are the same whenever the same thing is measured on the same machine."""
        target, drafter = self.engine.target, self.engine.drafter
        return {
            "machine": describe_machine(),
            "versions": describe_versions(),
            "commit": describe_commit(),
            "command": list(command),
            "settings": {
                **asdict(self.settings),
                "model": target.name,
                "drafter": drafter_name(drafter.name) if drafter else None,
                "horizon": drafter.horizon if drafter else None,
                "dtype": str(target.dtype).removeprefix("torch."),
                "device": str(target.device),
                "num_threads": torch.get_num_threads(),
                "num_prompts": dict(Counter(prompt.set_name for prompt in prompts)),
                "stop_on_repetition": True,
                "left_out": "prefill, the first token, the drafter's pass over the prompt",
            },
        }

    def run(
        self, prompts: Sequence[Prompt], journal: Journal | None = None, on_prompt: Callable[[Prompt], None] | None = None
    ) -> list[PromptOutcome]:
        """Decodes every prompt that `journal` does not hold yet; `on_prompt` is told of each one that is done."""
        journal = journal or Journal(None)
        outcomes: list[PromptOutcome] = []
        for index, prompt in enumerate(prompts):
            outcome = journal.find(prompt.set_name, prompt.prompt_id)
            if outcome is None:
                outcome = self.decode_prompt(prompt, index)
                journal.add(outcome)
            outcomes.append(outcome)
            if on_prompt:
                on_prompt(prompt)
        return outcomes

    def decode_prompt(self, prompt: Prompt, index: int) -> PromptOutcome:
        """Decodes all turns of one prompt in all variants; `index` turns their order and seeds the noise."""
        conversations: dict[float, list[Message]] = {temperature: [] for temperature in self.settings.temperatures}
        records: list[DecodeRecord] = []
        for turn, text in enumerate(prompt.turns):
            for messages in conversations.values():
                messages.append({"role": "user", "content": text})
            ids = {temperature: encode_messages(self.engine, said, self.settings.chat) for temperature, said in conversations.items()}
            if max(map(len, ids.values())) + self.settings.max_new_tokens > self.engine.target.max_positions:
                return PromptOutcome(prompt.set_name, prompt.prompt_id, len(prompt.turns) - turn, records)
            completions = self._decode_variants(ids, index)
            plain = self._plain_completions(completions)
            turn_id = f"{prompt.prompt_id}/{turn + 1}" if len(prompt.turns) > 1 else prompt.prompt_id
            for variant, completion in completions.items():
                reference = plain[variant.temperature] if "ar" in self.settings.modes else None
                records.append(make_record(prompt.set_name, turn_id, variant, completion, reference))
            for temperature, messages in conversations.items():
                messages.append({"role": "assistant", "content": plain[temperature].text})
        self.reliability.settle()
        return PromptOutcome(prompt.set_name, prompt.prompt_id, 0, records)

    def _decode_variants(self, ids: dict[float, list[int]], index: int) -> dict[Variant, Completion]:
        self._warm_up(ids)
        done = {}
        for variant in random.Random(index).sample(self.variants, len(self.variants)):
            params = self.settings.params(variant.temperature, index)
            self.engine.guesser = self._guesser(variant)
            [done[variant]] = self.engine.generate([ids[variant.temperature]], params, tree=variant.tree)
        return {variant: done[variant] for variant in self.variants}

    def _guesser(self, variant: Variant) -> Guesser:
        """Every variant learns by itself: one that had seen another's answer to the same prompt would know what comes."""
        if variant not in self._guessers:
            self._guessers[variant] = self.engine.new_guesser()
            if variant.tree.calibration and variant.mode == "tree":
                self._guessers[variant].watch = self.reliability.note
        return self._guessers[variant]

    def _plain_completions(self, completions: dict[Variant, Completion]) -> dict[float, Completion]:
        """Per temperature the answer that a conversation goes on with: plain decoding's, or the first mode's where that is not run."""
        answers: dict[float, Completion] = {}
        for variant, completion in completions.items():
            if variant.mode == "ar" or variant.temperature not in answers:
                answers[variant.temperature] = completion
        return answers

    def _warm_up(self, ids: dict[float, list[int]]) -> None:
        """Lets every variant run once before the first one is timed: buffers grow, kernels are picked, pages are touched."""
        if self._is_warm:
            return
        for variant in self.variants:
            params = self.settings.params(variant.temperature, 0)
            short = replace(params, max_new_tokens=min(params.max_new_tokens, NUM_WARM_UP_TOKENS))
            self.engine.guesser = self.engine.new_guesser()
            self.engine.generate([ids[variant.temperature]], short, tree=variant.tree)
        self._is_warm = True


def drafter_name(name: str) -> str:
    """A drafter as a result names it: a shipped one by the alias of its pair, not by where the package lies on this machine."""
    return next((alias for alias, pair in SHIPPED.items() if str(pair.drafter) == name), name)


def make_record(set_name: str, prompt_id: str, variant: Variant, completion: Completion, plain: Completion | None) -> DecodeRecord:
    """The figures of one answer, compared token by token with plain decoding's (`None`: not compared)."""
    statistics = completion.statistics
    difference = None if plain is None else first_difference(completion.token_ids, plain.token_ids)
    num_rounds = statistics.num_rounds
    return DecodeRecord(
        set=set_name,
        prompt_id=prompt_id,
        mode=variant.mode,
        budget=variant.budget,
        temperature=variant.temperature,
        tokens=statistics.num_tokens,
        seconds=statistics.decode_seconds,
        rounds=num_rounds,
        tau=statistics.tau,
        stage_ms={stage: 1000 * seconds / num_rounds for stage, seconds in statistics.stage_seconds.items()} if num_rounds else {},
        tokens_per_second=statistics.tokens_per_second,
        ms_per_round=statistics.ms_per_round,
        prompt_tokens=statistics.num_prompt_tokens,
        prefill_seconds=statistics.prefill_seconds,
        finish_reason=completion.finish_reason,
        accepted_histogram=list(statistics.accepted_histogram),
        agrees=None if plain is None else difference is None,
        first_difference=difference,
    )


def first_difference(token_ids: Sequence[int], others: Sequence[int]) -> int | None:
    """The first index at which two answers differ, one of them ending early included; `None` if they are the same."""
    for index, (token_id, other) in enumerate(zip(token_ids, others, strict=False)):
        if token_id != other:
            return index
    return None if len(token_ids) == len(others) else min(len(token_ids), len(others))


def make_result(header: dict[str, Any], outcomes: Iterable[PromptOutcome], reliability: Reliability | None = None) -> dict[str, Any]:
    """The result file's content: the header of `DecodeBenchmark.describe`, then `skipped` (per set), `records`, `summary`, and the
    `reliability` of guesses (of what this process decoded: a resumed run has not seen the rest)."""
    records: list[DecodeRecord] = []
    skipped: Counter[str] = Counter()
    for outcome in outcomes:
        records.extend(outcome.records)
        skipped[outcome.set] += outcome.num_skipped
    summaries = summarise(records)
    return {
        **header,
        "skipped": {name: count for name, count in skipped.items() if count},
        "records": [asdict(record) for record in records],
        "summary": [asdict(summary) for summary in summaries],
        **({"reliability": reliability.records()} if reliability is not None else {}),
    }
