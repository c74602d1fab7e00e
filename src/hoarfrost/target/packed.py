"""One row of tokens that holds the new rows of several sequences, and the attention function that takes it apart again.

The model sees `[1, N]` tokens with explicit positions and never a mask: `packed_attention` hands each sequence's slice to that sequence's
store, which knows its past and which of the new rows may see each other. Prompt chunks, draft trees and single tokens are all segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hoarfrost.cache import Store, Visibility
from hoarfrost.tree import DraftTree

ATTENTION_NAME = "hoarfrost"


@dataclass(frozen=True, eq=False)
class Segment:
    """The rows `start..stop` of a packed row; they belong to one sequence and see each other as their `tree` says, causally without one."""

    store: Store
    start: int
    stop: int
    tree: DraftTree | None


@dataclass(frozen=True, eq=False)
class PackedRows:
    """N rows: `host`, int64 `[2, N]`, holds their token ids and positions; and the segments that they consist of, of stores on `device`."""

    host: NDArray[np.int64]
    segments: tuple[Segment, ...]
    device: torch.device

    @cached_property
    def token_ids(self) -> Tensor:
        """`[1, N]` on the device."""
        return self._on_device[:1]

    @cached_property
    def positions(self) -> Tensor:
        """`[1, N]` on the device."""
        return self._on_device[1:]

    @property
    def num_positions(self) -> int:
        """No row stands at this position or beyond it."""
        return max(segment.store.length + segment.stop - segment.start for segment in self.segments)

    @cached_property
    def visible(self) -> tuple[Visibility, ...]:
        """Which of its rows each segment's rows see, for the stores: a matrix where the tree branches."""
        trees = (segment.tree for segment in self.segments)
        return tuple("causal" if tree is None or tree.is_chain else self._to_device(tree.visible()) for tree in trees)

    @cached_property
    def _on_device(self) -> Tensor:
        return self._to_device(self.host)

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    @classmethod
    def from_chunk(cls, store: Store, token_ids: Sequence[int], device: torch.device) -> PackedRows:
        """The next tokens of one prompt, seeing the past and themselves causally."""
        num_rows = len(token_ids)
        positions = np.arange(store.length, store.length + num_rows)
        return cls(np.array([token_ids, positions], dtype=np.int64), (Segment(store, 0, num_rows, None),), device)

    @classmethod
    def from_trees(cls, stores: Sequence[Store], trees: Sequence[DraftTree], device: torch.device) -> PackedRows:
        """The rows of one draft tree per sequence; the root of each stands at the position that its store's length gives."""
        host = np.empty((2, sum([tree.num_rows for tree in trees])), dtype=np.int64)
        segments, start = [], 0
        for store, tree in zip(stores, trees, strict=True):
            stop = start + tree.num_rows
            host[0, start:stop] = tree.token_ids
            np.add(tree.depths, store.length, out=host[1, start:stop])
            segments.append(Segment(store, start, stop, tree))
            start = stop
        return cls(host, tuple(segments), device)

    @classmethod
    def joined(cls, several: Sequence[PackedRows]) -> PackedRows:
        """The rows of all of them, in this order."""
        segments: list[Segment] = []
        for packed in several:
            start = segments[-1].stop if segments else 0
            segments.extend(replace(one, start=start + one.start, stop=start + one.stop) for one in packed.segments)
        return cls(np.concatenate([packed.host for packed in several], axis=1), tuple(segments), several[0].device)


def attend_segments(packed: PackedRows, layer: int, scale: float) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Attention of all packed rows in `layer`: `queries [H, N, D]`, `keys` and `values [Hkv, N, D]` -> `[N, H * D]`."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        outputs = []
        for segment, visible in zip(packed.segments, packed.visible, strict=True):
            rows = slice(segment.start, segment.stop)
            whole = segment.stop - segment.start == queries.shape[1]
            own = (queries, keys, values) if whole else (queries[:, rows], keys[:, rows], values[:, rows])
            segment.store.append(layer, own[1], own[2])
            outputs.append(segment.store.attend(layer, own[0], visible, scale=scale))
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)).flatten(1)

    return attend


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    packed: PackedRows,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function registered with transformers: `query [1, H, N, D]`, `key` and `value [1, Hkv, N, D]` -> `[1, N, H * D]`."""
    layer: int = module.layer_idx  # type: ignore[assignment]
    return attend_segments(packed, layer, scaling)(query[0], key[0], value[0])[None], None
