"""Finds the tables and the caption of a result by the evaluation that wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.longbench_report import longbench_caption, longbench_tables
from hoarfrost.evaluation.caches.loss_report import loss_caption, loss_tables
from hoarfrost.evaluation.caches.retrieval_report import retrieval_caption, retrieval_tables
from hoarfrost.evaluation.caches.speed_report import index_caption, index_tables, speed_caption, speed_tables
from hoarfrost.evaluation.decode.report import TextTable

Result = dict[str, Any]
REPORTS: dict[str, tuple[Callable[[Result], list[TextTable]], Callable[[Result], str]]] = {
    "retrieval": (retrieval_tables, retrieval_caption),
    "longbench": (longbench_tables, longbench_caption),
    "loss": (loss_tables, loss_caption),
    "cache speed": (speed_tables, speed_caption),
    "index": (index_tables, index_caption),
}


def report_of(result: Result) -> tuple[list[TextTable], str]:
    """The tables and the caption. Raises `InvalidInput` for what no evaluation of caches wrote."""
    report = REPORTS.get(result.get("evaluation", ""))
    if report is None or not {"machine", "settings", "summary"} <= result.keys():
        raise InvalidInput("The file is no result of `hoarfrost eval`, `bench cache` or `bench index`.")
    tables, caption = report
    return tables(result), caption(result)


def to_markdown(result: Result) -> str:
    tables, caption = report_of(result)
    return "\n".join([*(table.to_markdown() for table in tables), caption + "\n"])
