"""A progress bar on stderr, and nothing at all where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hoarfrost.evaluation.prompt_sets import Prompt


@contextmanager
def prompt_progress(num_prompts: int) -> Iterator[Callable[[Prompt], None]]:
    """Yields a function that is told of each prompt that is done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("prompts", total=num_prompts)
        yield lambda prompt: progress.update(task, advance=1, description=prompt.set_name)
