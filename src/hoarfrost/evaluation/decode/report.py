"""The tables of a decoding result, from its JSON alone.

- What a user gains (tokens/s, tau, time per round, speed-up and its 95 % interval, answers that differ from plain decoding's), and where a
  round's time goes (milliseconds per stage). Both fit a terminal of 80 columns, where the names of sets and stages let them.
- What the method gives, in the layout of the DDTree paper's Table 1 and beside the paper's own figures: a cell is `speed-up/tau` of the
  DFlash chain, an arrow, and those of DDTree at the budget that is fastest on that set, as the paper picks it. The paper's pairs of models
  are other, larger ones on H200 GPUs: its columns say what the method gives there, not what to expect here.
- What each mode gives on average over the prompt sets, in which the ideas behind the default tree are told apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from hoarfrost.evaluation.common.tables import Report, Result, Summary, TextTable, between, commit, processors, thread_count
from hoarfrost.evaluation.decode.figure_data import AUTO, at_temperature, best_tree, find, set_names, temperatures
from hoarfrost.evaluation.decode.modes import MODES, mode_label
from hoarfrost.evaluation.decode.paper import CITATION, PAPER_MODELS, PAPER_TABLE, SET_NAMES, PaperCell

SPEED_HEADER = ("tokens/s", "tau", "ms/round", "speed-up", "95 %", "differ")
Pair = tuple[float, float]


def report_speed(result: Result) -> Report:
    """What a user gains, and where a round's time goes."""
    meaning = (
        "AR is plain decoding; tau counts the tokens of a round, the mean over answers; speed-up is over AR in this run, 95 % its interval "
        "over prompts; differ counts the answers that are not AR's, token for token."
    )
    return Report([speed_table(result["summary"]), stage_table(result["summary"])], [f"{meaning} {conditions(result)}"])


def report_method(result: Result) -> Report:
    """What the method gives beside the paper's own figures, and where several tree modes were measured what tells them apart."""
    means = mode_means_table(result)
    return Report([*paper_tables(result), *([means] if means else [])], [paper_note(result), conditions(result)])


def speed_table(summaries: Sequence[Summary]) -> TextTable:
    return _table("Decoding speed", summaries, SPEED_HEADER, [_speed_cells(summary) for summary in summaries])


def mode_table(summaries: Sequence[Summary], title: str) -> TextTable:
    """What a newcomer needs: a line per mode."""
    rows = tuple((mode_label(summary["mode"], summary["budget"]), *_speed_cells(summary)) for summary in summaries)
    return TextTable(title, ("mode", *SPEED_HEADER), 1, rows, sections=False)


def speedup_by_set(summaries: Sequence[Summary]) -> str:
    """One sentence: DDTree's speed-up over plain decoding on each set."""
    parts = [f"{one['set']} {one['speedup']:.2f}x" for one in summaries if one["mode"] == "tree" and one["speedup"] is not None]
    return f"DDTree over AR by set: {', '.join(parts)}." if parts else "Without a drafter there is nothing to compare."


def stage_table(summaries: Sequence[Summary]) -> TextTable:
    stages = tuple(dict.fromkeys(stage for summary in summaries for stage in summary["stage_ms"]))
    times = [[*(summary["stage_ms"].get(stage, 0.0) for stage in stages), summary["ms_per_round"]] for summary in summaries]
    return _table("Milliseconds per round", summaries, (*stages, "round"), [tuple(f"{time:.2f}" for time in row) for row in times])


def conditions(result: Result) -> str:
    """Where and how the figures were measured and what was left out, in sentences."""
    settings = result["settings"]
    counts = [f"{count} {name}" for name, count in settings["num_prompts"].items()]
    sentences = [
        f"{settings['model']} with drafter {settings['drafter']} in {settings['dtype']} on {settings['device']}, "
        f"{thread_count(settings)} ({processors(result)}), {commit(result)}.",
        f"Prompts: {', '.join(counts)}; at most {settings['max_new_tokens']} new tokens each.",
        f"Not counted: {settings['left_out']}.",
    ]
    if settings["stop_on_repetition"]:
        sentences.append("An answer ends where it starts to repeat itself (an n-gram for the third time in a row).")
    for name, count in result["skipped"].items():
        sentences.append(f"Left out of {name} because they do not fit the context: {count} prompts.")
    return " ".join(sentences)


def _table(title: str, summaries: Sequence[Summary], header: tuple[str, ...], cells: Sequence[tuple[str, ...]]) -> TextTable:
    """A row per summary. One temperature for all goes into the title, several get a column."""
    temperatures = [f"{summary['temperature']:g}" for summary in summaries]
    rows: list[tuple[str, ...]] = []
    several = len(set(temperatures)) > 1
    for summary, temperature, row in zip(summaries, temperatures, cells, strict=True):
        rows.append((summary["set"], *([temperature] if several else []), mode_label(summary["mode"], summary["budget"]), *row))
    names = ("set", "T", "mode") if several else ("set", "mode")
    title += f" at temperature {temperatures[0]}" if temperatures and not several else ""
    return TextTable(title, (*names, *header), len(names), tuple(rows))


def _speed_cells(summary: Summary) -> tuple[str, ...]:
    return (
        f"{summary['tokens_per_second']:.1f}",
        f"{summary['tau']:.2f}",
        f"{summary['ms_per_round']:.2f}",
        "-" if summary["speedup"] is None else f"{summary['speedup']:.2f}x",
        between(summary["speedup_interval"]),
        f"{summary['num_differing']}/{summary['num_compared']}" if summary["num_compared"] else "-",
    )


def mode_means_table(result: Result) -> TextTable | None:
    """A row per mode and budget, the means over the sets per temperature; `None` where only one tree mode was measured.

    A mode that was not measured on every set has a dash.
    """
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
    return {mode: _mean_of_mode(group) for mode, group in groups.items() if len(group) == num_sets}


def _mean_of_mode(group: list[Summary]) -> str:
    tau = fmean(one["tau"] for one in group)
    if any(one["speedup"] is None for one in group):
        return f"-/{tau:.2f}"
    return f"{fmean(one['speedup'] for one in group):.2f}/{tau:.2f}"


def paper_tables(result: Result) -> list[TextTable]:
    """One table per temperature in the layout of the paper's Table 1; the paper's columns only where the paper has that temperature."""
    return [_paper_table(result, temperature) for temperature in temperatures(result)]


def paper_note(result: Result) -> str:
    """What a cell means, and how many of the answers that were compared with plain decoding's differ."""
    compared = [one for one in result["summary"] if one["mode"] != "ar"]
    num_differing, num_compared = (sum(one[count] for one in compared) for count in ("num_differing", "num_compared"))
    return (
        "A cell is speed-up over AR / mean tokens per pass of the target, of the DFlash chain → of DDTree at its fastest fixed budget B. "
        f"The columns of Qwen3 models are the paper's own figures ({CITATION}), on H200 GPUs. "
        f"Answers that are not AR's, token for token: {num_differing} of {num_compared}."
    )


def _paper_table(result: Result, temperature: float) -> TextTable:
    summaries = at_temperature(result, temperature)
    sets = set_names(summaries)
    groups = {name: [one for one in summaries if one["set"] == name] for name in sets}
    has_auto = find(summaries, "tree", AUTO) is not None
    was_measured = {"chain": find(summaries, "chain") is not None, "DDTree": any(is_fixed_tree(one) for one in summaries)}
    kinds = [kind for kind, was in was_measured.items() if was]
    models = PAPER_MODELS if any((temperature, name) in PAPER_TABLE for name in sets) else ()
    rows = []
    for name in sets:
        cells = [*_fixed_cells([groups[name]], kinds), *([_auto_cell(groups[name])] if has_auto else [])]
        printed = PAPER_TABLE.get((temperature, name), {})
        rows.append((SET_NAMES.get(name, name), *cells, *(_paper_cell(printed[model]) if printed else "-" for model in models)))
    if len(sets) > 1:
        cells = [*_fixed_cells(list(groups.values()), kinds), *([_mean_auto_cell(list(groups.values()))] if has_auto else [])]
        rows.append(("mean", *cells, *(_paper_mean(temperature, sets, model) for model in models)))
    own = str(result["settings"]["model"])
    header = ("prompts", *([f"{own}: {' → '.join(kinds)}"] if kinds else []), *((f"{own}: DDTree auto",) if has_auto else ()), *models)
    return TextTable(f"Speed-up/tau at temperature {temperature:g}", header, 1, tuple(rows), sections=False)


def is_fixed_tree(summary: Summary) -> bool:
    return bool(summary["mode"] == "tree" and summary["budget"] != AUTO)


def _fixed_cells(groups: Sequence[Sequence[Summary]], kinds: Sequence[str]) -> list[str]:
    """Chain and fastest fixed tree, as far as they were measured at all, in one cell: of one set, or as means over several."""
    if not kinds:
        return []
    found = [[find(group, "chain") if kind == "chain" else best_tree(group) for group in groups] for kind in kinds]
    if len(groups) > 1:
        return [" → ".join(map(_mean_pair, found))]
    tree = best_tree(groups[0])
    return [" → ".join(_pair(one) for [one] in found) + ("" if tree is None else f" (B={tree['budget']})")]


def _auto_cell(group: Sequence[Summary]) -> str:
    return _pair(find(group, "tree", AUTO))


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
