"""`hoarfrost plot`: tables and figures from a result file, and nothing but the result file."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hoarfrost.cli.options import PlainCommand
from hoarfrost.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMATS = ("png", "svg")


def plot(
    file: Annotated[Path, typer.Argument(help="A result of `hoarfrost bench --json`, `hoarfrost eval --json` or benchmarks/peers.")],
    out: Annotated[Path | None, typer.Option(help="Write table.md and the figures, each as PNG and SVG, into this folder.")] = None,
    into: Annotated[Path | None, typer.Option(help="Write the table into this Markdown file, between its marker comments.")] = None,
) -> None:
    """Print the table of a result as Markdown; with --out write it and the figures, with --into put it into a document.

    The markers in a document are `<!-- table -->` for decoding, `<!-- peers -->` for the comparison with other engines, and the name of the
    evaluation for the others: `<!-- retrieval -->`, `<!-- longbench -->`, `<!-- loss -->`, `<!-- cache speed -->`, `<!-- index -->`. What
    stands between a marker and its closing one (`<!-- /table -->`) is replaced.
    """
    from hoarfrost.evaluation.results import name_of, read_result, report_of
    from hoarfrost.files import check_writable

    result = read_result(file)
    for path in (into, out and out / "table.md"):
        if path is not None:
            check_writable(path)
    table = report_of(result).to_markdown()
    if out is None and into is None:
        typer.echo(table, nl=False)
    if into is not None:
        write_between_markers(into, table, name_of(result))
        typer.echo(into)
    if out is not None:
        for path in write_figures(result, table, out):
            typer.echo(path)


def write_between_markers(path: Path, text: str, name: str) -> None:
    """Replaces what stands between two marker lines of a Markdown file; a missing end marker is set right behind the first."""
    from hoarfrost.files import write_text

    try:
        document = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"The document {path} cannot be read: {error.strerror}.") from None
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, after = document.partition(begin)
    if not found:
        raise InvalidInput(f"The document {path} has no line {begin}; add it where the table belongs.")
    _, closed, rest = after.partition(end)
    write_text(path, f"{before}{begin}\n\n{text}\n{end}{rest if closed else after}")


def write_figures(result: dict[str, Any], table: str, out: Path) -> Iterator[Path]:
    """Writes the table and every figure that the result has data for, and yields their paths. The table needs no matplotlib."""
    from hoarfrost.evaluation.common.plots import style
    from hoarfrost.evaluation.results import figures_of
    from hoarfrost.files import write_bytes, write_text

    write_text(out / "table.md", table)
    yield out / "table.md"
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidInput("The figures need matplotlib; install it with `pip install hoarfrost[plot]`. The table is written.")
    with style():
        for stem, figure in figures_of(result):
            for kind in FORMATS:
                path = out / f"{stem}.{kind}"
                drawn = io.BytesIO()
                figure.savefig(drawn, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
                write_bytes(path, drawn.getvalue())
                yield path


def register(app: typer.Typer) -> None:
    app.command(cls=PlainCommand)(plot)
