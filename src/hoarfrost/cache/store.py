"""What the engine, the target's attention and the drafter ask of a place that holds keys and values.

A store belongs to one sequence. Rows are appended layer by layer, attended to, and only then committed: what a round of decoding adds is
provisional until the verification walk has chosen which rows stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from torch import Tensor

Visibility = Tensor | Literal["all", "causal"]
"""Which of the rows appended last each of them sees: all, those up to itself, or a bool tensor `[n, n]` (row i sees row j)."""


class Store(Protocol):
    """Keys and values of one sequence, for all layers of one model."""

    @property
    def length(self) -> int:
        """Number of committed rows; the row index of a committed row is its position in the sequence."""
        ...

    @property
    def max_depth(self) -> int | None:
        """How deep a draft tree may be for each of its rows to attend as if it were decoded alone; None: as deep as may be."""
        ...

    def reserve(self, num_rows: int) -> None:
        """Makes room for `num_rows` rows in all, so that appending up to there never reallocates."""
        ...

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes `keys, values [Hkv, n, D]` (keys rotated already) behind the committed rows of `layer`, uncommitted."""
        ...

    def attend(self, layer: int, queries: Tensor, visible: Visibility, *, scale: float, window: int | None = None) -> Tensor:
        """Attention of the rows appended last, `queries [H, n, D]`, over the committed rows and each other. Returns `[n, H, D]`.

        `window` hides keys that lie `window` or more positions before the query.
        """
        ...

    def start_decoding(self) -> None:
        """Ends the prompt: stores that attend to few rows do so from here on."""
        ...

    def commit(self, rows: Sequence[int]) -> None:
        """Keeps the appended rows with these indices (increasing, the same for every layer) and drops the others."""
        ...

    def truncate(self, length: int) -> None:
        """Forgets the committed rows from `length` on, and all uncommitted ones."""
        ...

    def bytes_by_tier(self) -> dict[str, int]:
        """Bytes held per kind of memory."""
        ...
