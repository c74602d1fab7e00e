"""Plain decoding beside one busy process of somebody else: tokens per second with it over those without it, by number of threads.

    python benchmarks/busy.py --json benchmarks/results/busy-smollm2.json
    python benchmarks/busy.py --before ../earlier/src        # an earlier checkout in the same run, in alternation

Each checkout and number of threads has a process of its own, which decodes when told to and sleeps meanwhile. In every repeat each of them
decodes once on the quiet machine and once beside a process that does nothing but run, on whichever core the system gives it. It belongs to
the same terminal session, so that Linux gives it as much as one thread of ours. Medians and ranges are over the repeats.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hoarfrost
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.files import write_json

LONGEST_SECONDS = 60
BUSY = f"import time\nend = time.monotonic() + {LONGEST_SECONDS}\nwhile time.monotonic() < end: pass"
PROMPT = "Tell me about the sea."


def serve(model: str, dtype: str) -> None:
    """Decodes as many tokens as each line of the standard input says; answers with the tokens per second."""
    from hoarfrost import Engine, SamplingParams, TreeConfig

    engine = Engine.load(model, drafter=None, dtype=dtype, device="cpu", tree=TreeConfig.autoregressive())
    prompt = engine.tokenizer(PROMPT)["input_ids"]
    for line in sys.stdin:
        params = SamplingParams(max_new_tokens=int(line), ignore_eos=True)
        began = time.perf_counter()
        [completion] = engine.generate([prompt], params)
        seconds = time.perf_counter() - began - completion.statistics.prefill_seconds
        print(len(completion.token_ids) / seconds, flush=True)


class Worker:
    """A process that decodes with the code in `source`, on so many threads."""

    def __init__(self, source: Path, num_threads: int, arguments: argparse.Namespace) -> None:
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": str(num_threads)}
        command = [sys.executable, __file__, "--serve", "--model", arguments.model, "--dtype", arguments.dtype]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tokens_per_second(self, num_tokens: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{num_tokens}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        time.sleep(0.3)
        yield
    finally:
        process.kill()
        process.wait()


def measure(workers: dict[tuple[str, int], Worker], num_tokens: int, repeats: int) -> list[dict[str, Any]]:
    found: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in workers}
    for worker in workers.values():
        worker.tokens_per_second(num_tokens)
    for _ in range(repeats):
        for key, worker in workers.items():
            quiet = worker.tokens_per_second(num_tokens)
            with busy_process():
                found[key].append((quiet, worker.tokens_per_second(num_tokens)))
    rows = []
    for (code, num_threads), pairs in found.items():
        ratios = [busy / quiet for quiet, busy in pairs]
        rows.append(
            {
                "code": code,
                "threads": num_threads,
                "quiet_tokens_per_second": round(statistics.median(quiet for quiet, _ in pairs), 1),
                "busy_tokens_per_second": round(statistics.median(busy for _, busy in pairs), 1),
                "busy_over_quiet": round(statistics.median(ratios), 3),
                "busy_over_quiet_range": [round(min(ratios), 3), round(max(ratios), 3)],
            }
        )
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="what `hoarfrost run` takes")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=lambda text: [int(part) for part in text.split(",")], default=[1, 2])
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--before", type=Path, help="the src folder of another checkout, to be measured beside this one")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.serve:
        return serve(arguments.model, arguments.dtype)
    sources = {"before": arguments.before, "here": Path(hoarfrost.__file__).parents[1]}
    workers = {
        (code, num_threads): Worker(source, num_threads, arguments)
        for num_threads in arguments.threads
        for code, source in sources.items()
        if source is not None
    }
    try:
        rows = measure(workers, arguments.tokens, arguments.repeats)
    finally:
        for worker in workers.values():
            worker.stop()
    for row in rows:
        print(row)
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in ("model", "dtype", "tokens", "repeats")}
        write_json(arguments.json, {**describe_run(settings), "summary": rows})
    return None


if __name__ == "__main__":
    main()
