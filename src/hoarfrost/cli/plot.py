"""`hoarfrost plot`: tables and figures from a result file, and nothing but the result file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    result = read_result(file)
    table = markdown_of(result)
    if out is None and into is None:
        typer.echo(table, nl=False)
    if into is not None:
        write_between_markers(into, table, "peers" if "peers" in result else result.get("evaluation", "table"))
        typer.echo(into)
    if out is not None:
        for path in write_figures(result, table, out):
            typer.echo(path)


def read_result(file: Path) -> dict[str, Any]:
    """A result file's content. Raises `InvalidInput` for what cannot be read or is no result."""
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"The result file {file} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise InvalidInput(f"The result file {file} is not JSON.") from None
    if not isinstance(result, dict) or not (
        {"machine", "settings", "summary"} <= result.keys() and result.keys() & {"records", "evaluation"}
    ):
        raise InvalidInput(f"The file {file} is no result of `hoarfrost bench` or `hoarfrost eval`.")
    return result


def markdown_of(result: dict[str, Any]) -> str:
    """The tables with what was measured where below them."""
    from hoarfrost.evaluation.caches.report import to_markdown
    from hoarfrost.evaluation.decode.mode_means import mode_means_table
    from hoarfrost.evaluation.decode.paper_table import paper_note, paper_tables
    from hoarfrost.evaluation.decode.peer_report import peer_caption, peer_tables
    from hoarfrost.evaluation.decode.report import conditions

    if "evaluation" in result:
        return to_markdown(result)
    if "peers" in result:
        tables, notes = peer_tables(result), [peer_caption(result)]
    else:
        means = mode_means_table(result)
        tables, notes = [*paper_tables(result), *([means] if means else [])], [paper_note(result), conditions(result)]
    return "\n".join([*(table.to_markdown() for table in tables), *(f"{note}\n" for note in notes)])


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
    from hoarfrost.files import write_text

    try:
        write_text(out / "table.md", table)
    except OSError as error:
        raise InvalidInput(f"The folder {out} cannot be written: {error.strerror}.") from None
    yield out / "table.md"
    try:
        from hoarfrost.evaluation.caches.plots import make_cache_figures
        from hoarfrost.evaluation.decode.plots import make_figures, style
    except ImportError:
        raise InvalidInput("The figures need matplotlib; install it with `pip install hoarfrost[plot]`. The table is written.") from None
    with style():
        for stem, figure in make_cache_figures(result) if "evaluation" in result else make_figures(result):
            for kind in FORMATS:
                path = out / f"{stem}.{kind}"
                figure.savefig(path, metadata={"Date": None} if kind == "svg" else {"Software": None})
                yield path


def register(app: typer.Typer) -> None:
    app.command()(plot)
