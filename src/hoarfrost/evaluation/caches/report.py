"""The tables of the results of caches, from their JSON alone: retrieval, LongBench beside its published figures, loss, time and memory."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hoarfrost.evaluation.caches.answers import AVERAGE
from hoarfrost.evaluation.caches.longbench_tasks import long_tasks
from hoarfrost.evaluation.caches.variants import cache_title
from hoarfrost.evaluation.common.tables import Report, Result, Summary, TextTable, between, commit, percent, processors

LOSS_HEADER = ("cache", "budget", "loss", "added", "95 %", "KL", "top 1", "mass", "best", "recall")
SPEED_HEADER = ("context", "cache", "ms/token", "slowest", "start s", "hot MiB", "cold MiB", "index MiB", "peak MiB")


def run_sentence(result: Result) -> str:
    """The model and the machine."""
    settings = result["settings"]
    return (
        f"{settings['model']} in {settings['dtype']} on {settings['device']}, {settings['num_threads']} threads "
        f"({processors(result)}), {commit(result)}."
    )


def variant_cells(row: Summary) -> tuple[str, str]:
    return cache_title(row["cache"]), "all" if row["budget"] is None else str(row["budget"])


def report_retrieval(result: Result) -> Report:
    """Accuracy in per cent: per length a table with a column per task, and where there are several tasks one of their means."""
    rows = result["summary"]
    lengths = dict.fromkeys(row["length"] for row in rows)
    tables = [_task_table(length, [row for row in rows if row["length"] == length and row["task"] != AVERAGE]) for length in lengths]
    num_tasks = len({row["task"] for row in rows} - {AVERAGE})
    title = "Accuracy in %" if num_tasks == 1 else f"Accuracy in %, mean of {num_tasks} tasks"
    means = [row for row in rows if num_tasks == 1 or row["task"] == AVERAGE]
    grown = [row for row in means if row["page_fill"] is not None]
    growth_tables = [_growth_table(result["settings"]["num_decoded"], grown)] if grown else []
    return Report([*(tables if num_tasks > 1 else []), _mean_table(title, means), *growth_tables], [_retrieval_note(result)])


def _retrieval_note(result: Result) -> str:
    settings = result["settings"]
    sentences = [
        f"{settings['limit']} samples per task and length.",
        f"Budget: {settings['budget_is']}; {settings['exact']}.",
        "of full: accuracy over that of the full cache; same: answers that are the full cache's, token for token.",
    ]
    if settings["ask_later"]:
        sentences.append("The question went through the cache as well.")
    if settings["num_decoded"]:
        sentences.append(
            f"The last {settings['num_decoded']} tokens before the answer, all facts among them, went through the cache as well. "
            "fill: rows over places of the pages in the end; insertion: what leaves the window at a time goes into the pages of all layers."
        )
    return " ".join([run_sentence(result), *sentences])


def _task_table(length: int, rows: Sequence[Summary]) -> TextTable:
    tasks = tuple(dict.fromkeys(row["task"] for row in rows))
    variants: dict[tuple[str, str], dict[str, Summary]] = {}
    for row in rows:
        variants.setdefault(variant_cells(row), {})[row["task"]] = row
    lines = [
        (*labels, *(percent(by_task[task]["accuracy"]) if task in by_task else "-" for task in tasks))
        for labels, by_task in variants.items()
    ]
    return TextTable(f"Accuracy in % at {length} tokens", ("cache", "budget", *tasks), 1, tuple(lines))


def _mean_table(title: str, rows: Sequence[Summary]) -> TextTable:
    lines = []
    for row in rows:
        shares = (
            percent(row["accuracy"]),
            between(map(percent, row["interval"]), "{}-{}"),
            percent(row["retained"]),
            percent(row["agreement"]),
        )
        lines.append((str(row["length"]), *variant_cells(row), *shares))
    return TextTable(title, ("length", "cache", "budget", "accuracy", "95 %", "of full", "same"), 2, tuple(lines))


def _growth_table(num_decoded: int, rows: Sequence[Summary]) -> TextTable:
    lines = [
        (str(row["length"]), *variant_cells(row), percent(row["page_fill"]), f"{row['insert_ms']:.2f}", f"{row['insert_max_ms']:.2f}")
        for row in rows
    ]
    title = f"Pages while {num_decoded} tokens were decoded"
    return TextTable(title, ("length", "cache", "budget", "fill %", "insertion ms", "slowest ms"), 2, tuple(lines))


@cache
def published() -> dict[str, Any]:
    """The table of the IceCache paper with its source, as read from its web page."""
    content: dict[str, Any] = json.loads(Path(__file__).with_name("longbench_published.json").read_text(encoding="utf-8"))
    return content


def report_longbench(result: Result) -> Report:
    """Ours by group and by task; the published one of the same model, or of the first where there is none of it."""
    variants: dict[tuple[str, str], dict[str, float]] = {}
    for row in result["summary"]:
        variants.setdefault(variant_cells(row), {})[row["task"]] = row["accuracy"]
    ours = [(*labels, {task: share for task, share in tasks.items() if task != AVERAGE}) for labels, tasks in variants.items()]
    tables = [_group_table("Score", ours), _score_table(ours), published_table(result["settings"]["model"])]
    return Report(tables, [_longbench_note(result)])


def _longbench_note(result: Result) -> str:
    settings = result["settings"]
    unit = settings["chinese_unit"]
    limit = "all prompts" if settings["limit"] is None else f"the first {settings['limit']} prompts of each task"
    sentences = [
        run_sentence(result),
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
    full = next((_mean(scores.values()) for _, budget, scores in variants if budget == "all"), 0.0)
    lines = []
    for cache_name, budget, scores in variants:
        means = [_mean([share for task, share in scores.items() if long_tasks()[task].group == group]) for group in groups]
        mean = _mean(scores.values())
        lines.append((cache_name, budget, *map(percent, means), percent(mean), percent(mean / full if full else None)))
    return TextTable(title, ("cache", "budget", *groups, "mean", "of full"), 1, tuple(lines), sections=False)


def _score_table(variants: Sequence[tuple[str, str, dict[str, float]]]) -> TextTable:
    tasks = dict.fromkeys(task for *_, scores in variants for task in scores)
    lines = tuple((task, *(percent(scores.get(task)) for *_, scores in variants)) for task in tasks)
    return TextTable("Score by task", ("task", *(f"{name} {budget}" for name, budget, _ in variants)), 1, lines, sections=False)


def _mean(values: Collection[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def report_loss(result: Result) -> Report:
    """A table per source and context, a row per cache and budget."""
    places = dict.fromkeys((row["texts"], row["context"]) for row in result["summary"])
    tables = []
    for texts, context in places:
        rows = [row for row in result["summary"] if (row["texts"], row["context"]) == (texts, context)]
        title = f"Loss in nats on {texts} behind {context} tokens"
        tables.append(TextTable(title, LOSS_HEADER, 1, tuple(map(_loss_cells, rows))))
    return Report(tables, [_loss_note(result)])


def _loss_note(result: Result) -> str:
    settings = result["settings"]
    return " ".join(
        [
            run_sentence(result),
            f"{settings['limit']} stretches per source and context, {settings['continuation']} tokens decoded in each, teacher-forced.",
            f"Budget: {settings['budget_is']}; the context is read with exact attention.",
            "added: loss over that of the full cache, with its 95 % interval over stretches; KL: divergence from the full cache's "
            "prediction in nats; top 1: both find the same token likeliest; mass: share of the attention to earlier rows that the rows "
            "read would get, in %, best: what as many rows could get; recall: share of those best rows among the rows read.",
        ]
    )


def _loss_cells(row: Summary) -> tuple[str, ...]:
    shares = (percent(row[name]) for name in ("top1", "mass", "best_mass", "recall"))
    return (
        *variant_cells(row),
        f"{row['loss']:.3f}",
        f"{row['added_loss']:.4f}",
        between(row["added_interval"], "{:.4f}..{:.4f}"),
        f"{row['kl']:.4f}",
        *shares,
    )


def report_speed(result: Result) -> Report:
    """Time and memory, the lengths of the context one after the other."""
    rows = sorted(result["summary"], key=lambda row: row["context"])
    table = TextTable("Time and memory of a decoded token", SPEED_HEADER, 2, tuple(map(_speed_cells, rows)))
    return Report([table], [_speed_note(result)])


def _speed_note(result: Result) -> str:
    settings = result["settings"]
    return (
        f"{run_sentence(result)} Stores filled with random rows, budget {settings['budget']}, one search for {settings['reuse']} layer(s), "
        f"median and slowest of {settings['num_steps']} tokens; start: building the indexes; peak: what filling and building took."
    )


def _speed_cells(row: Summary) -> tuple[str, ...]:
    sizes = (row[name] for name in ("hot_bytes", "cold_bytes", "index_bytes", "peak_bytes"))
    times = (f"{row['ms_per_token']:.2f}", f"{row['max_ms']:.2f}", f"{row['start_ms'] / 1000:.2f}")
    return (f"{row['context']:,}", cache_title(row["cache"]), *times, *("-" if size is None else f"{size / 2**20:.1f}" for size in sizes))
