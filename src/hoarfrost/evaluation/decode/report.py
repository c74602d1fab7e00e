"""The tables of a decoding result, from its JSON alone: for a terminal (rich) and as Markdown.

Two tables: what a user gains (tokens/s, tau, time per round, speed-up and its 95 % interval, answers that differ from plain decoding's),
and where a round's time goes (milliseconds per stage). Both fit a terminal of 80 columns, where the names of sets and stages let them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from hoarfrost.evaluation.decode.modes import mode_label

SPEED_HEADER = ("tokens/s", "tau", "ms/round", "speed-up", "95 %", "differ")
Summary = dict[str, Any]


@dataclass(frozen=True)
class TextTable:
    """A table as text, the first `num_labels` columns words and the others figures; `sections` rules off rows of another first cell."""

    title: str
    header: tuple[str, ...]
    num_labels: int
    rows: tuple[tuple[str, ...], ...]
    sections: bool = True

    def to_rich(self) -> Table:
        table = Table(
            title=self.title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        for index, name in enumerate(self.header):
            table.add_column(name, justify="left" if index < self.num_labels else "right")
        previous = None
        for row in self.rows:
            if self.sections and previous not in (None, row[0]):
                table.add_section()
            table.add_row(*(Text(cell) for cell in row))
            previous = row[0]
        return table

    def to_markdown(self) -> str:
        rule = ["---" if index < self.num_labels else "---:" for index in range(len(self.header))]
        lines = ["| " + " | ".join(row) + " |" for row in (self.header, rule, *self.rows)]
        return f"**{self.title}**\n\n" + "\n".join(lines) + "\n"


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


def conditions(result: dict[str, Any]) -> str:
    """Where and how the figures were measured and what was left out, in sentences."""
    machine, settings = result["machine"], result["settings"]
    counts = [f"{count} {name}" for name, count in settings["num_prompts"].items()]
    sentences = [
        f"{settings['model']} with drafter {settings['drafter']} in {settings['dtype']} on {settings['device']}, "
        f"{thread_count(settings)} ({', '.join([machine['cpu'] or 'unknown CPU', *machine['accelerators']])}), "
        f"commit {result['commit'] or 'unknown'}.",
        f"Prompts: {', '.join(counts)}; at most {settings['max_new_tokens']} new tokens each.",
        f"Not counted: {settings['left_out']}.",
    ]
    if settings["stop_on_repetition"]:
        sentences.append("An answer ends where it starts to repeat itself (an n-gram for the third time in a row).")
    for name, count in result["skipped"].items():
        sentences.append(f"Left out of {name} because they do not fit the context: {count} prompts.")
    return " ".join(sentences)


def caption(result: dict[str, Any]) -> str:
    """What the columns of the speed table mean, and under which conditions they were measured."""
    return (
        "Speed-up is over AR in this run; 95 % is its interval over prompts; differ counts the answers that are not AR's, token for token. "
        + conditions(result)
    )


def thread_count(settings: dict[str, Any]) -> str:
    return f"{settings['num_threads']} thread{'' if settings['num_threads'] == 1 else 's'}"


def tables(result: dict[str, Any]) -> list[TextTable]:
    return [speed_table(result["summary"]), stage_table(result["summary"])]


def to_markdown(result: dict[str, Any]) -> str:
    return "\n".join([*(table.to_markdown() for table in tables(result)), caption(result) + "\n"])


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
    interval = summary["speedup_interval"]
    return (
        f"{summary['tokens_per_second']:.1f}",
        f"{summary['tau']:.2f}",
        f"{summary['ms_per_round']:.2f}",
        "-" if summary["speedup"] is None else f"{summary['speedup']:.2f}x",
        "-" if interval is None else f"{interval[0]:.2f}-{interval[1]:.2f}",
        f"{summary['num_differing']}/{summary['num_compared']}" if summary["num_compared"] else "-",
    )
