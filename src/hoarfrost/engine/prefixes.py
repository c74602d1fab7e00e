"""Beginnings of prompts that were read before: their keys and values are copied, which takes a hundredth of computing them.

A prompt is read in chunks that begin at fixed multiples, so the rows of a whole chunk depend on the tokens up to its end and on nothing
else, to the last bit. Such rows are kept, the drafter's beside the target's, under a digest of those tokens (chained from chunk to chunk),
and a sequence whose prompt begins with them starts behind them. What was used longest ago goes when there is no more room, the end of a
prompt before its beginning. Rows of decoded tokens are not kept: they come from passes of other shapes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence as Many
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from hoarfrost.engine.sequence import Sequence


@runtime_checkable
class Copyable(Protocol):
    """A store, or a drafter's state, whose rows can be copied out and in."""

    def copy_rows(self, start: int, stop: int) -> Tensor:
        """A copy of committed rows."""
        ...

    def restore(self, rows: Tensor) -> None:
        """Commits what `copy_rows` gave behind the committed rows."""
        ...


class Block(NamedTuple):
    """The rows of one chunk: the target's, and the drafter's if it read along."""

    target: Tensor
    drafter: Tensor | None

    @property
    def num_bytes(self) -> int:
        return self.target.nbytes + (0 if self.drafter is None else self.drafter.nbytes)


class Prefixes:
    """Keeps blocks for one target and one drafter, in at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()

    def restore(self, sequence: Sequence) -> None:
        """Gives a sequence that has read nothing yet as much of its prompt as is known."""
        store, state = sequence.store, sequence.draft_state
        if not isinstance(store, Copyable) or not (state is None or isinstance(state, Copyable)):
            return
        num_found = 0
        for digest in sequence.digests:
            block = self._blocks.get(digest)
            if block is None or (state is not None and block.drafter is None):
                break
            store.restore(block.target)
            if state is not None and block.drafter is not None:
                state.restore(block.drafter)
            num_found += 1
        self._touch(sequence.digests[:num_found])
        sequence.output.statistics.num_cached_tokens = store.length

    def keep(self, sequence: Sequence, chunk_rows: int) -> None:
        """Takes in the rows of the chunk that a sequence has just read, if it is a whole one."""
        store, state, stop = sequence.store, sequence.draft_state, sequence.store.length
        index, num_left = stop // chunk_rows - 1, stop % chunk_rows
        if num_left or index >= len(sequence.digests) or not isinstance(store, Copyable):
            return
        drafter = state if isinstance(state, Copyable) and len(state) == stop else None
        digest = sequence.digests[index]
        known = self._blocks.get(digest)
        if known is None or (known.drafter is None and drafter is not None):
            start = stop - chunk_rows
            block = Block(store.copy_rows(start, stop), None if drafter is None else drafter.copy_rows(start, stop))
            if block.num_bytes > self.max_bytes:
                return
            self._forget(digest)
            self._blocks[digest] = block
            self.num_bytes += block.num_bytes
        self._touch(sequence.digests[: index + 1])
        while self.num_bytes > self.max_bytes:
            self._forget(next(iter(self._blocks)))

    def clear(self) -> None:
        """Forgets everything: the drafter is another one."""
        self._blocks.clear()
        self.num_bytes = 0

    def check_integrity(self) -> None:
        assert self.num_bytes == sum(block.num_bytes for block in self._blocks.values()) <= self.max_bytes

    def _touch(self, digests: Many[bytes]) -> None:
        for digest in reversed(digests):
            if digest in self._blocks:
                self._blocks.move_to_end(digest)

    def _forget(self, digest: bytes) -> None:
        if (block := self._blocks.pop(digest, None)) is not None:
            self.num_bytes -= block.num_bytes


def digests_of(prompt_ids: Many[int], chunk_rows: int) -> list[bytes]:
    """One of every whole chunk of a prompt and all before it, but for a last token that has to be read anyway."""
    digests, digest = [], b""
    for start in range(0, len(prompt_ids) - chunk_rows, chunk_rows):
        chunk = np.array(prompt_ids[start : start + chunk_rows], np.int64)
        digest = hashlib.blake2b(digest + chunk.tobytes(), digest_size=16).digest()
        digests.append(digest)
    return digests
