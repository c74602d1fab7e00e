"""One row of tokens that holds the new rows of several sequences, and the attention function that takes it apart again.

The model sees `[1, N]` tokens with explicit positions and never a mask: `packed_attention` hands each sequence's slice to that sequence's
store, which knows its past and which of the new rows may see each other. Prompt chunks, draft trees and single tokens are all segments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """`token_ids` and `positions`, both int64 `[1, N]` on the model's device, and the segments they consist of."""

    token_ids: Tensor
    positions: Tensor
    segments: tuple[Segment, ...]

    @cached_property
    def visible(self) -> tuple[Visibility, ...]:
        """Which of its rows each segment's rows see, for the stores: a matrix where the tree branches."""
        trees = (segment.tree for segment in self.segments)
        return tuple("causal" if tree is None or tree.is_chain else self._to_device(tree.visible()) for tree in trees)

    def _to_device(self, array: NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(array).to(self.token_ids.device, non_blocking=True)

    @classmethod
    def from_chunk(cls, store: Store, token_ids: Sequence[int], device: torch.device) -> PackedRows:
        """The next tokens of one prompt, seeing the past and themselves causally."""
        positions = torch.arange(store.length, store.length + len(token_ids), device=device)[None]
        ids = torch.tensor([list(token_ids)], device=device)
        return cls(ids, positions, (Segment(store, 0, len(token_ids), None),))

    @classmethod
    def from_trees(cls, stores: Sequence[Store], trees: Sequence[DraftTree], device: torch.device) -> PackedRows:
        """The rows of one draft tree per sequence; the root of each stands at the position that its store's length gives."""
        starts = np.repeat([store.length for store in stores], [tree.num_rows for tree in trees])
        host = np.empty((2, len(starts)), dtype=np.int64)
        np.concatenate([tree.token_ids for tree in trees], out=host[0])
        np.add(starts, np.concatenate([tree.depths for tree in trees]), out=host[1])
        rows = torch.from_numpy(host).to(device, non_blocking=True)
        segments, start = [], 0
        for store, tree in zip(stores, trees, strict=True):
            stop = start + tree.num_rows
            segments.append(Segment(store, start, stop, tree))
            start = stop
        return cls(rows[:1], rows[1:], tuple(segments))


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
