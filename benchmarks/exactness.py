"""Token-for-token equality with plain decoding in float32, over real prompts, temperatures, budgets, chains, trees and batches.

    python benchmarks/exactness.py smollm2 --data-dir DATA --json benchmarks/results/exactness.json

For every sampling setting each prompt is decoded plainly once, alone; every tree setting then has to give the same tokens, alone and in
batches. Where one differs, plain decoding is taken up to that token and its two best choices there are compared: less than 1e-4 apart
counts as a near tie, anything else as a fault (and the exit code is 1).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.prompts.sets import load_prompts
from hoarfrost.files import write_json
from hoarfrost.sampling import gumbel_noise_range, probabilities
from hoarfrost.target import PackedRows

SETS = ("gsm8k", "math500", "humaneval", "mt_bench")
SETTINGS = (
    SamplingParams(),
    SamplingParams(temperature=0.7, seed=1),
    SamplingParams(temperature=0.7, top_p=0.9, seed=2),
    SamplingParams(temperature=1.0, seed=3),
    SamplingParams(temperature=1.0, top_p=0.9, seed=4),
)
TREES = {
    **{f"tree {budget}": TreeConfig(budget) for budget in (1, 8, 15, 32, 64)},
    "tree auto": TreeConfig(),
    "published 32": TreeConfig.published(32),
    "chain": TreeConfig.chain(),
}
BATCH_SIZES = (1, 4)
NEAR_TIE = 1e-4


def gap_of_best_two(engine: Engine, prompt: list[int], tokens: list[int], params: SamplingParams) -> float:
    """How far plain decoding's two best choices lie apart for the token after `tokens`, noise included."""
    token_ids = prompt + tokens
    store = engine.target.new_store(len(token_ids))
    hidden, _ = engine.target.forward(PackedRows.from_chunk(store, token_ids, engine.target.device))
    row = engine.target.logits(hidden[-1:])[0].float()
    if params.temperature > 0:
        row = probabilities(row, params).log() + gumbel_noise_range(params.seed, len(token_ids), len(row), row.device)
    best = torch.topk(row, 2).values
    return float(best[0] - best[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--drafter", default="auto")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--prompts-per-set", type=int, default=10)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engine = Engine.load(arguments.model, drafter=arguments.drafter, dtype="float32")
    prompts = [
        engine.chat(prompt.turns[0])
        for name in SETS
        for prompt in load_prompts(name, data_dir=arguments.data_dir, limit=arguments.prompts_per_set)
    ]
    summary = []
    for setting in SETTINGS:
        params = replace(setting, max_new_tokens=arguments.max_new_tokens)
        plain = [engine.generate([prompt], params, tree=TreeConfig.autoregressive())[0].token_ids for prompt in track(prompts, "plain")]
        for name, tree in track(TREES.items(), f"temperature {params.temperature}, top-p {params.top_p}"):
            for batch_size in BATCH_SIZES:
                engine.max_batch_size = batch_size
                near_ties, faults = 0, 0
                for prompt, expected, completion in zip(prompts, plain, engine.generate(prompts, params, tree=tree), strict=True):
                    if completion.token_ids == expected:
                        continue
                    pairs = enumerate(zip(completion.token_ids, expected, strict=False))
                    at = next((index for index, (ours, theirs) in pairs if ours != theirs), None)
                    tie = at is not None and gap_of_best_two(engine, prompt, expected[:at], params) < NEAR_TIE
                    near_ties, faults = near_ties + tie, faults + (not tie)
                row = {"temperature": params.temperature, "top_p": params.top_p, "tree": name, "batch": batch_size}
                summary.append(row | {"prompts": len(prompts), "tokens": sum(map(len, plain)), "near_ties": near_ties, "faults": faults})
    if arguments.json:
        settings = {"num_prompts": len(prompts), "max_new_tokens": arguments.max_new_tokens, "seeds": [one.seed for one in SETTINGS]}
        write_json(arguments.json, {**describe_run(settings, target=engine.target), "summary": summary})
    near_ties, faults = (sum(row[key] for row in summary) for key in ("near_ties", "faults"))
    compared = sum(row["tokens"] for row in summary)
    Console().print(
        f"{len(summary)} runs over {len(prompts)} prompts, {compared:,} tokens compared: {near_ties} near ties, {faults} faults"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
