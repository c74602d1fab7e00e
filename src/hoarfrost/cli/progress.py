"""A progress bar on stderr, and nothing at all where stderr is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hoarfrost.evaluation.prompts.sets import Prompt


@contextmanager
def sample_progress(num_samples: int) -> Iterator[Callable[[str], None]]:
    """Yields a function that is told the set of each sample that is done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("prompts", total=num_samples)
        yield lambda set_name: progress.update(task, advance=1, description=set_name)


@contextmanager
def prompt_progress(num_prompts: int) -> Iterator[Callable[[Prompt], None]]:
    """Yields a function that is told of each prompt that is done."""
    with sample_progress(num_prompts) as on_sample:
        yield lambda prompt: on_sample(prompt.set_name)
