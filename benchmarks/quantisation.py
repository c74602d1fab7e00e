"""What weights of few bits and products in whole numbers cost: loss on held-out text, and greedy tokens that change.

    python benchmarks/quantisation.py MODEL.gguf --json benchmarks/results/quantisation.json

The reference is the same weights in float32: for a GGUF file its blocks taken apart. Against it stand bfloat16 and blocks, keys and
values in either type: those of the file (`--weights auto`), or of 8 bits where the model is float. Loss is over stretches of text, every
token predicted from those before it in its stretch; agreement is how often the likeliest token there is that of the reference; answers are
decoded plainly to the same length, and the first token that differs ends the comparison.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.prompts.encoding import encode_messages
from hoarfrost.evaluation.prompts.sets import load_sets
from hoarfrost.files import write_json
from hoarfrost.target import PackedRows, Target

CHUNK = 256
VARIANTS = {
    "float32": {"dtype": "float32", "weights": "float"},
    "bfloat16": {"dtype": "bfloat16", "weights": "float"},
    "blocks, keys in float32": {"dtype": "float32", "weights": "blocks"},
    "blocks, keys in bfloat16": {"dtype": "bfloat16", "weights": "blocks"},
}


def likeliest_and_losses(target: Target, token_ids: list[int]) -> tuple[Tensor, Tensor]:
    """For every token but the first: the likeliest one in its place, and the loss of the one that is there."""
    store, likeliest, losses = target.new_store(len(token_ids)), [], []
    for start in range(0, len(token_ids) - 1, CHUNK):
        chunk = token_ids[start : min(start + CHUNK, len(token_ids) - 1)]
        hidden, _ = target.forward(PackedRows.from_chunk(store, chunk, target.device))
        store.commit(range(len(chunk)))
        logits = target.logits(hidden).float()
        labels = torch.tensor(token_ids[start + 1 : start + 1 + len(chunk)])
        likeliest.append(logits.argmax(-1))
        losses.append(functional.cross_entropy(logits, labels, reduction="none"))
    return torch.cat(likeliest), torch.cat(losses)


def common(answer: list[int], reference: list[int]) -> int:
    """How many tokens are the same before the first that differs."""
    return next((place for place, (a, b) in enumerate(zip(answer, reference, strict=False)) if a != b), min(len(answer), len(reference)))


def measure(engine: Engine, stretches: list[list[int]], prompts: list[list[int]], params: SamplingParams) -> dict[str, Any]:
    judged = [likeliest_and_losses(engine.target, stretch) for stretch in stretches]
    answers = [engine.generate([prompt], params, tree=TreeConfig.autoregressive())[0].token_ids for prompt in prompts]
    return {"likeliest": torch.cat([one for one, _ in judged]), "losses": torch.cat([loss for _, loss in judged]), "answers": answers}


def compare(found: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    difference = found["losses"] - reference["losses"]
    same = [common(*pair) for pair in zip(found["answers"], reference["answers"], strict=True)]
    whole = [length == len(answer) for length, answer in zip(same, reference["answers"], strict=True)]
    return {
        "loss": float(found["losses"].mean()),
        "loss_added": float(difference.mean()),
        "loss_added_error": float(difference.std() / len(difference) ** 0.5),
        "agreement": float((found["likeliest"] == reference["likeliest"]).float().mean()),
        "same_answers": statistics.mean(whole),
        "median_tokens_in_common": statistics.median(same),
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", help="a GGUF file, a folder, or an alias")
    parser.add_argument("--text", type=Path, required=True, help="held-out text")
    parser.add_argument("--stretches", type=int, default=16)
    parser.add_argument("--length", type=int, default=512, help="tokens of a stretch")
    parser.add_argument("--sets", default="gsm8k,math500,humaneval,mbpp,mt_bench")
    parser.add_argument("--limit", type=int, default=8, help="prompts per set")
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--data-dir", type=Path, help="folder whose eval/ holds the sets; else HOARFROST_DATA, else the hub")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    began = describe_run({})  # the code that is measured: a run takes minutes, and the checkout may move on
    held = "auto" if arguments.model.endswith(".gguf") else "int8"
    params = SamplingParams(max_new_tokens=arguments.max_new_tokens)
    prompts = load_sets(arguments.sets.split(","), data_dir=arguments.data_dir, limit=arguments.limit)
    found: dict[str, dict[str, Any]] = {}
    described: dict[str, Any] = {}
    for name, options in VARIANTS.items():
        weights = held if options["weights"] == "blocks" else options["weights"]
        engine = Engine.load(arguments.model, drafter=None, device="cpu", dtype=options["dtype"], weights=weights)
        token_ids = engine.tokenizer(arguments.text.read_text(encoding="utf-8")[: 12 * arguments.stretches * arguments.length])["input_ids"]
        stretches = [token_ids[i * arguments.length : (i + 1) * arguments.length] for i in range(arguments.stretches)]
        encoded = [encode_messages(engine, [{"role": "user", "content": prompt.turns[0]}]) for prompt in prompts]
        found[name] = measure(engine, stretches, encoded, params)
        described[name] = engine.target.weights
    summary = {name: {"weights": described[name], **compare(one, found["float32"])} for name, one in found.items()}
    columns = list(next(iter(summary.values())))
    table = Table("variant", *columns)
    for name, row in summary.items():
        table.add_row(name, *(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()))
    Console().print(table)
    if arguments.json:
        settings = {
            **{name: value for name, value in vars(arguments).items() if name not in ("json", "data_dir", "text", "model")},
            "model": Path(arguments.model).name,
            "text": arguments.text.name,
            "num_threads": torch.get_num_threads(),
        }
        write_json(arguments.json, {**began, "settings": settings, "summary": summary})


if __name__ == "__main__":
    with torch.inference_mode():
        main()
