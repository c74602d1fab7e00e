"""Figures of a retrieval result: accuracy over the budget, and where in the text each cache still finds the passkey.

As in `plots`, series differ in colour, line and marker, and figures are made as objects and returned; needs matplotlib (the `plot` extra).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from hoarfrost.evaluation.caches.summary import AVERAGE
from hoarfrost.evaluation.caches.variants import FULL, cache_title
from hoarfrost.evaluation.decode.plots import BLUE, DARK, GREEN, GREY, ORANGE, PANEL_HEIGHT, PANEL_WIDTH, SKY, VERMILION

NUM_DEPTHS = 10
LINE_STYLES: tuple[dict[str, Any], ...] = (
    {"color": GREY, "marker": "s", "linestyle": ":"},
    {"color": SKY, "marker": "v", "linestyle": "--"},
    {"color": GREEN, "marker": "D", "linestyle": "-."},
    {"color": ORANGE, "marker": "^", "linestyle": "--"},
    {"color": VERMILION, "marker": "P", "linestyle": "-."},
    {"color": BLUE, "marker": "o", "linestyle": "-"},
)
CACHE_STYLES = dict(zip(("window", "snapkv", "oracle", "quest", "dci", "ice"), LINE_STYLES, strict=True))
OTHER_STYLE: dict[str, Any] = {"color": DARK, "marker": "x", "linestyle": ":"}


def plot_retrieval(result: dict[str, Any]) -> list[tuple[str, Figure]]:
    """(File stem, figure) for every figure that the result has data for."""
    figures = [("retrieval-budget", plot_accuracy(result)), ("retrieval-depth", plot_depths(result))]
    return [(stem, figure) for stem, figure in figures if figure is not None]


def plot_accuracy(result: dict[str, Any]) -> Figure | None:
    """Accuracy over the budget, the mean over the tasks if there are several: a panel per length, a line per cache."""
    rows = result["summary"]
    tasks = {row["task"] for row in rows}
    rows = [row for row in rows if row["task"] == (AVERAGE if AVERAGE in tasks else next(iter(tasks)))]
    if not any(row["budget"] is not None for row in rows):
        return None
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    figure = Figure(figsize=(len(lengths) * PANEL_WIDTH, PANEL_HEIGHT + 0.4), layout="constrained")
    axes = figure.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axis, length in zip(axes, lengths, strict=True):
        _draw_lines(axis, [row for row in rows if row["length"] == length])
        axis.set_title(f"{length:,} tokens")
        axis.set_xlabel("budget (rows per KV head)")
    axes[0].set_ylabel("accuracy (%)" if AVERAGE not in tasks else f"accuracy (%), mean of {len(tasks) - 1} tasks")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _draw_lines(axis: Any, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        if row["cache"] == FULL:
            axis.axhline(100 * row["accuracy"], color=DARK, linewidth=1, label=cache_title(FULL))
    caches = dict.fromkeys(row["cache"] for row in rows if row["budget"] is not None)
    budgets = sorted({row["budget"] for row in rows if row["budget"] is not None})
    for cache in caches:
        points = sorted((row for row in rows if row["cache"] == cache), key=lambda row: row["budget"])
        values = [100 * row["accuracy"] for row in points]
        below = [value - 100 * row["interval"][0] for value, row in zip(values, points, strict=True)]
        above = [100 * row["interval"][1] - value for value, row in zip(values, points, strict=True)]
        style = CACHE_STYLES.get(cache, OTHER_STYLE)
        places = [row["budget"] for row in points]
        axis.errorbar(places, values, yerr=[below, above], label=cache_title(cache), capsize=2, elinewidth=0.7, **style)
    axis.set_xscale("log", base=2)
    axis.set_xticks(budgets, labels=map(str, budgets))
    axis.minorticks_off()
    axis.set_ylim(-3, 103)


def plot_depths(result: dict[str, Any]) -> Figure | None:
    """The share of passkeys found by depth and length: a panel per cache, at the smallest budget."""
    records = [record for record in result["records"] if record["task"] == "passkey"]
    budgets = sorted({record["budget"] for record in records if record["budget"] is not None})
    shown = [record for record in records if record["budget"] in (None, *budgets[:1])]
    if not shown:
        return None
    caches = list(dict.fromkeys(record["cache"] for record in shown))
    lengths = sorted({record["length"] for record in shown})
    figure = Figure(figsize=(max(PANEL_WIDTH, 1.5 * len(caches)), PANEL_HEIGHT), layout="constrained")
    axes = figure.subplots(1, len(caches), sharey=True, squeeze=False)[0]
    for axis, cache in zip(axes, caches, strict=True):
        grid = [[_share_found(shown, cache, length, depth) for length in lengths] for depth in range(NUM_DEPTHS)]
        image = axis.imshow(grid, vmin=0, vmax=100, cmap="cividis", aspect="auto", interpolation="nearest")
        axis.set_title(cache_title(cache) if cache == FULL else f"{cache_title(cache)} {budgets[0]}")
        axis.set_xticks(range(len(lengths)), labels=[f"{length:,}" for length in lengths], rotation=45)
        axis.grid(visible=False)
    axes[0].set_yticks((-0.5, NUM_DEPTHS / 2 - 0.5, NUM_DEPTHS - 0.5), labels=("start", "middle", "end"))
    figure.supxlabel("length (tokens)")
    figure.colorbar(image, ax=list(axes), label="passkeys found (%)")
    return figure


def _share_found(records: Sequence[dict[str, Any]], cache: str, length: int, depth: int) -> float:
    """Per cent found in the `depth`-th of `NUM_DEPTHS` stretches of the text; NaN, which is drawn empty, where none was hidden."""
    scores = [
        record["score"]
        for record in records
        if record["cache"] == cache and record["length"] == length and int(NUM_DEPTHS * record["depth"]) == depth
    ]
    return 100 * sum(scores) / len(scores) if scores else float("nan")
