"""Tables of a result, as text: for a terminal (rich) and as Markdown; and the cells and sentences that several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

Result = Mapping[str, Any]
Summary = dict[str, Any]


@dataclass(frozen=True)
class TextTable:
    """A table as text, the first `num_labels` columns words and the others figures; `sections` rules off rows of another first cell."""

    title: str
    header: tuple[str, ...]
    num_labels: int
    rows: tuple[tuple[str, ...], ...]
    sections: bool = True

    def to_rich(self, width: int | None = None) -> Table:
        """For a terminal of `width` columns: headings of several words are folded where the table would be wider."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        is_wide = width is not None and sum(widths) + 2 * (len(widths) - 1) > width
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
            justify: Literal["left", "right"] = "left" if index < self.num_labels else "right"
            table.add_column(name.replace(" ", "\n") if is_wide else name, justify=justify, overflow="fold")
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


@dataclass(frozen=True)
class Report:
    """The tables of a result, and below them what was measured where, in paragraphs."""

    tables: Sequence[TextTable]
    notes: Sequence[str]

    def to_markdown(self) -> str:
        return "\n".join([*(table.to_markdown() for table in self.tables), *(f"{note}\n" for note in self.notes)])

    def print(self, *, to_stderr: bool = False) -> None:
        console = Console(highlight=False, markup=False, stderr=to_stderr)
        for table in self.tables:
            console.print(table.to_rich(console.width))
        for note in self.notes:
            console.print(note)


def processors(result: Result) -> str:
    """The CPU and the accelerators of the machine."""
    machine = result["machine"]
    return ", ".join([machine["cpu"] or "unknown CPU", *machine["accelerators"]])


def commit(result: Result) -> str:
    return f"commit {result['commit'] or 'unknown'}"


def thread_count(settings: Mapping[str, Any]) -> str:
    return f"{settings['num_threads']} thread{'' if settings['num_threads'] == 1 else 's'}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"


def between(interval: Iterable[float | str] | None, form: str = "{:.2f}-{:.2f}") -> str:
    """The ends of an interval."""
    return "-" if interval is None else form.format(*interval)
