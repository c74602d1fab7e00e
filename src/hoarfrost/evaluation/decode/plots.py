"""Figures of a decoding result (speed-up by set, budget curve, acceptance, stages of a round, reliability), and of peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

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
from hoarfrost.evaluation.common.tables import Result, thread_count
from hoarfrost.evaluation.decode.figure_data import (
    BudgetCurve,
    StageBars,
    acceptance_histogram,
    at_temperature,
    budget_curve,
    speedup_bars,
    stage_bars,
    temperatures,
)
from hoarfrost.evaluation.decode.paper import SET_NAMES
from hoarfrost.evaluation.decode.peers import OVERALL
from hoarfrost.evaluation.decode.reliability import calibration_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAR_STYLES: tuple[dict[str, Any], ...] = (
    {"color": ORANGE, "hatch": "////"},
    {"color": BLUE},
    {"color": GREEN, "hatch": "...."},
)
STAGE_STYLES: dict[str, dict[str, Any]] = {
    "draft": {"color": ORANGE, "hatch": "////"},
    "build": {"color": GREEN, "hatch": "...."},
    "verify": {"color": BLUE},
    "walk": {"color": SKY, "hatch": "\\\\\\\\"},
    "host": {"color": GREY, "hatch": "xxxx"},
}


def plot_decoding(result: Result) -> Iterator[Named]:
    """Every figure that a decoding result has data for."""
    makers: dict[str, Callable[[Result], Figure | None]] = {
        "speedup": plot_speedups,
        "budget": plot_budget_curves,
        "acceptance": plot_acceptance,
        "stages": plot_stages,
        "reliability": plot_reliability,
    }
    for stem, make in makers.items():
        figure = make(result)
        if figure is not None:
            yield stem, figure


def plot_speedups(result: Result) -> Figure | None:
    """Speed-up over plain decoding by set, a panel per temperature."""
    found = {temperature: speedup_bars(at_temperature(result, temperature)) for temperature in temperatures(result)}
    shown = {temperature: bars for temperature, bars in found.items() if bars is not None}
    if not shown:
        return None
    num_sets = max(len(bars.sets) for bars in shown.values())
    figure, axes = panels(len(shown), 1, max(PANEL_WIDTH, 1 + 0.85 * num_sets), 2.6)
    for axis, (temperature, bars) in zip(axes, shown.items(), strict=True):
        width = 0.8 / len(bars.bars)
        for index, (label, values) in enumerate(bars.bars.items()):
            places = [place + (index + 0.5) * width - 0.4 for place, value in enumerate(values) if value is not None]
            present = [value for value in values if value is not None]
            spread = [[value - low for value, low, _ in present], [high - value for value, _, high in present]]
            heights = [value for value, _, _ in present]
            axis.bar(places, heights, 0.94 * width, label=label, **BAR_STYLES[index])
            axis.errorbar(places, heights, spread, fmt="none", ecolor=DARK, elinewidth=0.8, capsize=1.5)
        axis.axhline(1.0, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)))
        axis.set_xticks(range(len(bars.sets)), [SET_NAMES.get(name, name).replace("SWE-bench ", "SWE-bench\n") for name in bars.sets])
        axis.set_xlim(-0.55, len(bars.sets) - 0.45)
        axis.tick_params(axis="x", length=0, labelsize=8)
        axis.grid(axis="x", visible=False)
        axis.set_ylabel("speed-up over AR")
        axis.set_title(f"Temperature {temperature:g}")
    legend(figure, axes[0])
    return figure


def plot_budget_curves(result: Result) -> Figure | None:
    """Speed-up and tau over the tree's budget, a row per temperature."""
    shown: list[tuple[float, str, BudgetCurve]] = []
    for temperature in temperatures(result):
        summaries = at_temperature(result, temperature)
        curves = [(quantity, budget_curve(summaries, quantity)) for quantity in ("speedup", "tau")]
        shown.extend((temperature, quantity, curve) for quantity, curve in curves if curve is not None)
    if not shown:
        return None
    num_columns = len({quantity for _, quantity, _ in shown})
    figure, axes = panels(len(shown) // num_columns, num_columns)
    names = {"speedup": "speed-up over AR", "tau": "tau (tokens per pass)"}
    for axis, (temperature, quantity, curve) in zip(axes, shown, strict=True):
        _draw_curve(axis, curve)
        axis.set_ylabel(names[quantity])
        axis.set_title(f"Temperature {temperature:g}")
    legend(figure, axes[0])
    return figure


def _draw_curve(axis: Axes, curve: BudgetCurve) -> None:
    if len(curve.by_set) > 1:
        for index, values in enumerate(curve.by_set.values()):
            axis.plot(curve.budgets, values, color="#BBBBBB", linewidth=0.8, label=None if index else "each prompt set")
    axis.plot(curve.budgets, curve.mean, color=BLUE, linewidth=2, marker="o", markersize=5, label="DDTree, fixed budget (mean)")
    if curve.auto is not None:
        axis.axhline(curve.auto, color=GREEN, linewidth=1.6, linestyle="--", label="DDTree auto (mean)")
    if curve.chain is not None:
        axis.axhline(curve.chain, color=VERMILION, linewidth=1.8, linestyle=":", label="DFlash chain (mean)")
    powers_of_two(axis, curve.budgets)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("tree budget (nodes)")


def plot_acceptance(result: Result) -> Figure | None:
    """How many tokens a round gave, chain against tree, a panel per temperature."""
    found = {temperature: acceptance_histogram(result, temperature) for temperature in temperatures(result)}
    shown = {temperature: histogram for temperature, histogram in found.items() if histogram is not None}
    if not shown:
        return None
    figure, axes = panels(1, len(shown))
    for axis, (temperature, histogram) in zip(axes, shown.items(), strict=True):
        width = 0.84 / len(histogram.shares)
        for index, (label, shares) in enumerate(histogram.shares.items()):
            places = [length + (index + 0.5) * width - 0.42 for length in range(1, len(shares))]
            bars = BAR_STYLES[0 if label == "DFlash chain" else 1]
            axis.bar(
                places, [100 * share for share in shares[1:]], 0.94 * width, label=f"{label} (mean {histogram.means[label]:.2f})", **bars
            )
        axis.set_ylim(top=1.28 * axis.get_ylim()[1])  # room for the legend
        longest = max(len(shares) for shares in histogram.shares.values())
        axis.set_xticks(range(1, longest))
        axis.tick_params(axis="x", length=0)
        axis.grid(axis="x", visible=False)
        axis.set_xlabel("tokens from one pass of the target, the bonus counted")
        axis.set_ylabel("rounds (%)")
        axis.set_title(f"Temperature {temperature:g}")
        axis.legend(loc="upper right")
    return figure


def plot_stages(result: Result) -> Figure | None:
    """Where the time of a round goes, a bar per mode and budget, a panel per temperature."""
    found = {temperature: stage_bars(at_temperature(result, temperature)) for temperature in temperatures(result)}
    shown = {temperature: bars for temperature, bars in found.items() if bars is not None}
    if not shown:
        return None
    num_bars = max(len(bars.milliseconds) for bars in shown.values())
    figure, axes = panels(1, len(shown), 1.2 * PANEL_WIDTH, 1.3 + 0.32 * num_bars)
    for axis, (temperature, bars) in zip(axes, shown.items(), strict=True):
        _draw_stages(axis, bars)
        axis.set_title(f"Temperature {temperature:g}")
    legend(figure, axes[0])
    return figure


def _draw_stages(axis: Axes, bars: StageBars) -> None:
    labels = list(bars.milliseconds)
    starts = [0.0] * len(labels)
    for index, stage in enumerate(bars.stages):
        widths = [bars.milliseconds[label][index] for label in labels]
        axis.barh(range(len(labels)), widths, 0.7, left=starts, label=stage, **STAGE_STYLES.get(stage, {"color": DARK}))
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for place, (label, end) in enumerate(zip(labels, starts, strict=True)):
        axis.annotate(f"{bars.per_token[label]:.2f} ms/token", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(labels)), labels)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.3 * max(starts))
    axis.grid(axis="y", visible=False)
    axis.set_xlabel("milliseconds per round")


def plot_reliability(result: Result) -> Figure | None:
    """Expected against observed acceptance, as drafted and as calibrated: a mark per record, larger for more guesses."""
    records = result.get("reliability")
    if not records:
        return None
    figure, axes = panels(1, 2, PANEL_HEIGHT + 0.9, PANEL_HEIGHT + 0.6)
    for axis, calibrated, title in zip(axes, (False, True), ("as drafted", "as calibrated"), strict=True):
        _draw_reliability(axis, [one for one in records if one["calibrated"] is calibrated])
        axis.set_title(f"{title}, mean error {calibration_error(records, calibrated):.3f}")
    return figure


def _draw_reliability(axis: Axes, records: Sequence[dict[str, Any]]) -> None:
    largest = max(record["count"] for record in records)
    marks: Sequence[tuple[bool, str, dict[str, Any]]] = (
        (True, "on the greedy spine", {"marker": "o", "facecolors": BLUE, "edgecolors": "white"}),
        (False, "off the spine", {"marker": "s", "facecolors": "none", "edgecolors": VERMILION}),
    )
    axis.plot((0, 1), (0, 1), color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), label="perfectly calibrated")
    for on_spine, label, mark in marks:
        chosen = [record for record in records if record["spine"] is on_spine]
        sizes = [8 + 90 * (record["count"] / largest) ** 0.5 for record in chosen]
        axis.scatter(
            [record["expected"] for record in chosen],
            [record["observed"] for record in chosen],
            sizes,
            linewidths=0.9,
            label=label,
            clip_on=False,
            zorder=3,
            **mark,
        )
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_aspect("equal")
    axis.set_xlabel("expected acceptance")
    axis.set_ylabel("observed acceptance")
    axis.legend(loc="upper left", markerscale=0.7)


def plot_peers(result: Result) -> Iterator[Named]:
    """Tokens/s of every engine over all prompts."""
    rates = {
        result["peers"][one["peer"]]["label"]: (one["peer"].startswith("hoarfrost"), one["tokens_per_second"])
        for one in result["summary"]
        if one["set"] == OVERALL and one["tokens_per_second"] is not None
    }
    if not rates:
        return
    figure, [axis] = panels(1, 1, 1.4 * PANEL_WIDTH, 0.6 + 0.3 * len(rates))
    for place, (is_own, rate) in enumerate(rates.values()):
        axis.barh(place, rate, 0.7, **BAR_STYLES[1 if is_own else 0])
        axis.annotate(f"{rate:.0f}", (rate, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(rates)), list(rates))
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(f"tokens/s, {result['settings']['model']}, {thread_count(result['settings'])}")
    axis.margins(x=0.09)
    yield "peers", figure
