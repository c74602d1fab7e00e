"""How a peer's process talks with the driver: one JSON object a line, on stdin and stdout. Needs nothing but Python itself.

A worker gets a `Job` on its command line, loads the model and answers with what it is:
`{"versions": {"ctranslate2": "4.8.5"}, "dtype": "float32"}`. Then it answers requests in turn: `{"prompt_ids": [...],
"max_new_tokens": n, "mode": "ar"}` is decoded greedily to exactly n tokens, whatever ends an answer otherwise, and gives `{"token_ids":
[...], "num_first": f, "prefill_seconds": p, "seconds": s}`: p is the time until the first f tokens came (usually one), s the time
from there to the last. What goes wrong is answered by `{"error": "..."}`; end of input ends the worker.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What a worker is to load. `cache` is a folder of its own for converted weights; `dtype` is a wish, the greeting says what runs."""

    model: Path
    drafter: Path | None
    dtype: str
    num_threads: int
    cache: Path


class Stopwatch:
    """Takes the tokens as they come: `arrive` notes when the first ones did, `answer` stops the time."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._num_first = 0
        self._start = self._first = time.perf_counter()

    def arrive(self, *token_ids: int) -> None:
        if not self._token_ids:
            self._first, self._num_first = time.perf_counter(), len(token_ids)
        self._token_ids.extend(token_ids)

    def answer(self) -> Answer:
        end = time.perf_counter()
        return {
            "token_ids": self._token_ids,
            "num_first": self._num_first,
            "prefill_seconds": self._first - self._start,
            "seconds": end - self._first,
        }


def convert_once(path: Path, convert: Callable[[Path], object]) -> Path:
    """Converted weights at `path`, a file or a folder: made by `convert(path)` if they are not there; one that is cut off leaves none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.partial")
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        convert(unfinished)
        unfinished.rename(path)
    return path


def serve(load: Callable[[Job], tuple[dict[str, Any], Callable[[dict[str, Any]], Answer]]]) -> None:
    """Runs a worker: `load` gives its greeting and the function that answers one request."""
    converse(lambda: load(_parse_job()))


def converse(load: Callable[[], tuple[dict[str, Any], Callable[[dict[str, Any]], Answer]]]) -> None:
    """The same for a worker whose command line is its own business."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not mix with the answers

    def say(answer: Answer) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        greeting, respond = load()
    except Exception as error:
        say({"error": describe(error)})
        raise
    say(greeting)
    for line in sys.stdin:
        try:
            say(respond(json.loads(line)))
        except Exception as error:
            say({"error": describe(error)})


def describe(error: Exception) -> str:
    """One line."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"[:500]


def _parse_job() -> Job:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--drafter", type=Path)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--num-threads", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    return Job(**vars(parser.parse_args()))
