"""Runs a benchmark from a command: a progress bar on stderr (where that is no terminal, a line every half minute), a journal, a clean end
at Ctrl-C, and a result that is printed even if it cannot be kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hoarfrost.cli.options import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from hoarfrost.evaluation.common.journal import Benchmark
    from hoarfrost.evaluation.common.tables import Report


LINE_EVERY_SECONDS = 30.0


@contextmanager
def prompt_progress(num_prompts: int) -> Iterator[Callable[[str], None]]:
    """Yields a function that is told the set of each prompt that is done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("prompts", total=num_prompts)
        done = progress.tasks[0]
        with regular_lines(lambda: f"{done.completed:.0f} of {num_prompts} prompts done", is_wanted=not console.is_terminal):
            yield lambda set_name: progress.update(task, advance=1, description=set_name)


@contextmanager
def regular_lines(describe: Callable[[], str], *, is_wanted: bool) -> Iterator[None]:
    """Every half minute a line on stderr that says how far the work is: for logs, in which a bar that moves is of no use."""
    ended, began = Event(), time.perf_counter()

    def tell() -> None:
        while not ended.wait(LINE_EVERY_SECONDS):
            typer.echo(f"{describe()} after {time.perf_counter() - began:.0f} s", err=True)

    teller = Thread(target=tell, daemon=True)
    if is_wanted:
        teller.start()
    try:
        yield
    finally:
        ended.set()
        if is_wanted:
            teller.join()


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
