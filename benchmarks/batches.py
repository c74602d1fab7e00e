"""Tokens per second over the number of requests that are decoded together: plain decoding, fixed trees, trees that choose their own size.

    python benchmarks/batches.py --json benchmarks/results/batches-smollm2.json

All prompts are given at once; when an answer ends, the next prompt takes its place, so batches shrink towards the end of a run. Each
variant keeps what it learns from run to run, as an engine does. Variants alternate in an order drawn anew for every run; the first run of
each is not counted. Time is that of the whole call less the prefills; answers are as long as they may be, whatever they say.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.engine.guessing import Guesser
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.prompts.sets import load_sets
from hoarfrost.files import write_json

VARIANTS = {"AR": TreeConfig.autoregressive(), "DDTree 4": TreeConfig(budget=4), "DDTree auto": TreeConfig()}


def tokens_per_second(engine: Engine, guesser: Guesser, tree: TreeConfig, prompts: list[list[int]], params: SamplingParams) -> float:
    engine.guesser = guesser
    began = time.perf_counter()
    completions = engine.generate(prompts, params, tree=tree)
    seconds = time.perf_counter() - began - sum(one.statistics.prefill_seconds for one in completions)
    return sum(len(one.token_ids) - 1 for one in completions) / seconds


def measure(engine: Engine, arguments: argparse.Namespace, prompts: list[list[int]], temperature: float) -> list[dict[str, Any]]:
    rows = []
    for batch_size in arguments.batches:
        engine.max_batch_size = batch_size
        guessers = {name: engine.new_guesser() for name in VARIANTS}
        found: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for run in range(arguments.runs + 1):
            params = SamplingParams(max_new_tokens=arguments.max_new_tokens, temperature=temperature, seed=run, ignore_eos=True)
            for name in random.Random(run).sample(list(VARIANTS), len(VARIANTS)):
                found[name].append(tokens_per_second(engine, guessers[name], VARIANTS[name], prompts, params))
        plain = found["AR"][1:]
        for name, rates in found.items():
            ratios = [one / other for one, other in zip(rates[1:], plain, strict=True)]
            rows.append(
                {
                    "temperature": temperature,
                    "batch_size": batch_size,
                    "mode": name,
                    "tokens_per_second": round(statistics.median(rates[1:]), 1),
                    "over_ar": round(statistics.median(ratios), 3),
                    "over_ar_range": [round(min(ratios), 3), round(max(ratios), 3)],
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8, 16])
    parser.add_argument("--sets", default="gsm8k,mt_bench")
    parser.add_argument("--limit", type=int, default=12, help="prompts of each set")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    engine = Engine.load("smollm2", dtype=arguments.dtype)
    prompts = [engine.chat(prompt.turns[0]) for prompt in load_sets(arguments.sets.split(","), limit=arguments.limit)]
    header = describe_run({"num_prompts": len(prompts)}, target=engine.target)
    summary = [row for temperature in (0.0, 1.0) for row in measure(engine, arguments, prompts, temperature)]
    title = f"{len(prompts)} prompts, smollm2, {arguments.dtype}"
    table = Table("temperature", "batch", "mode", "tokens/s", "over AR", "range", title=title)
    for row in summary:
        low, high = row["over_ar_range"]
        values = (row["temperature"], row["batch_size"], row["mode"], f"{row['tokens_per_second']:.0f}", f"{row['over_ar']:.2f}")
        table.add_row(*map(str, values), f"{low:.2f}-{high:.2f}")
    Console().print(table)
    if arguments.json:
        write_json(arguments.json, {**header, "summary": summary})


if __name__ == "__main__":
    main()
