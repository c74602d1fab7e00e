"""What the ice store asks of an index: it groups the keys of one layer into pages and finds the pages that matter to queries.

The index decides which rows share a page; the store keeps the pages. Keys are never held twice: an index keeps summaries only, and reads
the keys it scores from the store's own pages, handed to `select` and `insert` as `KeyPages`. The order of a layer's life is

    index.build(keys)                                  # the rows that leave the hot tier after the prompt
    table = index.pages()                              # the store lays its keys and values out accordingly
    ids = index.select(queries, 12, scale, keys)       # per round
    changes = index.insert(rows, keys)                 # the window's oldest rows come in; the store moves what `changes` names
    changes = index.truncate(num_rows)                 # the newest rows are forgotten

Rows are numbered 0.. in the order they are given, alike in every head. Per KV head each row lies in exactly one page; pages are
filled from slot 0 on, without holes. An emptied page keeps its id and may be filled again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class PageTable:
    """Which rows lie in which page, for every KV head; views that the next change of the index overwrites.

    rows int32 `[Hkv, P, S]`: row numbers, -1 in empty slots. counts int32 `[Hkv, P]`: rows per page. P is that of the head with the most
    pages; the other heads end in empty pages.
    """

    rows: NDArray[np.int32]
    counts: NDArray[np.int32]


@dataclass(frozen=True)
class PageChanges:
    """The pages that an `insert` or `truncate` altered, c of them, ordered by head and page.

    heads, pages int32 `[c]`: which. rows int32 `[c, S]`: what they hold now; previous_rows int32 `[c, S]`: what they held (-1 throughout
    for a new page). Rows move only among the listed pages of their head: every row of `rows` is either a new one or one of
    `previous_rows` of the same head. num_pages: P of the table now; the table's P never shrinks.
    """

    heads: NDArray[np.int32]
    pages: NDArray[np.int32]
    rows: NDArray[np.int32]
    previous_rows: NDArray[np.int32]
    num_pages: int


@dataclass(frozen=True)
class KeyPages:
    """Read access to the keys where the store keeps them.

    pool `[num_slots, S, D]`: a view of the store's memory, float32, bfloat16 or float16, on the CPU or a device. A slot's S x D entries lie
    side by side; slots may lie any distance apart, so that keys and values, and several heads, may share one buffer.
    slots int64 `[Hkv, P]` on the same device: the slot that holds a page's keys; anything for empty pages.
    """

    pool: Tensor
    slots: Tensor


class PageIndex(Protocol):
    """The pages of ONE layer of one sequence, all KV heads.

    Bad input raises `hoarfrost.errors.InvalidInput` and leaves the index as it was.
    """

    @property
    def page_size(self) -> int:
        """S, the slots of a page."""
        ...

    @property
    def num_rows(self) -> int:
        """The rows in the index, the same for every head."""
        ...

    @property
    def only_appends(self) -> bool:
        """Whether `insert` leaves all full pages as they are and puts new rows behind them in order, S to a page.

        Then rows may be inserted while the window still holds them, and `select` is told how many of the newest pages to leave out.
        """
        ...

    def build(self, keys: Tensor, queries: Tensor | None = None) -> None:
        """Groups `keys [Hkv, N, D]` (rotated already, finite, any float dtype) into pages; forgets what was there before.

        `queries [Hkv, R, D]`, where given, are recent queries (the prompt's last, of all heads of each group) that an index may test its
        grouping with.
        """
        ...

    def pages(self) -> PageTable:
        """The grouping as it is now."""
        ...

    def select(
        self, queries: Tensor, num_pages: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        """Per KV head and set of queries the `num_pages` pages that matter most: int32 `[Hkv, L, num_pages]`, best first, -1 = none.

        Args:
            queries: `[Hkv, L, R, D]`: L sets, each of which retrieves for itself (the rows of a tree, say, or all of them as one set). The
                pages of a set serve all its R queries (the query heads of a KV head's group): a page counts with the sum of the softmax
                probabilities that they give to its rows.
            num_pages: 1 or more.
            scale: what query-key products are multiplied with before the softmax.
            keys: the store's keys, laid out as `pages()` says.
            resident_log_mass: float32 `[Hkv, L, R]`: the log of the sum of exponentials over the rows that are attended to in any case
                (sinks, window); a query that looks mostly there has less of a say. None: it is left out of the softmax.
            num_left_out: so many of the newest pages are as if they were not there; always 0 unless the index `only_appends`.
        """
        ...

    def insert(self, new_keys: Tensor, keys: KeyPages) -> PageChanges:
        """Takes in `new_keys [Hkv, m, D]`, numbered from `num_rows` on. `keys` is laid out as `pages()` said before the call."""
        ...

    def truncate(self, num_rows: int) -> PageChanges:
        """Forgets the rows from `num_rows` on."""
        ...

    def num_bytes(self) -> int:
        """Memory the index holds, without the keys and values."""
        ...


@runtime_checkable
class FindsRows(Protocol):
    """A page index that finds single rows as well, by all that it reads of pages."""

    def select_rows(
        self, queries: Tensor, num_rows: int, scale: float, keys: KeyPages, resident_log_mass: Tensor | None = None, num_left_out: int = 0
    ) -> NDArray[np.int32]:
        """As `PageIndex.select`, but single rows: int32 `[Hkv, L, num_rows]`, each its page times S plus its place in it, -1 = none."""
        ...
