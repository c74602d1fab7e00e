"""LongBench (arXiv 2308.14508) and MiniLongBench (arXiv 2505.19959): prompts, answers and how they are scored.

The wording, the answer's length and the metric of each task are the benchmark's own (`longbench_tasks.json`). A data folder has LongBench
as `long/longbench_TASK.jsonl` and MiniLongBench as `long/minilongbench/MiniLongBench_TASK.json`, whose records carry their prompts
ready-made (with another wording of qasper than LongBench's); without a folder both are read from the Hugging Face hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches import longbench_metrics
from hoarfrost.evaluation.prompts.sets import parse_list
from hoarfrost.evaluation.prompts.sources import HubSource, Record, read_records

BENCHES = ("minilongbench", "longbench")


@dataclass(frozen=True)
class LongTask:
    """One task. `chat`: its prompts go into a chat template; few-shot and code prompts do not. `first_line`: only that line is scored."""

    name: str
    group: str
    prompt: str
    metric: str
    max_new_tokens: int
    chat: bool
    first_line: bool


@dataclass(frozen=True)
class Item:
    """One prompt with its answers, any of which will do; `classes` are those of a classification."""

    task: LongTask
    prompt_id: str
    prompt: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]


@cache
def long_tasks() -> dict[str, LongTask]:
    """The 21 tasks by name."""
    described = json.loads(Path(__file__).with_name("longbench_tasks.json").read_text(encoding="utf-8"))
    return {name: LongTask(name, **fields) for name, fields in described.items()}


def load_items(bench: str, name: str, data_dir: Path | None = None, limit: int | None = None) -> list[Item]:
    """The first `limit` items of a task (`None`: all). Raises `InvalidInput` for what is unknown, missing or in another form."""
    if bench not in BENCHES:
        raise InvalidInput(f"Unknown benchmark {bench!r}; choose from {', '.join(BENCHES)}.")
    if name not in long_tasks():
        raise InvalidInput(f"Unknown LongBench task {name!r}; choose from {', '.join(long_tasks())}.")
    items = list(islice(_items(long_tasks()[name], _records(bench, name, data_dir)), limit))
    if not items:
        raise InvalidInput(f"The task {name} of {bench} has no prompt: its file is empty; leave the task out or fetch the data again.")
    return items


def _records(bench: str, name: str, data_dir: Path | None) -> Iterator[Record]:
    if bench == "longbench":
        return read_records(f"longbench_{name}.jsonl", HubSource("Xnhyacinth/LongBench", "test", config=name), data_dir, "long")
    hub = HubSource("linggm/MiniLongBench", file=f"data/{name}.jsonl")
    return read_records(f"MiniLongBench_{name}.json", hub, data_dir, "long/minilongbench")


def _items(task: LongTask, records: Iterator[Record]) -> Iterator[Item]:
    for index, record in enumerate(records):
        try:
            yield _ready_item(task, index, record) if "origin_prompt" in record else _item(task, index, record)
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise InvalidInput(f"Record {index} of the task {task.name} is not in LongBench's form ({error!r}).") from None


def _item(task: LongTask, index: int, record: Record) -> Item:
    prompt = task.prompt.replace("{input}", record["input"]).replace("{context}", record["context"])
    return Item(task, str(record.get("_id", index)), prompt, _texts(record["answers"]), _texts(record["all_classes"]))


def _ready_item(task: LongTask, index: int, record: Record) -> Item:
    gold = record["gold"]
    if isinstance(gold, dict):
        return Item(task, str(index), record["origin_prompt"], _texts(gold["answers"]), _texts(gold["all_classes"]))
    return Item(task, str(index), record["origin_prompt"], _texts(gold), ())


def _texts(value: Any) -> tuple[str, ...]:
    """A list of texts, which some exports write as text."""
    if value in (None, "None"):
        return ()
    return tuple(map(str, parse_list(value) if isinstance(value, str) else value))


def score(item: Item, prediction: str) -> float:
    """The best score over the answers, between 0 and 1."""
    if item.task.first_line:
        prediction = prediction.lstrip("\n").split("\n")[0]
    if item.task.metric == "classification":
        return max(longbench_metrics.classification(prediction, answer, item.classes) for answer in item.answers)
    metric: longbench_metrics.Metric = getattr(longbench_metrics, item.task.metric)
    return max(metric(prediction, answer) for answer in item.answers)


def cut_middle(token_ids: Sequence[int], max_tokens: int) -> tuple[Sequence[int], Sequence[int]]:
    """The first and the last half of what may stay, as LongBench truncates; the second part is empty if everything may."""
    if len(token_ids) <= max_tokens:
        return token_ids, token_ids[:0]
    half = max_tokens // 2
    return token_ids[:half], token_ids[len(token_ids) - half :]
