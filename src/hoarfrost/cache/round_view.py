"""What the rows of one round see: of each other, of the window, and of the newest pages.

A row that stands `depth` tokens behind the committed rows would be decoded alone when as many more rows are committed, and by then the
oldest rows of the window may have left it. Those stand in the newest pages already (`IceStore`), so that both can be had at once: the
deeper rows of a round do not see them in the window any more and may find them in the pages, the others do and may not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.paged_attention import local_log_mass
from hoarfrost.kernels.page_attention import HiddenRows


@dataclass(frozen=True, eq=False)
class RoundView:
    """The view of n rows.

    Attributes:
        square: bool `[n, n]`, which of each other they see; None: causal.
        hidden: the rows of the window that have left it for some of them; None: they have for none.
        pages_ahead: int64 `[n]`, how many of the newest pages hold rows that a row sees in the window.
    """

    square: Tensor | None
    hidden: HiddenRows | None
    pages_ahead: NDArray[np.int64]

    def log_mass(self, queries: Tensor, keys: Tensor, scale: float) -> Tensor:
        """The log of the sum of exponentials over the local `keys [Hkv, m, D]` that each query of `[H, n, D]` sees: `[Hkv, G, n]`."""
        return local_log_mass(queries, keys, self.square, self.hidden, scale)

    def rows_by_pages_ahead(self, num_lists: int) -> Iterator[tuple[int, slice | NDArray[np.intp]]]:
        """The different numbers of pages ahead, each with the rows that have it. `num_lists` is that of the rows, or 1: they act as one."""
        ahead = self.pages_ahead[:num_lists]
        if (ahead == ahead[0]).all():
            yield int(ahead[0]), slice(None)
            return
        for number in np.unique(ahead):
            yield int(number), np.flatnonzero(ahead == number)
