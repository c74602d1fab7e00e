"""Table 1 of the DDTree paper (arXiv 2604.12989): what this project's own table is set beside.

Speed-up over plain decoding and tau (mean tokens per pass of the target, the bonus counted) of the DFlash chain and of DDTree at the best
of the budgets 16 ... 1024, on H200 GPUs in bfloat16, one request at a time. Read from the paper, not measured here.
"""

from __future__ import annotations

from typing import NamedTuple


class PaperCell(NamedTuple):
    """One cell of the table."""

    chain_speedup: float
    chain_tau: float
    tree_speedup: float
    tree_tau: float


CITATION = "DDTree paper, arXiv 2604.12989, Table 1"
PAPER_MODELS = ("Qwen3-4B", "Qwen3-8B", "Qwen3-Coder-30B-A3B")
SET_NAMES = {
    "gsm8k": "GSM8K",
    "math500": "MATH-500",
    "aime24": "AIME24",
    "aime25": "AIME25",
    "humaneval": "HumanEval",
    "mbpp": "MBPP",
    "livecodebench": "LiveCodeBench",
    "swebench_lite": "SWE-bench Lite",
    "mt_bench": "MT-Bench",
    "alpaca": "Alpaca",
}
"""How the paper writes the names of the prompt sets."""

_ROWS = {
    (0, "gsm8k"): ((4.77, 6.51, 6.58, 9.33), (4.78, 6.57, 6.75, 9.54), (4.00, 5.18, 5.83, 7.55)),
    (0, "math500"): ((5.54, 7.72, 7.50, 10.71), (5.56, 7.79, 7.52, 10.73), (4.29, 5.58, 6.21, 8.10)),
    (0, "aime24"): ((5.56, 7.54, 7.27, 10.37), (5.38, 7.46, 7.35, 10.42), (3.95, 5.16, 5.93, 7.87)),
    (0, "aime25"): ((5.33, 7.37, 7.23, 10.23), (5.32, 7.39, 6.99, 9.86), (3.98, 5.13, 5.88, 7.63)),
    (0, "humaneval"): ((4.81, 6.62, 6.81, 9.44), (4.84, 6.61, 6.90, 9.67), (6.09, 8.02, 8.22, 10.72)),
    (0, "mbpp"): ((4.38, 6.10, 6.42, 9.16), (4.33, 5.99, 6.39, 9.07), (5.61, 7.19, 7.68, 9.94)),
    (0, "livecodebench"): ((4.97, 7.02, 6.78, 9.79), (5.02, 7.22, 7.10, 10.28), (4.72, 6.32, 6.54, 8.63)),
    (0, "swebench_lite"): ((2.70, 3.66, 4.25, 5.99), (2.65, 3.60, 4.23, 5.91), (2.77, 3.61, 4.38, 5.71)),
    (0, "mt_bench"): ((2.64, 4.38, 4.18, 6.70), (2.56, 4.28, 4.10, 6.58), (2.04, 3.52, 3.27, 5.36)),
    (0, "alpaca"): ((2.03, 3.11, 3.32, 5.35), (2.07, 3.12, 3.36, 5.09), (1.53, 2.22, 2.46, 3.55)),
    (1, "gsm8k"): ((4.35, 5.99, 6.17, 8.87), (4.33, 5.93, 6.27, 8.95), (3.94, 5.08, 5.66, 7.38)),
    (1, "math500"): ((4.65, 6.60, 6.60, 9.61), (4.56, 6.46, 6.59, 9.54), (4.01, 5.32, 5.91, 7.76)),
    (1, "aime24"): ((3.50, 5.01, 5.31, 7.82), (3.46, 4.98, 5.36, 7.79), (3.12, 4.23, 4.94, 7.32)),
    (1, "aime25"): ((3.38, 4.79, 5.08, 7.22), (3.36, 4.79, 5.25, 7.71), (3.17, 4.26, 4.98, 6.62)),
    (1, "humaneval"): ((4.34, 5.97, 6.43, 9.18), (4.00, 5.48, 6.09, 8.59), (5.64, 7.60, 7.88, 10.42)),
    (1, "mbpp"): ((4.03, 5.56, 6.09, 8.72), (3.83, 5.30, 5.87, 8.34), (5.47, 7.03, 7.55, 9.76)),
    (1, "livecodebench"): ((4.53, 6.53, 6.44, 9.44), (4.52, 6.61, 6.46, 9.53), (3.77, 5.57, 5.47, 7.79)),
    (1, "swebench_lite"): ((2.29, 3.07, 3.71, 5.20), (2.10, 2.82, 3.47, 4.86), (2.42, 3.16, 3.80, 4.96)),
    (1, "mt_bench"): ((2.46, 4.05, 3.91, 6.27), (2.30, 3.77, 3.75, 6.02), (1.96, 3.43, 3.10, 5.14)),
    (1, "alpaca"): ((1.97, 2.96, 3.23, 4.97), (1.95, 2.94, 3.20, 4.89), (1.51, 2.14, 2.43, 3.51)),
}
PAPER_TABLE: dict[tuple[float, str], dict[str, PaperCell]] = {
    (temperature, name): {model: PaperCell(*cell) for model, cell in zip(PAPER_MODELS, cells, strict=True)}
    for (temperature, name), cells in _ROWS.items()
}
"""By temperature and prompt set, the cells of the three models."""
