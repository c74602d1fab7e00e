"""The look of every figure: colours, panels, one legend.

Colours are Okabe and Ito's, which colour-blind readers tell apart; every series also differs in hatching, line or marker, so that a grey
print says the same. No display and no global state: figures are made as objects and returned. matplotlib (the `plot` extra) is imported
when the first figure is made, so that tables do without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Named = tuple[str, "Figure"]
"""A figure with the stem of its file's name."""

ORANGE, SKY, GREEN, BLUE, VERMILION, GREY, DARK = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#8A8A8A", "#222222"
PANEL_WIDTH, PANEL_HEIGHT = 4.6, 3.1  # inches
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": DARK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "hatch.linewidth": 0.6,
    "hatch.color": "white",
    "figure.dpi": 200,
    "savefig.dpi": 200,
    "svg.hashsalt": "hoarfrost",
}


@contextmanager
def style() -> Iterator[None]:
    """The look, for as long as figures are made and saved."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        yield


def panels(
    num_rows: int, num_columns: int, width: float = PANEL_WIDTH, height: float = PANEL_HEIGHT, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of panels, each so many inches wide and high; `options` are those of `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(num_columns * width, num_rows * height + 0.4), layout="constrained")
    return figure, list(figure.subplots(num_rows, num_columns, squeeze=False, **options).flat)


def legend(figure: Figure, axis: Axes) -> None:
    """One legend for all panels, below them."""
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def powers_of_two(axis: Axes, places: Sequence[float], label: Callable[[float], str] = str) -> None:
    """A logarithmic first axis with a mark at each place."""
    axis.set_xscale("log", base=2)
    axis.set_xticks(places, [label(place) for place in places])
    axis.minorticks_off()
