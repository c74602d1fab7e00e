"""Figures hold every series of a retrieval result, and there is none where there is nothing to show."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("matplotlib")
from hoarfrost.evaluation.caches.plots import NUM_DEPTHS, plot_depths, plot_retrieval

CACHES = ("window", "ice", "new")


def result(**changes: Any) -> dict[str, Any]:
    variants = [("full", None), *((cache, budget) for cache in CACHES for budget in (64, 256))]
    summary = [
        {"task": task, "length": length, "cache": cache, "budget": budget, "accuracy": 0.5, "interval": (0.4, 0.6)}
        for task in ("passkey", "keys", "average")
        for length in (1024, 2048)
        for cache, budget in variants
    ]
    records = [
        {
            "task": "passkey",
            "length": length,
            "cache": cache,
            "budget": budget,
            "depth": (index + 0.5) / 5,
            "score": float(cache != "window"),
        }
        for length in (1024, 2048)
        for index in range(5)
        for cache, budget in variants
    ]
    return {"summary": summary, "records": records, **changes}


def test_a_panel_per_length_and_a_line_per_cache() -> None:
    figures = dict(plot_retrieval(result()))
    assert list(figures) == ["retrieval-budget", "retrieval-depth"]
    axes = figures["retrieval-budget"].axes
    assert [axis.get_title(loc="center") or axis.get_title(loc="left") for axis in axes] == ["1,024 tokens", "2,048 tokens"]
    assert set(axes[0].get_legend_handles_labels()[1]) == {"full", *CACHES}
    figures["retrieval-budget"].canvas.draw()


def test_depths_are_shown_at_the_smallest_budget_and_gaps_stay_empty() -> None:
    figure = plot_depths(result())
    assert figure is not None
    grid = figure.axes[0].images[0].get_array()
    assert grid is not None
    assert grid.shape == (NUM_DEPTHS, 2)
    assert [math.isnan(row[0]) for row in grid.filled(math.nan).tolist()] == [depth % 2 == 0 for depth in range(NUM_DEPTHS)]
    window = figure.axes[1].images[0].get_array()
    assert window is not None
    assert window.max() == 0
    figure.canvas.draw()


def test_without_budgets_or_passkeys_there_is_no_figure() -> None:
    only_full = [row for row in result()["summary"] if row["cache"] == "full"]
    assert list(plot_retrieval(result(summary=only_full, records=[]))) == []
