"""Responses in the target's own words, by the engine that will serve it: prompts of like length side by side, at any temperature.

A response is a function of weights, prompt and seed alone (see `SamplingParams`): of no batch, and of no interruption. It ends with the end
token where the target gives one, and else where it repeats itself or is as long as it may be: text that a model repeats for ever teaches
a drafter nothing that retrieval would not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hoarfrost.engine import Engine
from hoarfrost.sampling import SamplingParams
from hoarfrost.tree import TreeConfig


@dataclass(frozen=True)
class Request:
    """One prompt to answer. `index` keys its noise."""

    index: int
    prompt_ids: tuple[int, ...]
    temperature: float


@dataclass(frozen=True)
class Response:
    token_ids: tuple[int, ...]
    finish_reason: str


class Responder:
    """Answers requests with `engine`, with at most `max_new_tokens` each."""

    def __init__(self, engine: Engine, max_new_tokens: int, seed: int) -> None:
        self.engine, self.max_new_tokens, self.seed = engine, max_new_tokens, seed

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        """Responses in the order of the requests."""
        prompts = [list(request.prompt_ids) for request in requests]
        params = [self.params_of(request) for request in requests]
        completions = self.engine.generate(prompts, params, tree=TreeConfig.autoregressive())  # a full batch has no room for guesses
        return [Response(tuple(one.token_ids), one.finish_reason) for one in completions]

    def params_of(self, request: Request) -> SamplingParams:
        return SamplingParams(
            temperature=request.temperature,
            seed=int(np.random.default_rng([self.seed, request.index]).integers(2**63)),
            max_new_tokens=self.max_new_tokens,
            stop_on_repetition=True,
        )


def batches_of(requests: Sequence[Request], batch_size: int, seed: int) -> list[list[Request]]:
    """Groups requests of like prompt length; the groups come in random order, so that progress is even."""
    ordered = sorted(requests, key=lambda request: len(request.prompt_ids))
    groups = [ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size)]
    np.random.default_rng(seed).shuffle(groups)
    return groups
