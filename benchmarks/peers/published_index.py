"""Hoarfrost's page indexes beside the published one of IceCache (M-DCI), on the same keys, one thread each.

    .venv/bin/python benchmarks/peers/published_index.py --json benchmarks/results/index-published.json [--source FOLDER]

M-DCI's source is fetched from GitHub at a fixed commit, or copied from a clone that `--source` names, compiled and run in an environment of
its own (`workers/mdci_worker.py`). It is built as IceCache builds it (`anchors`: most keys only look at the parents of keys near them) and
with the nearest parent for every key (`exact`), which is what `dci` does here. Builds and searches alternate in an order drawn anew each
time. A search is for the 4 query heads of a KV head; of single queries come `recall`, the share of the 12 best keys that the 12 pages found
hold, and `mass`, their share of the softmax.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tarfile
import tempfile
import urllib.request
from collections import defaultdict
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import BUILD, HERE, PeerFailure, make_environment
from rich.console import Console
from rich.table import Table
from torch import Tensor
from worker_process import WorkerProcess

from hoarfrost.cache.index import new_index
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.machine import describe_run
from hoarfrost.evaluation.index.benchmark import DATA, EVICTION_BYTES, GROUP, Truth, elapsed_ms, is_fetched, lay_out, make_head
from hoarfrost.files import write_json

COMMIT = "1137dbb"
ARCHIVE = "https://github.com/yuzhenmao/M-DCI/archive/{commit}.tar.gz"
PUBLISHED = {"anchors": 120, "exact": 0}  # the interval of the anchors
OURS = ("dci", "ice")
TIMEOUT_SECONDS = 120.0
NUM_PAGES, PAGE_SIZE = 12, 16


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="a clone of M-DCI; by default its source is fetched")
    parser.add_argument("--keys", type=int, default=32768)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, default=BUILD / "index-published.json")
    return parser.parse_args()


def source_of(given: Path | None) -> Path:
    """A copy of M-DCI's source that may be compiled in place."""
    folder = BUILD / "mdci" / "source"
    if given is not None:
        if not (given / "dciknn").is_dir():
            raise InvalidInput(f"{given} is no clone of M-DCI: it has no folder dciknn.")
        return Path(shutil.copytree(given, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git", "PaxHeader")))
    if not folder.is_dir():
        unfinished = folder.with_name("source.partial")
        unfinished.mkdir(parents=True, exist_ok=True)
        address = ARCHIVE.format(commit=COMMIT)
        try:
            with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer, tarfile.open(fileobj=answer, mode="r|gz") as archive:
                archive.extractall(unfinished, filter="data")
        except OSError as error:
            raise InvalidInput(f"{address} cannot be fetched ({error}); give a clone with --source.") from None
        next(unfinished.iterdir()).rename(folder)
    return folder


class Comparison:
    """Keys and queries of one kind, on disk for the worker, and what was measured on them so far."""

    def __init__(self, arguments: argparse.Namespace, data: str, folder: Path) -> None:
        heads = [make_head(data, arguments.keys, arguments.dim, GROUP * arguments.repeats, head) for head in range(arguments.heads)]
        self.keys, self.queries = torch.stack([head.keys for head in heads]), torch.stack([head.queries for head in heads])
        self.indexes = {name: new_index(name, PAGE_SIZE) for name in OURS}
        self.build_ms: dict[str, list[float]] = defaultdict(list)
        self.query_ms: dict[str, list[float]] = defaultdict(list)
        self.recall: dict[str, list[float]] = defaultdict(list)
        self.mass: dict[str, list[float]] = defaultdict(list)
        self._keys_file, self._queries_file, self._cold = folder / "keys.npy", folder / "queries.npy", torch.zeros(EVICTION_BYTES // 4)
        np.save(self._keys_file, self.keys.numpy())

    def measure(self, worker: WorkerProcess, turn: int) -> None:
        """Builds and asks all indexes once."""
        group = self.queries[:, turn * GROUP : (turn + 1) * GROUP].contiguous()
        np.save(self._queries_file, group.numpy())
        truth = Truth.of(group, self.keys)
        for name in random.Random(turn).sample([*PUBLISHED, *OURS], len(PUBLISHED) + len(OURS)):
            if name in PUBLISHED:
                self._measure_published(worker, name, truth)
            else:
                self._measure_ours(name, group, truth)

    def _measure_published(self, worker: WorkerProcess, name: str, truth: Truth) -> None:
        built = worker.ask({"keys": str(self._keys_file), "interval": PUBLISHED[name]}, TIMEOUT_SECONDS)
        found = worker.ask({"queries": str(self._queries_file), "num_pages": NUM_PAGES}, TIMEOUT_SECONDS)
        self.build_ms[name].append(built["build_ms"])
        self.query_ms[name].append(found["query_ms"])
        fetched = torch.zeros(truth.shares.shape, dtype=torch.bool)
        for head, of_head in enumerate(found["rows"]):
            for query, rows in enumerate(of_head):
                fetched[head, query, rows] = True
        self._judge(name, truth, fetched)

    def _measure_ours(self, name: str, group: Tensor, truth: Truth) -> None:
        index, scale = self.indexes[name], self.keys.shape[2] ** -0.5
        self.build_ms[name].append(elapsed_ms(partial(index.build, self.keys)) / len(self.keys))
        pages = lay_out(index, self.keys)
        together = group[:, None].contiguous()
        self._cold.add_(1)  # whatever the caches hold is overwritten
        self.query_ms[name].append(elapsed_ms(partial(index.select, together, NUM_PAGES, scale, pages)) / len(self.keys))
        alone = [index.select(together[:, :, query : query + 1], NUM_PAGES, scale, pages) for query in range(GROUP)]
        self._judge(name, truth, torch.stack([is_fetched(index, one) for one in alone], dim=1))

    def _judge(self, name: str, truth: Truth, fetched: Tensor) -> None:
        """Takes in which keys `[heads, query heads, keys]` were fetched."""
        self.recall[name].append(float(fetched.gather(2, truth.best).float().mean()))
        self.mass[name].append(float((truth.shares * fetched).sum(dim=-1).mean()))

    def rows(self, data: str) -> list[dict[str, Any]]:
        """What is kept; the first build and search of each is not."""
        return [
            {
                "index": name,
                "data": data,
                "keys": self.keys.shape[1],
                "build_ms_per_head": statistics.median(self.build_ms[name][1:]),
                "fastest_build_ms": min(self.build_ms[name]),
                "query_ms": statistics.median(self.query_ms[name][1:]),
                "fastest_query_ms": min(self.query_ms[name]),
                "recall": statistics.fmean(self.recall[name]),
                "mass": statistics.fmean(self.mass[name]),
            }
            for name in (*PUBLISHED, *OURS)
        ]


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Page indexes, per KV head, beside the published one")
    for heading in ("index", "data", "build ms", "query ms", "recall", "mass"):
        table.add_column(heading, justify="left" if heading in ("index", "data") else "right")
    for row in rows:
        label = f"M-DCI, {row['index']}" if row["index"] in PUBLISHED else row["index"]
        figures = (f"{row[name]:.{digits}f}" for name, digits in (("build_ms_per_head", 1), ("query_ms", 2), ("recall", 2), ("mass", 2)))
        table.add_row(label, row["data"], *figures)
    Console().print(table)


def main() -> None:
    arguments = parse_arguments()
    if min(arguments.keys, arguments.dim, arguments.heads) < 1 or arguments.repeats < 2:
        raise InvalidInput("Give at least 1 of everything, and 2 repeats: the first one is not counted.")
    torch.set_num_threads(1)
    settings = {name: getattr(arguments, name) for name in ("keys", "dim", "heads", "repeats")}
    header = describe_run(settings, evaluation="index-published")
    python = make_environment("mdci", HERE / "requirements-mdci.txt")
    source, rows, greeting = source_of(arguments.source), [], {}
    for data in DATA:
        with tempfile.TemporaryDirectory() as folder:
            command = [str(python), str(HERE / "workers" / "mdci_worker.py"), "--source", str(source)]
            with closing(WorkerProcess(command, BUILD / "mdci.log", 1)) as worker:
                greeting = worker.receive(TIMEOUT_SECONDS)
                comparison = Comparison(arguments, data, Path(folder))
                for turn in range(arguments.repeats):
                    comparison.measure(worker, turn)
            rows += comparison.rows(data)
    show(rows)
    published = {"m-dci": COMMIT, **greeting["versions"]}
    write_json(arguments.json, {**header, "published": published, "summary": rows})


if __name__ == "__main__":
    try:
        main()
    except (InvalidInput, PeerFailure) as error:
        sys.exit(f"error: {error}")
