"""The ways of decoding that a benchmark can compare, by name: the one place that knows names, labels and what sets each tree apart.

Plain data, so that a command can list the names without loading anything. A tree mode is measured with every budget asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DecodeMode:
    """`options` are the fields of `TreeConfig`, besides the budget, in which a tree mode differs from the default."""

    name: str
    label: str
    is_tree: bool = True
    options: Mapping[str, bool] = field(default_factory=dict)


MODES = {
    mode.name: mode
    for mode in (
        DecodeMode("ar", "AR", is_tree=False),
        DecodeMode("chain", "DFlash chain", is_tree=False),
        DecodeMode("tree", "DDTree"),
        DecodeMode("tree-uncoupled", "DDTree uncoupled", options={"coupling": False}),
        DecodeMode("tree-uncalibrated", "DDTree uncalibrated", options={"calibration": False}),
        DecodeMode("tree-unretrieved", "DDTree unretrieved", options={"retrieval": False}),
        DecodeMode("tree-published", "DDTree as published", options={"coupling": False, "calibration": False, "retrieval": False}),
    )
}


def mode_label(mode: str, budget: int | str) -> str:
    """How tables and plots call a mode; trees are told apart by their budget, a number of nodes or "auto"."""
    return f"{MODES[mode].label} {budget}" if MODES[mode].is_tree else MODES[mode].label
