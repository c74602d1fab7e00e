"""The tables of a retrieval result, from its JSON alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hoarfrost.evaluation.caches.summary import AVERAGE
from hoarfrost.evaluation.caches.variants import cache_title
from hoarfrost.evaluation.decode.report import TextTable

Summary = dict[str, Any]


def retrieval_tables(result: dict[str, Any]) -> list[TextTable]:
    """Accuracy in per cent: per length a table with a column per task, and where there are several tasks one of their means."""
    rows = result["summary"]
    lengths = dict.fromkeys(row["length"] for row in rows)
    tables = [_task_table(length, [row for row in rows if row["length"] == length and row["task"] != AVERAGE]) for length in lengths]
    num_tasks = len({row["task"] for row in rows} - {AVERAGE})
    title = "Accuracy in %" if num_tasks == 1 else f"Accuracy in %, mean of {num_tasks} tasks"
    means = [row for row in rows if num_tasks == 1 or row["task"] == AVERAGE]
    grown = [row for row in means if row["page_fill"] is not None]
    growth_tables = [_growth_table(result["settings"]["num_decoded"], grown)] if grown else []
    return [*(tables if num_tasks > 1 else []), _mean_table(title, means), *growth_tables]


def retrieval_caption(result: dict[str, Any]) -> str:
    """Where and how the figures were measured, in sentences."""
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
    return " ".join([run_caption(result), *sentences])


def run_caption(result: dict[str, Any]) -> str:
    """The model and the machine, in a sentence."""
    machine, settings = result["machine"], result["settings"]
    return (
        f"{settings['model']} in {settings['dtype']} on {settings['device']}, {settings['num_threads']} threads "
        f"({', '.join([machine['cpu'] or 'unknown CPU', *machine['accelerators']])}), commit {result['commit'] or 'unknown'}."
    )


def variant_cells(row: Summary) -> tuple[str, str]:
    return cache_title(row["cache"]), "all" if row["budget"] is None else str(row["budget"])


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


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
        low, high = row["interval"]
        shares = (percent(row["accuracy"]), f"{percent(low)}-{percent(high)}", percent(row["retained"]), percent(row["agreement"]))
        lines.append((str(row["length"]), *variant_cells(row), *shares))
    return TextTable(title, ("length", "cache", "budget", "accuracy", "95 %", "of full", "same"), 2, tuple(lines))


def _growth_table(num_decoded: int, rows: Sequence[Summary]) -> TextTable:
    lines = [
        (str(row["length"]), *variant_cells(row), percent(row["page_fill"]), f"{row['insert_ms']:.2f}", f"{row['insert_max_ms']:.2f}")
        for row in rows
    ]
    title = f"Pages while {num_decoded} tokens were decoded"
    return TextTable(title, ("length", "cache", "budget", "fill %", "insertion ms", "slowest ms"), 2, tuple(lines))
