"""The tables of a LongBench result: scores per group of tasks and per task, and the published figures of the same kind beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hoarfrost.evaluation.caches.longbench_tasks import long_tasks
from hoarfrost.evaluation.caches.retrieval_report import percent, run_caption, variant_cells
from hoarfrost.evaluation.caches.summary import AVERAGE
from hoarfrost.evaluation.decode.report import TextTable

Summary = dict[str, Any]


@cache
def published() -> dict[str, Any]:
    """The table of the IceCache paper with its source, as read from its web page."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("longbench_published.json").read_text(encoding="utf-8"))
    return content


def longbench_tables(result: dict[str, Any]) -> list[TextTable]:
    """Ours by group and by task; the published one of the same model, or of the first where there is none of it."""
    variants: dict[tuple[str, str], dict[str, float]] = {}
    for row in result["summary"]:
        variants.setdefault(variant_cells(row), {})[row["task"]] = row["accuracy"]
    ours = [(*labels, {task: share for task, share in tasks.items() if task != AVERAGE}) for labels, tasks in variants.items()]
    return [_group_table("Score", ours), _task_table(ours), published_table(result["settings"]["model"])]


def longbench_caption(result: dict[str, Any]) -> str:
    """Where and how the figures were measured, in sentences."""
    settings = result["settings"]
    unit = settings["chinese_unit"]
    limit = "all prompts" if settings["limit"] is None else f"the first {settings['limit']} prompts of each task"
    sentences = [
        run_caption(result),
        f"{settings['bench']}, {limit}, cut in the middle where they do not fit; metrics as LongBench's, times 100.",
        f"Budget: {settings['budget_is']}; {settings['exact']}.",
        f"Published: {published()['source']}; budget there: {published()['budget_is']}.",
    ]
    if unit != "word":
        sentences.append(f"Chinese is scored by {unit}s, because jieba is not installed: those scores are not LongBench's.")
    return " ".join(sentences)


def published_table(model: str) -> TextTable:
    """The published figures for `model`, or for the first published model."""
    rows = published()["longbench"]
    names = list(dict.fromkeys(row["model"] for row in rows))
    name = next((one for one in names if one.lower() in model.lower()), names[0])
    cells = []
    for row in rows:
        if row["model"] == name:
            budget = "all" if row["budget"] is None else str(row["budget"])
            cells.append((row["method"], budget, {task: value / 100 for task, value in row["scores"].items()}))
    return _group_table(f"Published for {name}", cells)


def _group_table(title: str, variants: Sequence[tuple[str, str, dict[str, float]]]) -> TextTable:
    """Means over the tasks of each group and over all tasks, and the latter over the full cache's, which is the row with budget `all`."""
    groups = dict.fromkeys(task.group for task in long_tasks().values() if any(task.name in scores for *_, scores in variants))
    full = next((_mean(list(scores.values())) for _, budget, scores in variants if budget == "all"), 0.0)
    lines = []
    for cache_name, budget, scores in variants:
        means = [_mean([share for task, share in scores.items() if long_tasks()[task].group == group]) for group in groups]
        mean = _mean(list(scores.values()))
        lines.append((cache_name, budget, *map(percent, means), percent(mean), percent(mean / full if full else None)))
    return TextTable(title, ("cache", "budget", *groups, "mean", "of full"), 1, tuple(lines), sections=False)


def _task_table(variants: Sequence[tuple[str, str, dict[str, float]]]) -> TextTable:
    tasks = dict.fromkeys(task for *_, scores in variants for task in scores)
    lines = tuple((task, *(percent(scores.get(task)) for *_, scores in variants)) for task in tasks)
    return TextTable("Score by task", ("task", *(f"{name} {budget}" for name, budget, _ in variants)), 1, lines, sections=False)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
