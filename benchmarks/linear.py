"""One pass over all weight matrices of a small model at the row counts of draft trees: packed product against the stock one.

    python benchmarks/linear.py --json benchmarks/results/linear.json

The two alternate; the medians and the spread of the ratio are over the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from hoarfrost.evaluation.machine import describe_commit, describe_machine, describe_versions
from hoarfrost.files import write_json
from hoarfrost.native.linear import PackedLinear

LAYER_SHAPES = ((384, 384), (384, 128), (384, 128), (384, 384), (384, 1024), (384, 1024), (1024, 384))
NUM_LAYERS, HEAD_SHAPE = 8, (384, 8192)


def milliseconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    weights = [torch.randn(out, into) for into, out in (*LAYER_SHAPES * NUM_LAYERS, HEAD_SHAPE)]
    packed = [PackedLinear(weight) for weight in weights]
    summary = []
    for num_rows in (1, 2, 4, 8, 9, 16, 17, 24, 33, 48, 65):
        inputs = {width: torch.randn(num_rows, width) for width in (384, 1024)}

        def stock(inputs: dict[int, torch.Tensor] = inputs) -> None:
            for weight in weights:
                functional.linear(inputs[weight.shape[1]], weight)

        def ours(inputs: dict[int, torch.Tensor] = inputs) -> None:
            for layer in packed:
                layer(inputs[layer.in_features])

        for work in (stock, ours):
            work()
        pairs = [(milliseconds(stock), milliseconds(ours)) for _ in range(arguments.pairs)]
        ratios = sorted(a / b for a, b in pairs)
        quarter = len(ratios) // 4
        summary.append(
            {
                "rows": num_rows,
                "stock_ms": round(statistics.median(a for a, _ in pairs), 3),
                "packed_ms": round(statistics.median(b for _, b in pairs), 3),
                "ratio": round(statistics.median(ratios), 2),
                "ratio_quartiles": [round(ratios[quarter], 2), round(ratios[-1 - quarter], 2)],
            }
        )
    table = Table("rows", "stock ms", "packed ms", "ratio", "quartiles")
    for row in summary:
        table.add_row(*(str(row[key]) for key in ("rows", "stock_ms", "packed_ms", "ratio", "ratio_quartiles")))
    Console().print(table)
    if arguments.json:
        write_json(
            arguments.json,
            {
                "machine": describe_machine(),
                "versions": describe_versions(),
                "commit": describe_commit(),
                "command": " ".join(sys.argv),
                "summary": summary,
            },
        )


if __name__ == "__main__":
    with torch.inference_mode():
        main()
