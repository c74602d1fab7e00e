"""The draft tree as a value: n rows, row 0 the bonus token, parents before children; numpy arrays on the host.

Which rows a row may see (itself and its ancestors) is kept as bitmasks: 64 rows a word, so that a tree of 1,024 nodes takes 136 KiB where
a matrix of bytes takes 1 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class DraftTree:
    """A tree of guesses below the bonus token. Its arrays are not to be written to.

    Attributes:
        token_ids: int64 [n].
        parents: int32 [n], -1 for row 0; every parent is a lower row than its children.
        depths: int32 [n], 0 for row 0.
        ancestors: uint64 [n, ceil(n / 64)]; bit j % 64 of word j // 64 of row i is set iff j is i or an ancestor of i.
    """

    token_ids: NDArray[np.int64]
    parents: NDArray[np.int32]
    depths: NDArray[np.int32]
    ancestors: NDArray[np.uint64]

    @staticmethod
    def single(token_id: int) -> DraftTree:
        """The tree of one row: plain decoding."""
        return DraftTree(np.array([token_id], np.int64), *_SINGLE)

    @staticmethod
    def from_parents(token_ids: Sequence[int], parents: Sequence[int]) -> DraftTree:
        """The tree with these rows; depths and ancestors follow. `parents[0]` is -1, every other parent a lower row."""
        depths, ancestors = [0], [1]
        for row, parent in enumerate(parents[1:], start=1):
            depths.append(depths[parent] + 1)
            ancestors.append(ancestors[parent] | 1 << row)
        num_words = (len(parents) + 63) // 64
        words = b"".join(mask.to_bytes(8 * num_words, "little") for mask in ancestors)
        return DraftTree(
            np.array(token_ids, np.int64),
            np.array(parents, np.int32),
            np.array(depths, np.int32),
            np.frombuffer(words, "<u8").astype(np.uint64).reshape(-1, num_words),
        )

    @property
    def num_rows(self) -> int:
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        """Whether every row is the child of the row before it: causal visibility, no mask needed."""
        return bool((self.parents == np.arange(-1, self.num_rows - 1)).all())

    def first(self, num_rows: int) -> DraftTree:
        """The tree of the first `num_rows` rows, without copying."""
        if num_rows >= self.num_rows:
            return self
        num_words = (num_rows + 63) // 64
        rows = slice(num_rows)
        return DraftTree(self.token_ids[rows], self.parents[rows], self.depths[rows], self.ancestors[rows, :num_words])

    def within_depth(self, max_depth: int) -> DraftTree:
        """The tree without the rows deeper than `max_depth`."""
        kept = np.flatnonzero(self.depths <= max_depth)
        if len(kept) == self.num_rows:
            return self
        places = np.full(self.num_rows + 1, -1)
        places[kept] = np.arange(len(kept))
        return DraftTree.from_parents(self.token_ids[kept].tolist(), places[self.parents[kept]].tolist())

    def visible(self) -> NDArray[np.bool_]:
        """bool [n, n]: row i may see row j."""
        as_bytes = self.ancestors.astype("<u8", copy=False).view(np.uint8)
        return np.unpackbits(as_bytes, axis=1, count=self.num_rows, bitorder="little").view(np.bool_)

    def child(self, row: int, token_id: int) -> int | None:
        """The child of `row` that carries `token_id`, or None."""
        return self._children.get((row, token_id))

    @cached_property
    def _children(self) -> dict[tuple[int, int], int]:
        return dict(zip(zip(self.parents.tolist(), self.token_ids.tolist(), strict=True), range(self.num_rows), strict=True))


_SINGLE = np.array([-1], np.int32), np.zeros(1, np.int32), np.ones((1, 1), np.uint64)
"""Parents, depths and ancestors of a tree of one row: the same for all of them, and one is made in every plain round."""
for _array in _SINGLE:
    _array.setflags(write=False)
