"""Hoarfrost itself, measured from outside like its peers; and the reference answers that say how far every peer has to decode.

A request with `messages` instead of `prompt_ids` is a reference: they are put into the model's chat template and decoded plainly until the
answer ends or starts to repeat itself. It gives `prompt_ids`, `token_ids` without an end-of-sequence token, and `text`; or
`{"does_not_fit": true}` where prompt and answer may exceed the model's context.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from protocol import Answer, Job, Stopwatch, serve
from transformers.utils import logging

import hoarfrost
from hoarfrost import Engine, Limits, SamplingParams, TreeConfig
from hoarfrost.evaluation.prompts.encoding import encode_messages


def load(job: Job) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Answer]]:
    torch.set_num_threads(job.num_threads)
    logging.disable_progress_bar()
    engine = Engine.load(
        str(job.model), drafter=str(job.drafter) if job.drafter else None, dtype=job.dtype, device="cpu", limits=Limits(prefix_bytes=0)
    )

    def decode(request: dict[str, Any]) -> Answer:
        if "messages" in request:
            return reference(engine, request["messages"], request["max_new_tokens"])
        stopwatch = Stopwatch()
        params = SamplingParams(max_new_tokens=request["max_new_tokens"])
        for piece in engine.stream(request["prompt_ids"], params, tree=tree_of(request["mode"])):
            stopwatch.arrive(*piece.token_ids)
        return stopwatch.answer()

    versions = {"hoarfrost": hoarfrost.__version__, "torch": torch.__version__}
    dtype = job.dtype if engine.target.weights == "float" else f"{job.dtype}, weights {engine.target.weights}"
    return {"versions": versions, "dtype": dtype, "tree_budget": TreeConfig().budget}, decode


def tree_of(mode: str) -> TreeConfig:
    """`ar`, `chain`, or `tree` with the engine's default budget."""
    return {"ar": TreeConfig.autoregressive, "chain": TreeConfig.chain, "tree": TreeConfig}[mode]()


def reference(engine: Engine, messages: list[dict[str, str]], max_new_tokens: int) -> Answer:
    prompt_ids = encode_messages(engine, messages)
    if len(prompt_ids) + max_new_tokens > engine.target.max_positions:
        return {"does_not_fit": True}
    params = SamplingParams(max_new_tokens=max_new_tokens, stop_on_repetition=True)
    [completion] = engine.generate([prompt_ids], params, tree=TreeConfig.autoregressive())
    ended = completion.token_ids[-1] in engine.target.eos_token_ids
    return {
        "prompt_ids": prompt_ids,
        "token_ids": completion.token_ids[:-1] if ended else completion.token_ids,
        "text": completion.text,
    }


if __name__ == "__main__":
    serve(load)
