"""Runs a benchmark from a command: progress on stderr, a journal, a clean end at Ctrl-C, and a result that is printed even if it cannot
be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hoarfrost.cli.options import EXIT_INTERRUPTED
from hoarfrost.progress import progress_bar, regular_lines, say

if TYPE_CHECKING:
    from hoarfrost.evaluation.common.journal import Benchmark
    from hoarfrost.evaluation.common.tables import Report


@contextmanager
def prompt_progress(num_prompts: int) -> Iterator[Callable[[str], None]]:
    """Yields a function that is told the set of each prompt that is done."""
    with progress_bar("prompts", num_prompts) as advance:
        yield lambda set_name: advance(1, set_name)


@contextmanager
def case_progress() -> Iterator[Callable[[str], None]]:
    """Yields a function that is told each case as it begins, and says it."""
    case = "Preparing"

    def begin(name: str) -> None:
        nonlocal case
        case = name
        say(name)

    with regular_lines(lambda: f"{case}: still at it"):
        yield begin


def measure(benchmark: Benchmark[Any], json_file: Path | None, report: Callable[[dict[str, Any]], Report]) -> None:
    """Runs the benchmark, keeps its result in `json_file` if there is one, and prints its tables; a run that was cut off goes on from the
    journal beside the file."""
    from hoarfrost.evaluation.common.journal import Journal

    header = benchmark.describe()
    journal, message = Journal.beside(json_file, header, benchmark.record_type)
    if message:
        typer.echo(message, err=True)
    try:
        with prompt_progress(benchmark.num_prompts) as on_prompt:
            outcomes = benchmark.run(journal, on_prompt)
        deliver(benchmark.result(header, outcomes), report, json_file, journal.finish)
    except KeyboardInterrupt:
        remedy = "" if journal.path is None else "; the same command goes on from here"
        typer.echo(f"Interrupted{remedy}.", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except OSError:
        if journal.path is not None:
            typer.echo(f"What was measured is kept in {journal.path}; the same command goes on from there.", err=True)
        raise


def deliver(
    result: dict[str, Any],
    report: Callable[[dict[str, Any]], Report],
    json_file: Path | None,
    write: Callable[[Path, dict[str, Any]], None] | None = None,
) -> None:
    """Keeps a result and prints its tables: also where it cannot be kept, and on stderr where stdout takes the JSON."""
    from hoarfrost.files import is_standard_output, write_json

    try:
        if json_file is not None:
            (write or write_json)(json_file, result)
    finally:
        report(result).print(to_stderr=json_file is not None and is_standard_output(json_file))
