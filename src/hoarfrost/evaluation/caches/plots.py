"""Figures of `hoarfrost eval loss`, `bench cache` and `bench index` results, and which figures belong to which evaluation of caches.

As in `plots`, series differ in colour, line and marker, and figures are made as objects and returned; needs matplotlib (the `plot` extra).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

from matplotlib.figure import Figure

from hoarfrost.evaluation.caches.retrieval_plots import CACHE_STYLES, OTHER_STYLE, plot_accuracy, plot_retrieval
from hoarfrost.evaluation.caches.variants import FULL, cache_title
from hoarfrost.evaluation.decode.plots import DARK, PANEL_HEIGHT, PANEL_WIDTH

Result = dict[str, Any]
FULL_STYLE: dict[str, Any] = {"color": DARK, "marker": ".", "linestyle": "-"}
Series = dict[str, list[tuple[float, float]]]


def plot_longbench(result: Result) -> list[tuple[str, Figure]]:
    """The mean score over the budget."""
    figure = plot_accuracy(result)
    return [] if figure is None else [("longbench-budget", figure)]


def plot_loss(result: Result) -> list[tuple[str, Figure]]:
    """How far the predictions are from the full cache's, over the budget: a panel per source and context."""
    rows = sorted((row for row in result["summary"] if row["budget"] is not None), key=itemgetter("budget"))
    panels = []
    for texts, context in dict.fromkeys((row["texts"], row["context"]) for row in result["summary"]):
        here = [row for row in rows if (row["texts"], row["context"]) == (texts, context)]
        panels.append((f"{texts}, {context:,} tokens", "KL to the full cache (nats)", _series(here, "cache", "budget", itemgetter("kl"))))
    return [("loss-budget", _panels("budget (rows per KV head)", panels))] if rows else []


def plot_speed(result: Result) -> list[tuple[str, Figure]]:
    """Time per token and bytes over the length of the context."""
    rows = sorted(result["summary"], key=lambda row: row["context"])

    def series(*fields: str, unit: int = 1) -> Series:
        return _series(rows, "cache", "context", lambda row: sum(row[field] for field in fields) / unit)

    time = series("ms_per_token")
    hot, held = series("hot_bytes", unit=2**20), series("hot_bytes", "cold_bytes", "index_bytes", unit=2**20)
    return [
        ("cache-time", _panels("context (rows)", [("", "ms per token", time)])),
        ("cache-bytes", _panels("context (rows)", [("Fast memory", "MiB", hot), ("All that is held", "MiB", held)])),
    ]


def plot_index(result: Result) -> list[tuple[str, Figure]]:
    """Time to build and to search over the number of keys, where there are several numbers; the data that comes first."""
    rows = sorted((row for row in result["summary"] if row["data"] == result["summary"][0]["data"]), key=lambda row: row["keys"])
    if len({row["keys"] for row in rows}) < 2:
        return []
    build, search = (_series(rows, "index", "keys", itemgetter(field)) for field in ("build_ms_per_head", "query_ms"))
    return [("index-growth", _panels("keys", [("Build", "ms per KV head", build), ("Search", "ms per KV head", search)]))]


MAKERS: dict[str, Callable[[Result], list[tuple[str, Figure]]]] = {
    "retrieval": plot_retrieval,
    "longbench": plot_longbench,
    "loss": plot_loss,
    "cache speed": plot_speed,
    "index": plot_index,
}


def make_cache_figures(result: Result) -> list[tuple[str, Figure]]:
    """(File stem, figure) for every figure that the result of an evaluation of caches has data for."""
    make = MAKERS.get(result["evaluation"])
    return [] if make is None else make(result)


def _series(rows: Sequence[dict[str, Any]], name: str, place: str, value: Callable[[dict[str, Any]], float]) -> Series:
    return {one: [(row[place], value(row)) for row in rows if row[name] == one] for one in dict.fromkeys(row[name] for row in rows)}


def _panels(xlabel: str, panels: Sequence[tuple[str, str, Series]]) -> Figure:
    """A panel per title, label and series, with both axes logarithmic, and one legend."""
    figure = Figure(figsize=(len(panels) * PANEL_WIDTH, PANEL_HEIGHT + 0.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, ylabel, series) in zip(axes, panels, strict=True):
        for name, points in series.items():
            style = FULL_STYLE if name == FULL else CACHE_STYLES.get(name, OTHER_STYLE)
            axis.plot(*zip(*points, strict=True), label=cache_title(name), **style)
        places = sorted({place for points in series.values() for place, _ in points})
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_xticks(places, labels=[f"{place // 1024:g}k" if place % 1024 == 0 else f"{place:,}" for place in places])
        axis.minorticks_off()
        axis.set_title(title)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
