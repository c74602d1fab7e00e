"""Figures of the results of caches: accuracy over the budget, where in the text a passkey is still found, loss, time and bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hoarfrost.evaluation.caches.answers import AVERAGE
from hoarfrost.evaluation.caches.variants import FULL, cache_title
from hoarfrost.evaluation.common.plots import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    ORANGE,
    PANEL_HEIGHT,
    PANEL_WIDTH,
    SKY,
    VERMILION,
    Named,
    legend,
    panels,
    powers_of_two,
)
from hoarfrost.evaluation.common.tables import Result, Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
FULL_STYLE: dict[str, Any] = {"color": DARK, "marker": ".", "linestyle": "-"}
Series = dict[str, list[tuple[float, float]]]


def plot_retrieval(result: Result) -> Iterator[Named]:
    """Accuracy over the budget, and passkeys by depth."""
    for stem, figure in (("retrieval-budget", plot_accuracy(result)), ("retrieval-depth", plot_depths(result))):
        if figure is not None:
            yield stem, figure


def plot_longbench(result: Result) -> Iterator[Named]:
    """The mean score over the budget."""
    figure = plot_accuracy(result)
    if figure is not None:
        yield "longbench-budget", figure


def plot_loss(result: Result) -> Iterator[Named]:
    """How far the predictions are from the full cache's, over the budget: a panel per source and context."""
    rows = sorted((row for row in result["summary"] if row["budget"] is not None), key=itemgetter("budget"))
    shown = []
    for texts, context in dict.fromkeys((row["texts"], row["context"]) for row in result["summary"]):
        here = [row for row in rows if (row["texts"], row["context"]) == (texts, context)]
        shown.append((f"{texts}, {context:,} tokens", "KL to the full cache (nats)", series_of(here, "cache", "budget", itemgetter("kl"))))
    if rows:
        yield "loss-budget", line_panels("budget (rows per KV head)", shown)


def plot_speed(result: Result) -> Iterator[Named]:
    """Time per token and bytes over the length of the context."""
    rows = sorted(result["summary"], key=lambda row: row["context"])

    def series(*fields: str, unit: int = 1) -> Series:
        return series_of(rows, "cache", "context", lambda row: sum(row[field] for field in fields) / unit)

    time = series("ms_per_token")
    hot, held = series("hot_bytes", unit=2**20), series("hot_bytes", "cold_bytes", "index_bytes", unit=2**20)
    yield "cache-time", line_panels("context (rows)", [("", "ms per token", time)])
    yield "cache-bytes", line_panels("context (rows)", [("Fast memory", "MiB", hot), ("All that is held", "MiB", held)])


def plot_accuracy(result: Result) -> Figure | None:
    """Accuracy over the budget, the mean over the tasks if there are several: a panel per length, a line per cache."""
    rows = result["summary"]
    tasks = {row["task"] for row in rows}
    rows = [row for row in rows if row["task"] == (AVERAGE if AVERAGE in tasks else next(iter(tasks)))]
    if not any(row["budget"] is not None for row in rows):
        return None
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    figure, axes = panels(1, len(lengths), sharey=True)
    for axis, length in zip(axes, lengths, strict=True):
        _draw_lines(axis, [row for row in rows if row["length"] == length])
        axis.set_title(f"{length:,} tokens")
        axis.set_xlabel("budget (rows per KV head)")
    axes[0].set_ylabel("accuracy (%)" if AVERAGE not in tasks else f"accuracy (%), mean of {len(tasks) - 1} tasks")
    legend(figure, axes[0])
    return figure


def _draw_lines(axis: Axes, rows: Sequence[Summary]) -> None:
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
    powers_of_two(axis, budgets)
    axis.set_ylim(-3, 103)


def plot_depths(result: Result) -> Figure | None:
    """The share of passkeys found by depth and length: a panel per cache, at the smallest budget."""
    records = [record for record in result["records"] if record["task"] == "passkey"]
    budgets = sorted({record["budget"] for record in records if record["budget"] is not None})
    shown = [record for record in records if record["budget"] in (None, *budgets[:1])]
    if not shown:
        return None
    caches = list(dict.fromkeys(record["cache"] for record in shown))
    lengths = sorted({record["length"] for record in shown})
    width = max(PANEL_WIDTH, 1.5 * len(caches)) / len(caches)
    figure, axes = panels(1, len(caches), width, PANEL_HEIGHT - 0.4, sharey=True)
    for axis, cache in zip(axes, caches, strict=True):
        grid = [[_share_found(shown, cache, length, depth) for length in lengths] for depth in range(NUM_DEPTHS)]
        image = axis.imshow(grid, vmin=0, vmax=100, cmap="cividis", aspect="auto", interpolation="nearest")
        axis.set_title(cache_title(cache) if cache == FULL else f"{cache_title(cache)} {budgets[0]}")
        axis.set_xticks(range(len(lengths)), labels=[f"{length:,}" for length in lengths], rotation=45)
        axis.grid(visible=False)
    axes[0].set_yticks((-0.5, NUM_DEPTHS / 2 - 0.5, NUM_DEPTHS - 0.5), labels=("start", "middle", "end"))
    figure.supxlabel("length (tokens)")
    figure.colorbar(image, ax=axes, label="passkeys found (%)")
    return figure


def _share_found(records: Sequence[Summary], cache: str, length: int, depth: int) -> float:
    """Per cent found in the `depth`-th of `NUM_DEPTHS` stretches of the text; NaN, which is drawn empty, where none was hidden."""
    scores = [
        record["score"]
        for record in records
        if record["cache"] == cache and record["length"] == length and int(NUM_DEPTHS * record["depth"]) == depth
    ]
    return 100 * sum(scores) / len(scores) if scores else float("nan")


def series_of(rows: Sequence[Summary], name: str, place: str, value: Callable[[Summary], float]) -> Series:
    """The points (`place`, `value`) of each `name`."""
    return {one: [(row[place], value(row)) for row in rows if row[name] == one] for one in dict.fromkeys(row[name] for row in rows)}


def line_panels(xlabel: str, shown: Sequence[tuple[str, str, Series]]) -> Figure:
    """Lines by cache: a panel per title, label and series, with both axes logarithmic, and one legend."""
    figure, axes = panels(1, len(shown))
    for axis, (title, ylabel, series) in zip(axes, shown, strict=True):
        for name, points in series.items():
            style = FULL_STYLE if name == FULL else CACHE_STYLES.get(name, OTHER_STYLE)
            axis.plot(*zip(*points, strict=True), label=cache_title(name), **style)
        places = sorted({place for points in series.values() for place, _ in points})
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter("{x:g}")
        powers_of_two(axis, places, lambda place: f"{place // 1024:g}k" if place % 1024 == 0 else f"{place:,}")
        axis.set_title(title)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
    legend(figure, axes[0])
    return figure
