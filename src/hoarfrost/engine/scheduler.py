"""Which requests wait, which run, and what the next round does.

First come, first served, those of a higher priority before others, as far as there is memory for all that run: who does not fit waits, and
whoever comes behind waits too, so that nobody is overtaken for ever. A request that runs goes on to its end, or its deadline. Every running
sequence whose prompt is read decodes in every round. Prompts are read beside them in chunks, one pass holding no more of their rows than
one chunk may have: a long prompt delays its neighbours by that much a round. Chunks begin at fixed multiples whoever keeps company, so that
the passes over a prompt, and the bits of its keys and values, are always the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.engine.guessing import Guesser
from hoarfrost.engine.plan import Part, Plan
from hoarfrost.engine.sequence import Sequence
from hoarfrost.engine.statistics import StageClock
from hoarfrost.sampling import Chooser, SamplingParams, StopChecker
from hoarfrost.target import Target
from hoarfrost.tree import DraftTree, TreeConfig

CHUNK_ROWS = 512
NATIVE_CHUNK_ROWS = 96
"""On a CPU few rows fill the pass already, and a chunk below `cache.attention.PREFILL_ROWS` shares one native call with the trees beside
it, as long as stores are dense. Others read all their pages for every chunk."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request that has been checked, and has nothing of its own yet; without a chooser and a stop checker it gets the usual ones."""

    prompt_ids: list[int]
    params: SamplingParams
    tree: TreeConfig
    priority: int
    num_bytes: int
    deadline: float | None
    chooser: Chooser | None
    stop_checker: StopChecker | None


def chunk_rows_of(target: Target, cache: IceConfig | None) -> int:
    """The rows of a prompt that are read at a time."""
    return NATIVE_CHUNK_ROWS if target.device.type == "cpu" and cache is None else CHUNK_ROWS


class Scheduler:
    """Holds the requests of one engine from their arrival to their end."""

    def __init__(self) -> None:
        self.running: dict[int, Sequence] = {}
        self._waiting: list[tuple[int, int, Waiting]] = []
        self._deadlines: list[tuple[float, int]] = []
        self._num_added = 0

    def __contains__(self, request_id: int) -> bool:
        return request_id in self.running or any(one == request_id for _, one, _ in self._waiting)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def add(self, waiting: Waiting) -> int:
        """Queues a request and gives its id."""
        self._num_added += 1
        heapq.heappush(self._waiting, (-waiting.priority, self._num_added, waiting))
        if waiting.deadline is not None:
            heapq.heappush(self._deadlines, (waiting.deadline, self._num_added))
        return self._num_added

    def admissible(self, max_batch_size: int, max_bytes: int) -> Iterator[tuple[int, Waiting]]:
        """Takes requests out of the queue for as long as there is room; what is admitted goes to `running`."""
        while self._waiting and len(self.running) < max_batch_size:
            if sum([one.num_bytes for one in self.running.values()]) + self._waiting[0][2].num_bytes > max_bytes:
                return
            _, request_id, waiting = heapq.heappop(self._waiting)
            yield request_id, waiting

    def overdue(self, now: float) -> Iterator[int]:
        """The requests that are here still and whose deadlines have passed."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request_id = heapq.heappop(self._deadlines)
            if request_id in self:
                yield request_id

    def remove(self, request_id: int) -> None:
        """Forgets a request and all that it holds; one that is not here is forgotten already."""
        if self.running.pop(request_id, None) is None:
            self._waiting = [one for one in self._waiting if one[1] != request_id]
            heapq.heapify(self._waiting)

    def plan(self, guesser: Guesser, chunk_rows: int, clock: StageClock) -> Plan:
        """The next round of the sequences that run; prompts are read `chunk_rows` rows at a time."""
        decoding = [sequence for sequence in self.running.values() if not sequence.is_reading]
        chunks = self._next_chunks(chunk_rows) if len(decoding) < len(self.running) else []
        clock.lap("host")
        parts = guesser.guess(decoding, sum([part.num_rows for part in chunks]), clock) if decoding else []
        parts.extend(chunks)
        drafts = guesser.drafter is not None and any(part.sequence.draft_state is not None for part in parts)
        return Plan(parts, guesser.drafter.taps if guesser.drafter is not None and drafts else ())

    def _next_chunks(self, chunk_rows: int) -> list[Part]:
        """The next chunks, of so many rows, of the prompts that are being read, in the order of admission."""
        parts: list[Part] = []
        room = chunk_rows
        for sequence in self.running.values():
            if not sequence.is_reading:
                continue
            start = sequence.store.length
            chunk = sequence.prompt_ids[start : start + chunk_rows]
            if len(chunk) > room:
                break
            is_last = start + len(chunk) == len(sequence.prompt_ids)
            parts.append(Part(sequence, DraftTree.single(chunk[-1]) if is_last else None, chunk=chunk))
            room -= len(chunk)
        return parts
