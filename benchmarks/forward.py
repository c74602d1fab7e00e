"""One pass of a target: fused layers against transformers' own, over row counts, lengths of the past and types.

    python benchmarks/forward.py --json benchmarks/results/forward.json
    python benchmarks/forward.py --shape 200m --pasts 500        # a Qwen3 of 200 M parameters

Both sides run the same random weights over a `DenseStore` with our attention function; the stock side keeps transformers' layers, with
one fused operation per norm and `torch.nn.Linear` (--stock-linears packed: our products instead, which leaves the layers' own cost;
--stock-layers compiled: each layer through `torch.compile`, once per number of rows, the attention left out of it). The two alternate;
medians and ratios are over the pairs. --clock thread counts the processor time of the calling thread, which neighbours on the machine
hardly disturb; use it with --threads 1.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AttentionInterface, AutoModelForCausalLM, LlamaConfig, Qwen3Config

from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.files import write_json
from hoarfrost.kernels.linear import pack_linears
from hoarfrost.target import PackedRows, Target
from hoarfrost.target.fusing import fuse
from hoarfrost.target.loading import DTYPES, use_fused_norms
from hoarfrost.target.packed import ATTENTION_NAME, packed_attention
from hoarfrost.tree import DraftTree

SHAPES = {
    "smollm2": LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        head_dim=64, tie_word_embeddings=True,
    ),
    "200m": Qwen3Config(
        vocab_size=32000, hidden_size=1024, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=16, num_key_value_heads=8,
        head_dim=64, tie_word_embeddings=True,
    ),
}  # fmt: skip
CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}


def load(folder: str, dtype: torch.dtype, *, fused: bool, packed: bool, compiled: bool = False) -> Target:
    AttentionInterface.register(ATTENTION_NAME, torch.compiler.disable(packed_attention))
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=ATTENTION_NAME)
    model.eval().requires_grad_(False)
    stack = fuse(model) if fused else None
    use_fused_norms(model)
    if fused or packed:
        pack_linears(model)
    if compiled:
        for layer in model.base_model.layers:
            layer.compile(dynamic=False)
    return Target(model, None, folder, stack)


def tree_of(num_rows: int) -> DraftTree:
    """One row, or a binary tree."""
    return DraftTree.from_parents([7] * num_rows, [(row - 1) // 2 if row else -1 for row in range(num_rows)])


def one_pass(target: Target, past: int, num_rows: int) -> Callable[[], None]:
    """The pass of one tree behind `past` committed rows, head included."""
    store, tree = target.new_store(past + num_rows), tree_of(num_rows)
    zeros = torch.zeros((target.num_kv_heads, past, target.head_dim), dtype=target.dtype)
    for layer in range(target.num_layers):
        store.append(layer, zeros, zeros)
    store.commit(range(past))

    def run() -> None:
        hidden, _ = target.forward(PackedRows.from_trees([store], [tree], target.device))
        target.logits(hidden)
        store.commit([])

    return run


def compare(stock: Target, fused: Target, past: int, num_rows: int, num_pairs: int, clock: Callable[[], float]) -> dict[str, Any]:
    def milliseconds(work: Callable[[], None]) -> float:
        began = clock()
        work()
        return 1000 * (clock() - began)

    sides = one_pass(stock, past, num_rows), one_pass(fused, past, num_rows)
    for work in sides:
        work()
        work()
    pairs = [(milliseconds(sides[0]), milliseconds(sides[1])) for _ in range(num_pairs)]
    ratios = sorted(a / b for a, b in pairs)
    quarter = len(ratios) // 4
    return {
        "past": past,
        "rows": num_rows,
        "stock_ms": round(statistics.median(a for a, _ in pairs), 3),
        "fused_ms": round(statistics.median(b for _, b in pairs), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_quartiles": [round(ratios[quarter], 2), round(ratios[-1 - quarter], 2)],
    }


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="smollm2")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rows", type=numbers, default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--pasts", type=numbers, default=[100, 500, 2000])
    parser.add_argument("--stock-linears", choices=("torch", "packed"), default="torch")
    parser.add_argument("--stock-layers", choices=("eager", "compiled"), default="eager")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    summary = []
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model: Any = AutoModelForCausalLM.from_config(SHAPES[arguments.shape], dtype=torch.bfloat16)  # type: ignore[no-untyped-call]
        model.save_pretrained(folder)
        for dtype in arguments.dtypes.split(","):
            is_packed, is_compiled = arguments.stock_linears == "packed", arguments.stock_layers == "compiled"
            stock = load(folder, DTYPES[dtype], fused=False, packed=is_packed, compiled=is_compiled)
            fused = load(folder, DTYPES[dtype], fused=True, packed=True)
            for past in arguments.pasts:
                for num_rows in arguments.rows:
                    found = compare(stock, fused, past, num_rows, arguments.pairs, CLOCKS[arguments.clock])
                    summary.append({"dtype": dtype, "layers": fused.num_layers, **found})
    table = Table("dtype", "past", "rows", "stock ms", "fused ms", "ratio", "quartiles")
    for row in summary:
        table.add_row(*(str(row[key]) for key in ("dtype", "past", "rows", "stock_ms", "fused_ms", "ratio", "ratio_quartiles")))
    Console().print(table)
    if arguments.json:
        write_json(arguments.json, {**describe_run({"num_threads": arguments.threads}), "summary": summary})


if __name__ == "__main__":
    with torch.inference_mode():
        main()
