"""From the logits of a block to a finished draft tree with its visibility mask: the native builder against the plain twin.

    python benchmarks/tree_build.py --json benchmarks/results/tree_build.json

The logits are drawn like a drafter's: the best token of depth d has probability 0.9 * 0.93^(d - 1) on average, the others share the rest
by a power law. The plain side takes the log-softmax of all rows in float32, their `budget` best by `torch.topk`, and grows the tree with
heapq. The native side reads a row when a node first leads to its depth, so what it saves depends on the tree: the depth that the tree
reaches is given. The two alternate; medians over the pairs, and the spread of their ratio. Rounding may order near ties differently: by
how much the two trees' expected numbers of accepted tokens differ is given too.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.files import write_json
from hoarfrost.tree import Candidates, DraftTree, Marginals, build_trees, candidates_of, grow_trees
from hoarfrost.tree.plain import build_tree_plain

BUDGETS = (16, 32, 64, 128, 256, 512, 1024)
NUM_BLOCKS = 4  # different logits, taken in turn
BONUS_TOKEN_ID = 0
BATCH_SIZE, BATCH_BUDGET = 8, 64


def drafter_logits(horizon: int, vocab_size: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Logits [horizon, vocab_size] with the profile that the module's docstring describes."""
    random = np.random.default_rng(seed)
    tail = np.arange(1, vocab_size) ** -1.5
    rows = []
    for depth in range(horizon):
        best = random.beta(4, 4 / (0.9 * 0.93**depth) - 4)
        probabilities = np.concatenate(([best], (1 - best) * tail / tail.sum()))
        rows.append(np.log(probabilities)[random.permutation(vocab_size)])
    return torch.tensor(np.stack(rows)).to(dtype)


def build_natively(logits: Tensor, budget: int) -> DraftTree:
    tree = build_trees([Marginals(logits)], [BONUS_TOKEN_ID], budget)[0]
    tree.visible()
    return tree


def build_plainly(logits: Tensor, budget: int) -> DraftTree:
    log_probs, token_ids = torch.log_softmax(logits.float(), dim=1).topk(min(budget, logits.shape[1]), dim=1)
    tree = build_tree_plain(log_probs.numpy(), token_ids.numpy(), BONUS_TOKEN_ID, budget)
    tree.visible()
    return tree


def expected_tokens(tree: DraftTree, logits: Tensor) -> float:
    """The expected number of accepted tokens under the marginals: the sum over nodes of their probability (DDTree, proposition 1)."""
    log_probs = torch.log_softmax(logits.double(), dim=1).numpy()
    scores = np.zeros(tree.num_rows)
    for row in range(1, tree.num_rows):
        scores[row] = scores[tree.parents[row]] + log_probs[tree.depths[row] - 1, tree.token_ids[row]]
    return float(np.exp(scores[1:]).sum())


def milliseconds(build: Callable[[Tensor, int], DraftTree], logits: Tensor, budget: int) -> float:
    began = time.perf_counter()
    build(logits, budget)
    return 1000 * (time.perf_counter() - began)


def measure(blocks: list[Tensor], budget: int, num_pairs: int) -> dict[str, object]:
    native_trees, plain_trees = ([build(logits, budget) for logits in blocks] for build in (build_natively, build_plainly))
    differences = [
        abs(expected_tokens(ours, logits) - expected_tokens(twin, logits))
        for ours, twin, logits in zip(native_trees, plain_trees, blocks, strict=True)
    ]
    turns = [blocks[index % len(blocks)] for index in range(num_pairs)]
    pairs = [(milliseconds(build_natively, logits, budget), milliseconds(build_plainly, logits, budget)) for logits in turns]
    ratios = [plain / native for native, plain in pairs]
    return {
        "budget": budget,
        "depth": statistics.mean(int(tree.depths.max()) for tree in native_trees),
        "difference_in_expected_tokens": max(differences),
        "native_ms": statistics.median(native for native, _ in pairs),
        "plain_ms": statistics.median(plain for _, plain in pairs),
        "speedup": statistics.median(ratios),
        "speedup_min": min(ratios),
        "speedup_max": max(ratios),
    }


def measure_batch(horizon: int, vocab_size: int, dtype: torch.dtype, num_repeats: int) -> dict[str, object]:
    """Milliseconds per tree for a batch, from logits and from candidates at hand."""
    logits = [drafter_logits(horizon, vocab_size, dtype, seed) for seed in range(BATCH_SIZE)]
    marginals, roots = [Marginals(one) for one in logits], [BONUS_TOKEN_ID] * BATCH_SIZE
    candidates: list[Candidates] = candidates_of(marginals, BATCH_BUDGET)
    whole, growing = [], []
    for _ in range(num_repeats):
        began = time.perf_counter()
        build_trees(marginals, roots, BATCH_BUDGET)
        between = time.perf_counter()
        grow_trees(candidates, roots, BATCH_BUDGET)
        growing.append(time.perf_counter() - between)
        whole.append(between - began)
    per_tree, grown = (1000 * statistics.median(times) / BATCH_SIZE for times in (whole, growing))
    return {
        "batch_size": BATCH_SIZE,
        "budget": BATCH_BUDGET,
        "ms_per_tree": per_tree,
        "growing_ms_per_tree": grown,
        "top_k_share": 1 - grown / per_tree,
    }


def table_of(summary: list[dict[str, object]]) -> Table:
    table = Table("budget", "depth", "native ms", "plain ms", "speed-up", "spread", "difference")
    for row in summary:
        spread = f"{row['speedup_min']:.1f} - {row['speedup_max']:.1f}"
        figures = (f"{row['depth']:.1f}", f"{row['native_ms']:.3f}", f"{row['plain_ms']:.2f}", f"{row['speedup']:.1f} x")
        table.add_row(str(row["budget"]), *figures, spread, f"{row['difference_in_expected_tokens']:.0e}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=21, help="alternating measurements per budget, at least 5")
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--vocab-size", type=int, default=151_936)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.pairs < 5:
        parser.error(f"--pairs is {arguments.pairs}; a median needs 5 or more")
    dtype = getattr(torch, arguments.dtype)
    blocks = [drafter_logits(arguments.horizon, arguments.vocab_size, dtype, seed) for seed in range(NUM_BLOCKS)]
    summary = [measure(blocks, budget, arguments.pairs) for budget in BUDGETS]
    title = f"{arguments.horizon} x {arguments.vocab_size} {arguments.dtype} logits to a tree with its mask"
    batch = measure_batch(arguments.horizon, arguments.vocab_size, dtype, arguments.pairs)
    Console().print(title, table_of(summary), sep="\n")
    Console().print(
        f"A batch of {BATCH_SIZE} at budget {BATCH_BUDGET}: {batch['ms_per_tree']:.3f} ms per tree, "
        f"{batch['growing_ms_per_tree']:.3f} of it growing; the top-k is {batch['top_k_share']:.0%}."
    )
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("horizon", "vocab_size", "dtype", "pairs")}
        header = describe_run({**settings, "seeds": list(range(NUM_BLOCKS))})
        write_json(arguments.json, {**header, "summary": summary, "batch": batch})
    return 0


if __name__ == "__main__":
    sys.exit(main())
