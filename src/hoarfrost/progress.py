"""How far long work is, on stderr: a bar at a terminal; elsewhere a line every half minute, for in a log a bar is of no use."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

LINE_EVERY_SECONDS = 30.0


class Advance:
    """Moves a bar on, or the figures of the lines that stand for it."""

    def __init__(self, bar: Progress, task: Task) -> None:
        self._bar, self._task = bar, task

    def __call__(self, amount: int, note: str = "") -> None:
        self._bar.update(self._task.id, advance=amount, note=note)

    def to(self, completed: int) -> None:
        self._bar.update(self._task.id, completed=completed)


@contextmanager
def progress_bar(counted: str, total: int, completed: int = 0) -> Iterator[Advance]:
    """Work of which `completed` out of `total` things are done, the `counted` ("training steps"); yields what is told of the others."""
    with _bar((MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))) as bar:
        task = _task(bar, counted, total, completed)

        def describe() -> str:
            note = task.fields["note"]
            return f"{task.completed:.0f} of {total} {counted} done{f' ({note})' if note else ''}"

        with regular_lines(describe):
            yield Advance(bar, task)


@contextmanager
def byte_progress(what: str, num_bytes: int) -> Iterator[Advance]:
    """The fetching of so many bytes; `what` says of what, and is said at once where there is no terminal."""
    with _bar((DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())) as bar:
        task = _task(bar, what, num_bytes)
        if bar.disable:
            say(f"{what} ({num_bytes / 1e6:.0f} MB).")
        with regular_lines(lambda: f"{what}: {task.completed / 1e6:.0f} of {num_bytes / 1e6:.0f} MB"):
            yield Advance(bar, task)


@contextmanager
def regular_lines(describe: Callable[[], str]) -> Iterator[None]:
    """Says every half minute what `describe` gives, and since when, where stderr is no terminal. Of work within work the inner speaks."""
    ended, began = Event(), time.perf_counter()

    def tell() -> None:
        while not ended.wait(LINE_EVERY_SECONDS):
            if _tellers[-1] is teller:
                say(f"{describe()} after {time.perf_counter() - began:.0f} s")

    if _console().is_terminal:
        yield
        return
    teller = Thread(target=tell, daemon=True)
    _tellers.append(teller)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        _tellers.remove(teller)


def say(sentence: str) -> None:
    """One line on stderr."""
    if sys.stderr is not None:
        print(sentence, file=sys.stderr, flush=True)


_tellers: list[Thread] = []


def _console() -> Console:
    return Console(stderr=True, highlight=False, markup=False)


def _bar(figures: tuple[ProgressColumn, ...]) -> Progress:
    console = _console()
    return Progress(
        TextColumn("{task.description}"), BarColumn(), *figures, console=console, disable=not console.is_terminal, transient=True
    )


def _task(bar: Progress, description: str, total: int, completed: int = 0) -> Task:
    bar.add_task(description, total=total, completed=completed, note="")
    return bar.tasks[0]
