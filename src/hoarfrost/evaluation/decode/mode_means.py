"""What each mode gives on average over the prompt sets: the table in which the ideas behind the default tree are told apart.

The mean is over sets, not prompts, as in the paper. A mode that was not measured on every set has a dash.
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

from hoarfrost.evaluation.decode.figure_data import Summary, at_temperature, set_names, temperatures
from hoarfrost.evaluation.decode.modes import MODES, mode_label
from hoarfrost.evaluation.decode.report import TextTable


def mode_means_table(result: dict[str, Any]) -> TextTable | None:
    """A row per mode and budget, speed-up/tau per temperature; `None` where only one tree mode was measured."""
    modes = list(dict.fromkeys((summary["mode"], summary["budget"]) for summary in result["summary"]))
    if len({mode for mode, _ in modes if MODES[mode].is_tree}) < 2:
        return None
    columns = [_means(at_temperature(result, temperature)) for temperature in temperatures(result)]
    rows = tuple((mode_label(*mode), *(column.get(mode, "-") for column in columns)) for mode in modes if mode[0] != "ar")
    header = ("mode", *(f"T = {temperature:g}" for temperature in temperatures(result)))
    return TextTable("Speed-up/tau of every mode, mean over the prompt sets", header, 1, rows, sections=False)


def _means(summaries: list[Summary]) -> dict[tuple[str, int | str], str]:
    groups: dict[tuple[str, int | str], list[Summary]] = {}
    for one in summaries:
        groups.setdefault((one["mode"], one["budget"]), []).append(one)
    num_sets = len(set_names(summaries))
    return {mode: _cell(group) for mode, group in groups.items() if len(group) == num_sets}


def _cell(group: list[Summary]) -> str:
    tau = fmean(one["tau"] for one in group)
    if any(one["speedup"] is None for one in group):
        return f"-/{tau:.2f}"
    return f"{fmean(one['speedup'] for one in group):.2f}/{tau:.2f}"
