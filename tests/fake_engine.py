"""An engine without models: it keeps the engine's contract, answers at once, and its figures are made up but consistent.

An answer depends on the prompt, the seed and nothing else, as the real engine promises; the modes differ in how many tokens a round gives.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from hoarfrost.engine import Completion, Piece, Request, Statistics
from hoarfrost.engine.statistics import STAGES
from hoarfrost.sampling import SamplingParams
from hoarfrost.tree import TreeConfig

TOKENS_PER_ROUND = {"ar": 1, "chain": 2, "tree": 4}
SECONDS_PER_ROUND = {"ar": 0.010, "chain": 0.011, "tree": 0.0125}


def mode_of(tree: TreeConfig) -> str:
    return "ar" if tree.budget == 0 else "chain" if tree.max_width == 1 else "tree"


class FakeTokenizer:
    """One token per character."""

    def __init__(self, chat_template: str | None = "template") -> None:
        self.chat_template = chat_template

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, token_ids))


class FakeEngine:
    """`flips` names modes whose answers differ from plain decoding's in their last token."""

    def __init__(self, *, drafter: bool = True, chat_template: str | None = "template", max_positions: int = 4096, flips: str = "") -> None:
        self.tokenizer: Any = FakeTokenizer(chat_template)
        self.generation_config = SimpleNamespace()
        self.target = SimpleNamespace(
            name="fake",
            max_positions=max_positions,
            dtype=torch.float32,
            weights="float",
            device="cpu",
            model=SimpleNamespace(generation_config=self.generation_config),
        )
        self.drafter = SimpleNamespace(name="fake-drafter", horizon=15) if drafter else None
        self.tree = TreeConfig() if drafter else TreeConfig.autoregressive()
        self.flips = flips
        self.prompts: list[str] = []
        self.params: list[SamplingParams] = []
        self.modes: list[str] = []
        self.interrupt_after: int | None = None
        self.waiting: list[Request] = []
        self.guesser = self.new_guesser()

    def new_guesser(self) -> Any:
        return SimpleNamespace(watch=None)

    def chat(self, messages: str | list[dict[str, str]], *, thinking: bool = False) -> list[int]:
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        said = "".join(f"<{message['role']}>{message['content']}" for message in messages)
        return self.tokenizer(f"{said}<assistant>{'<think>' if thinking else ''}")["input_ids"]

    def add(self, request: Request) -> int:
        self.waiting.append(request)
        return len(self.waiting) - 1

    @property
    def is_idle(self) -> bool:
        return not self.waiting

    def step(self) -> list[tuple[int, Piece]]:
        """The whole answer to the request that came last."""
        request = self.waiting.pop()
        return [(len(self.waiting), piece) for piece in self.stream(request.prompt, request.params, tree=request.tree)]

    def generate(self, prompts: list[list[int]], params: SamplingParams, *, tree: TreeConfig | None = None) -> list[Completion]:
        [ids] = prompts
        pieces = list(self.stream(ids, params, tree=tree))
        token_ids = [token_id for piece in pieces for token_id in piece.token_ids]
        return [Completion("".join(piece.text for piece in pieces), token_ids, pieces[-1].finish_reason, pieces[-1].statistics)]

    def stream(self, prompt: list[int], params: SamplingParams | None = None, *, tree: TreeConfig | None = None) -> Iterator[Piece]:
        mode, params = mode_of(tree or self.tree), params or SamplingParams()
        self.prompts.append(self.tokenizer.decode(prompt))
        self.params.append(params)
        self.modes.append(mode)
        answer = self._answer(prompt, params, mode)
        statistics = Statistics(num_prompt_tokens=len(prompt), prefill_seconds=0.02)
        start, step = 0, 1  # the first token comes from the prompt's own pass, not from a round
        while start < len(answer):
            if self.interrupt_after is not None and start >= self.interrupt_after:
                raise KeyboardInterrupt
            part = answer[start : start + step]
            statistics.num_tokens += len(part)
            if start:
                statistics.record_walk(len(part))
                statistics.record_times(dict.fromkeys(STAGES, SECONDS_PER_ROUND[mode] / len(STAGES)))
            start, step = start + step, TOKENS_PER_ROUND[mode]
            is_last = start >= len(answer)
            yield Piece(self.tokenizer.decode(part), part, len(part) - 1, "length" if is_last else None, statistics if is_last else None)

    def _answer(self, prompt: Sequence[int], params: SamplingParams, mode: str) -> list[int]:
        chance = random.Random(f"{list(prompt)} {params.seed} {params.temperature}")
        answer = [chance.randrange(ord("a"), ord("z")) for _ in range(params.max_new_tokens)]
        if mode == self.flips:
            answer[-1] = ord("!")
        return answer
