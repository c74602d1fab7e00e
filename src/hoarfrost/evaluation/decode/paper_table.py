"""The speed-up table in the layout of the DDTree paper's Table 1, beside the paper's own figures.

A cell is `speed-up/tau` of the DFlash chain, an arrow, and those of DDTree at the budget that is fastest on that set, as the paper picks
it. The paper's pairs of models are other, larger ones on H200 GPUs: its columns say what the method gives there, not what to expect here.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from hoarfrost.evaluation.decode.figure_data import AUTO, Summary, at_temperature, best_tree, find, set_names, temperatures
from hoarfrost.evaluation.decode.paper import CITATION, PAPER_MODELS, PAPER_TABLE, SET_NAMES, PaperCell
from hoarfrost.evaluation.decode.report import TextTable

Pair = tuple[float, float]


def paper_tables(result: dict[str, Any]) -> list[TextTable]:
    """One table per temperature; the paper's columns only where the paper has that temperature."""
    return [_table(result, temperature) for temperature in temperatures(result)]


def paper_note(result: dict[str, Any]) -> str:
    """What a cell means, and how many of the answers that were compared with plain decoding's differ."""
    compared = [one for one in result["summary"] if one["mode"] != "ar"]
    num_differing, num_compared = (sum(one[count] for one in compared) for count in ("num_differing", "num_compared"))
    return (
        "A cell is speed-up over AR / mean tokens per pass of the target, of the DFlash chain → of DDTree at its fastest fixed budget B. "
        f"The columns of Qwen3 models are the paper's own figures ({CITATION}), on H200 GPUs. "
        f"Answers that are not AR's, token for token: {num_differing} of {num_compared}."
    )


def _table(result: dict[str, Any], temperature: float) -> TextTable:
    summaries = at_temperature(result, temperature)
    sets = set_names(summaries)
    groups = {name: [one for one in summaries if one["set"] == name] for name in sets}
    has_auto = find(summaries, "tree", AUTO) is not None
    models = PAPER_MODELS if any((temperature, name) in PAPER_TABLE for name in sets) else ()
    rows = []
    for name in sets:
        cells = [_measured_cell(groups[name]), *([_auto_cell(groups[name])] if has_auto else [])]
        printed = PAPER_TABLE.get((temperature, name), {})
        rows.append((SET_NAMES.get(name, name), *cells, *(_paper_cell(printed[model]) if printed else "-" for model in models)))
    if len(sets) > 1:
        cells = [_mean_cell(list(groups.values())), *([_mean_auto_cell(list(groups.values()))] if has_auto else [])]
        rows.append(("mean", *cells, *(_paper_mean(temperature, sets, model) for model in models)))
    own = str(result["settings"]["model"])
    header = ("prompts", f"{own}: chain → DDTree", *((f"{own}: DDTree auto",) if has_auto else ()), *models)
    return TextTable(f"Speed-up/tau at temperature {temperature:g}", header, 1, tuple(rows), sections=False)


def _measured_cell(group: Sequence[Summary]) -> str:
    tree = best_tree(group)
    budget = "" if tree is None else f" (B={tree['budget']})"
    return f"{_pair(find(group, 'chain'))} → {_pair(tree)}{budget}"


def _auto_cell(group: Sequence[Summary]) -> str:
    return _pair(find(group, "tree", AUTO))


def _mean_cell(groups: Sequence[Sequence[Summary]]) -> str:
    return f"{_mean_pair([find(group, 'chain') for group in groups])} → {_mean_pair([best_tree(group) for group in groups])}"


def _mean_auto_cell(groups: Sequence[Sequence[Summary]]) -> str:
    return _mean_pair([find(group, "tree", AUTO) for group in groups])


def _paper_cell(cell: PaperCell) -> str:
    return f"{_text((cell.chain_speedup, cell.chain_tau))} → {_text((cell.tree_speedup, cell.tree_tau))}"


def _paper_mean(temperature: float, sets: Sequence[str], model: str) -> str:
    """The mean of the paper's cells over the sets of this table, if it has them all."""
    cells = [PAPER_TABLE.get((temperature, name), {}).get(model) for name in sets]
    present = [cell for cell in cells if cell is not None]
    return _paper_cell(PaperCell(*(fmean(values) for values in zip(*present, strict=True)))) if len(present) == len(sets) else "-"


def _pair(summary: Summary | None) -> str:
    return "-" if summary is None or summary["speedup"] is None else _text((summary["speedup"], summary["tau"]))


def _mean_pair(summaries: Sequence[Summary | None]) -> str:
    """The means over all sets; a dash where one set lacks them."""
    present = [one for one in summaries if one is not None and one["speedup"] is not None]
    if len(present) < len(summaries) or not present:
        return "-"
    return _text((fmean(one["speedup"] for one in present), fmean(one["tau"] for one in present)))


def _text(pair: Pair) -> str:
    return f"{pair[0]:.2f}/{pair[1]:.2f}"
