"""What the parts of a round take on this machine: learnt from the rounds themselves, beginning with a few passes that are timed.

`Times` is milliseconds over a count: rows of the target's pass, sequences of the drafter's. Between powers of two it is linear, and on
beyond them. An observation pulls the two points beside it, and all others a little, for a machine has its moods. So a size that is not
visited keeps what the first passes said of it: where more rows turn out dearer than thought the trees shrink, where they are cheaper they
grow until that is no longer so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hoarfrost.cache import Store
from hoarfrost.drafting import Drafter
from hoarfrost.target import PackedRows, Target
from hoarfrost.tree import DraftTree

COUNTS = tuple(2**exponent for exponent in range(12))
STEP, MOOD = 0.15, 0.15
"""The part of what was wrong by which the points beside an observation are corrected; and before that all of them, in proportion."""
MAX_DELAY = 2.0
"""An observation counts as no longer than so many times what was expected: the machine may have been at something else."""
CONTEXT_UNIT = 1024

ROWS, ROWS_IN_CONTEXT, BATCHES = (1, 4, 16, 64, 256), (1, 16), (1, 4)
"""What is timed: passes over so many rows, some of them also with `CONTEXT_UNIT` tokens behind them; and drafts for so many sequences."""
MEASURING_SECONDS = 0.2
"""After so long no larger size is begun; of every kind two are timed."""


class Times:
    """Milliseconds over a count from 1 on, and over the tokens behind each (`context`), with which they grow linearly."""

    def __init__(self, counts: Sequence[int], milliseconds: Sequence[float]) -> None:
        """Of passes that were timed at rising counts, without a context."""
        self._without = _on_line(counts, np.maximum.accumulate(milliseconds).tolist())
        self._growth = [0.0] * len(COUNTS)

    def grow(self, counts: Sequence[int], milliseconds: Sequence[float]) -> None:
        """Takes in what passes took with `CONTEXT_UNIT` tokens behind them."""
        grown = [max(0.0, later - self.at(count)) for count, later in zip(counts, milliseconds, strict=True)]
        self._growth = _on_line(counts, np.maximum.accumulate(grown).tolist())

    def at(self, count: int, context: float = 0.0) -> float:
        units, (lower, share) = context / CONTEXT_UNIT, _place(count)
        below = self._without[lower] + units * self._growth[lower]
        above = self._without[lower + 1] + units * self._growth[lower + 1]
        return below + share * (above - below)

    def up_to(self, count: int, context: float = 0.0) -> NDArray[np.float64]:
        """float64 [count]: the milliseconds of 1, 2, 3 ... They never fall."""
        points = np.array(self._without) + context / CONTEXT_UNIT * np.array(self._growth)
        rising: NDArray[np.float64] = np.maximum.accumulate(np.interp(np.arange(1, count + 1), COUNTS, points))
        return rising

    def observe(self, count: int, milliseconds: float, context: float = 0.0) -> None:
        """Takes in what was timed."""
        expected = self.at(count, context)
        error = min(milliseconds, MAX_DELAY * expected) - expected
        mood = 1 + MOOD * error / expected
        self._without = [mood * one for one in self._without]
        self._growth = [mood * one for one in self._growth]
        units, (lower, share) = context / CONTEXT_UNIT, _place(count)
        step = STEP * error / (((1 - share) ** 2 + share**2) * (1 + units**2))
        for index, weight in ((lower, 1 - share), (lower + 1, share)):
            self._without[index] = max(1e-6, self._without[index] + step * weight)
            self._growth[index] = max(0.0, self._growth[index] + step * weight * units)


def _place(count: int) -> tuple[int, float]:
    """The point at or below a count, and how far it is to the next; behind the last, on the line of the last two."""
    lower = min(count.bit_length() - 1, len(COUNTS) - 2)
    return lower, count / COUNTS[lower] - 1


def _on_line(counts: Sequence[int], values: Sequence[float]) -> list[float]:
    """Values at `COUNTS` from those at `counts`. Behind the last two their line goes on; of a single one, that through zero."""
    slope = values[-1] / counts[-1] if len(counts) == 1 else (values[-1] - values[-2]) / (counts[-1] - counts[-2])
    inside = np.interp(COUNTS, counts, values)
    return (inside + slope * np.maximum(0, np.array(COUNTS) - counts[-1])).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True)
class RoundCosts:
    """Times of the target's passes over rows, and of the drafter's over sequences, if there is one."""

    passes: Times
    drafts: Times | None


@torch.inference_mode()
def measure(target: Target, drafter: Drafter | None) -> RoundCosts:
    """Times a few passes of the target and the drafter, on stores filled with nothing in particular."""
    room = target.max_positions - 1
    passes = Times(*timed([size for size in ROWS if size <= room], lambda size: _verify(target, 1, size), target.device))
    if room > CONTEXT_UNIT + ROWS_IN_CONTEXT[-1]:
        passes.grow(*timed(ROWS_IN_CONTEXT, lambda size: _verify(target, CONTEXT_UNIT, size), target.device))
    if drafter is None:
        return RoundCosts(passes, None)
    return RoundCosts(passes, Times(*timed(BATCHES, lambda size: _draft(target, drafter, size), target.device)))


def timed(sizes: Sequence[int], work_of: Callable[[int], Callable[[], None]], device: torch.device) -> tuple[Sequence[int], list[float]]:
    """The sizes that were timed within about `MEASURING_SECONDS`, and the milliseconds of each: the better of two calls, the first of all
    not counted."""
    deadline = time.perf_counter() + MEASURING_SECONDS
    milliseconds: list[float] = []
    for size in sizes:
        work = work_of(size)
        if not milliseconds:
            milliseconds_of(work, device)
        milliseconds.append(min(milliseconds_of(work, device) for _ in range(2)))
        if time.perf_counter() > deadline and len(milliseconds) > 1:
            break
    return sizes[: len(milliseconds)], milliseconds


def milliseconds_of(work: Callable[[], None], device: torch.device) -> float:
    _synchronize(device)
    began = time.perf_counter()
    work()
    _synchronize(device)
    return 1000 * (time.perf_counter() - began)


def _verify(target: Target, context: int, num_rows: int) -> Callable[[], None]:
    """A pass over a tree of so many rows, behind as many tokens as `context`."""
    store = filled_store(target, context, capacity=context + num_rows)
    tree = DraftTree.from_parents([0] * num_rows, [-1, *((row - 1) // 2 for row in range(1, num_rows))])

    def verify() -> None:
        hidden, _ = target.forward(PackedRows.from_trees([store], [tree], target.device))
        target.logits(hidden)
        store.commit([])

    return verify


def _draft(target: Target, drafter: Drafter, num_sequences: int) -> Callable[[], None]:
    """A pass of the drafter, each of the sequences having got three tokens since the last."""
    states: Sequence[Any] = [drafter.new_state() for _ in range(num_sequences)]
    width = len(drafter.taps) * target.hidden_size
    added = [torch.zeros((3, width), dtype=target.dtype, device=target.device)] * num_sequences

    def draft() -> None:
        drafter.extend(states, added)
        drafter.propose(states, [0] * num_sequences)

    return draft


def filled_store(target: Target, length: int, capacity: int) -> Store:
    """A store with `length` committed rows of zeros."""
    store = target.new_store(capacity)
    rows = torch.zeros((target.num_kv_heads, length, target.head_dim), dtype=target.dtype, device=target.device)
    for layer in range(target.num_layers):
        store.append(layer, rows, rows)
    store.commit(range(length))
    return store


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
