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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.checks import check_list, check_names
from hoarfrost.evaluation.common.journal import Benchmark, Outcome, Planned
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.decode.modes import MODES
from hoarfrost.evaluation.decode.records import DecodeRecord, summarise
from hoarfrost.evaluation.decode.reliability import Reliability
from hoarfrost.evaluation.prompts.encoding import Message, encode_messages
from hoarfrost.evaluation.prompts.sets import Prompt
from hoarfrost.models import SHIPPED
from hoarfrost.sampling import SamplingParams
from hoarfrost.tree import TreeConfig

if TYPE_CHECKING:
    from hoarfrost.engine import Completion, Engine
    from hoarfrost.engine.guessing import Guesser
    from hoarfrost.engine.plan import Part
    from hoarfrost.kernels import Verdict

NUM_WARM_UP_TOKENS = 32


@dataclass(frozen=True)
class DecodeSettings:
    """What is compared. Every temperature is measured in every mode (`modes`), and every tree mode with every budget."""

    modes: tuple[str, ...] = ("ar", "chain", "tree")
    budgets: tuple[int | str, ...] = (TreeConfig().budget,)
    temperatures: tuple[float, ...] = (SamplingParams().temperature,)
    max_new_tokens: int = SamplingParams().max_new_tokens
    seed: int = SamplingParams().seed
    chat: bool | None = None

    def __post_init__(self) -> None:
        check_list("modes", self.modes)
        check_list("budgets", self.budgets)
        check_list("temperatures", self.temperatures)
        check_names("mode", self.modes, MODES)
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


class DecodeBenchmark(Benchmark[DecodeRecord]):
    """Runs the variants over prompts."""

    record_type = DecodeRecord
    summarise = staticmethod(summarise)

    def __init__(self, engine: Engine, settings: DecodeSettings, prompts: Sequence[Prompt]) -> None:
        self.engine, self.settings, self.prompts, self.num_prompts = engine, settings, prompts, len(prompts)
        self.variants = plan_variants(settings, engine.drafter.horizon if engine.drafter else None)
        self._is_warm = False
        self._guessers: dict[Variant, Guesser] = {}
        self.reliability = Reliability(engine.drafter.horizon if engine.drafter else 1)

    def describe(self) -> dict[str, Any]:
        drafter = self.engine.drafter
        settings = {
            **asdict(self.settings),
            "drafter": drafter_name(drafter.name) if drafter else None,
            "horizon": drafter.horizon if drafter else None,
            "num_prompts": dict(Counter(prompt.set_name for prompt in self.prompts)),
            "stop_on_repetition": True,
            "left_out": "prefill, the first token, the drafter's pass over the prompt",
        }
        return describe_run(settings, target=self.engine.target)

    def plan(self) -> Iterator[Planned[DecodeRecord]]:
        for index, prompt in enumerate(self.prompts):
            yield prompt.set_name, prompt.prompt_id, partial(self.decode_prompt, prompt, index)

    def result(self, header: Mapping[str, Any], outcomes: Sequence[Outcome[DecodeRecord]]) -> dict[str, Any]:
        """With the reliability of guesses of what this process decoded: a resumed run has not seen the rest."""
        return {**super().result(header, outcomes), "reliability": self.reliability.records()}

    def decode_prompt(self, prompt: Prompt, index: int) -> Outcome[DecodeRecord]:
        """Decodes all turns of one prompt in all variants; `index` turns their order and seeds the noise."""
        conversations: dict[float, list[Message]] = {temperature: [] for temperature in self.settings.temperatures}
        records: list[DecodeRecord] = []
        for turn, text in enumerate(prompt.turns):
            for messages in conversations.values():
                messages.append({"role": "user", "content": text})
            ids = {temperature: encode_messages(self.engine, said, self.settings.chat) for temperature, said in conversations.items()}
            if max(map(len, ids.values())) + self.settings.max_new_tokens > self.engine.target.max_positions:
                return Outcome(prompt.set_name, prompt.prompt_id, records, len(prompt.turns) - turn)
            completions = self._decode_variants(ids, index)
            plain = self._plain_completions(completions)
            turn_id = f"{prompt.prompt_id}/{turn + 1}" if len(prompt.turns) > 1 else prompt.prompt_id
            for variant, completion in completions.items():
                reference = plain[variant.temperature] if "ar" in self.settings.modes else None
                records.append(make_record(prompt.set_name, turn_id, variant, completion, reference))
            for temperature, messages in conversations.items():
                messages.append({"role": "assistant", "content": plain[temperature].text})
        self.reliability.settle()
        return Outcome(prompt.set_name, prompt.prompt_id, records)

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
                self._guessers[variant].watch = partial(self.watch, variant)
        return self._guessers[variant]

    def watch(self, variant: Variant, part: Part, token_ids: list[int], verdict: Verdict | None) -> None:
        """Is told of every round of a calibrated tree in which guesses were put to the test (`engine.guessing.Watch`)."""
        if verdict is not None and len(verdict.hits):
            depths = np.arange(len(verdict.hits))
            self.reliability.note(verdict.drafted, verdict.believed, verdict.hits, depths, verdict.off_spine)

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
