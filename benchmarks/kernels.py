"""Products of rows with one matrix: what every instruction set of the processor makes of every type of weights, over the number of rows.

    python benchmarks/kernels.py --json benchmarks/results/kernels.json

Each product runs over enough copies of the matrix to be read from memory, as the layers of a model are. Times are the least of several
runs: what else the machine does only adds to them. Shares are of this machine's own peaks, measured in the same run: torch's float32
product of large matrices, and the reading of an array that no cache holds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.files import write_json
from hoarfrost.kernels import instruction_sets
from hoarfrost.kernels.linear import Matrix, Weight, make_matrix, multiply
from hoarfrost.kernels.quantized import quantize

KINDS = ("float32", "bfloat16", "Q8_0", "Q4_1")
LEAST_BYTES = 96 << 20  # of all copies: more than a cache holds
COLUMNS = ("type", "set", "rows", "ms", "over one row", "GOP/s", "of float32 peak", "GB/s", "of reading")


def weight_of(kind: str, weight: Tensor) -> Weight:
    return quantize(weight, kind) if kind[0] == "Q" else weight.to(getattr(torch, kind))


def least_seconds(work: Callable[[], object], num_runs: int) -> float:
    work()
    seconds = []
    for _ in range(num_runs):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def peaks(num_runs: int) -> dict[str, float]:
    """Operations and bytes a second that torch gets out of this machine with as many threads."""
    square, array = torch.randn(1024, 1024), torch.ones(1 << 26)
    return {
        "float32_gops": 2 * 1024**3 / least_seconds(lambda: square @ square, num_runs) / 1e9,
        "reading_gbps": array.nbytes / least_seconds(array.sum, num_runs) / 1e9,
    }


def measure(arguments: argparse.Namespace, peak: dict[str, float]) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    outputs, inputs = arguments.shape
    weight = torch.randn(outputs, inputs) / inputs**0.5
    for kind in arguments.kinds:
        held = weight_of(kind, weight)
        for instruction_set in arguments.sets:
            first = make_matrix(held, None, instruction_set)
            matrices = [first, *(make_matrix(held, None, instruction_set) for _ in range(LEAST_BYTES // first.nbytes))]
            one_row = 0.0
            for num_rows in arguments.rows:
                rows = torch.randn(num_rows, inputs).to(torch.bfloat16 if kind == "bfloat16" else torch.float32)
                seconds = least_seconds(lambda: [product(matrix, rows) for matrix in matrices], arguments.runs)  # noqa: B023
                one_row = one_row or seconds
                gops = 2 * num_rows * outputs * inputs * len(matrices) / seconds / 1e9
                gbps = first.nbytes * len(matrices) / seconds / 1e9
                yield {
                    "type": kind,
                    "set": instruction_set,
                    "rows": num_rows,
                    "ms": 1000 * seconds / len(matrices),
                    "over_one_row": seconds / one_row,
                    "gops": gops,
                    "of_float32_peak": gops / peak["float32_gops"],
                    "gbps": gbps,
                    "of_reading": gbps / peak["reading_gbps"],
                }


def product(matrix: Matrix, rows: Tensor) -> Tensor:
    return multiply(matrix, rows, torch.float32)


def parse() -> argparse.Namespace:
    def listed(text: str) -> list[str]:
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", type=lambda text: tuple(map(int, text.split("x"))), default=(1536, 576), help="outputs x inputs")
    parser.add_argument("--kinds", type=listed, default=list(KINDS))
    parser.add_argument("--sets", type=listed, default=instruction_sets())
    parser.add_argument("--rows", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2, 4, 8, 16, 32, 64, 512])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    peak = peaks(arguments.runs)
    table = Table(*COLUMNS, title=f"{peak['float32_gops']:.0f} GOP/s in float32, {peak['reading_gbps']:.1f} GB/s of reading")
    summary = list(measure(arguments, peak))
    for row in summary:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()))
    Console().print(table)
    if arguments.json:
        settings = {"num_threads": arguments.threads, "shape": list(arguments.shape), "num_runs": arguments.runs}
        write_json(arguments.json, {**describe_run(settings), "peaks": peak, "summary": summary})


if __name__ == "__main__":
    main()
