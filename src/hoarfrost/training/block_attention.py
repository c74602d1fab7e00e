"""The drafter's forward over many blocks at once: each block sees the context before its anchor, and itself.

One attention over `[context ; all blocks]` under a mask would spend most of its work on other blocks' rows. Here a group of blocks shares
one product with the context up to the group's last anchor, each block has a small one with itself, and one softmax runs over both. On a
CPU this takes a quarter of the time of the masked whole, which `DFlashModel.block_hidden` computes and the tests compare with. An
accelerator would wait for the launches of so many small products: there all sequences are one group, padded to the longest.

Shapes: B blocks of b slots, R = B * b rows; S sequences of a group with a blocks and T context rows each; Hq and Hkv query and key/value
heads, G = Hq / Hkv; D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.drafting.network import DFlashModel, context_keys_values, norm, run_layer
from hoarfrost.training.anchors import PackedBlocks

BLOCKS_PER_GROUP = 16  # larger groups waste products with rows past the earlier anchors, smaller ones have small products


class Triple(NamedTuple):
    """Queries `[..., Hq, D]`, keys and values `[..., Hkv, D]` of block rows."""

    queries: Tensor
    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class Visibility:
    """What a layer hides beyond what blocks hide: keys `window` or more positions away, later slots of the block if `causal`."""

    causal: bool
    window: int | None


@dataclass(frozen=True, eq=False)
class Group:
    """Blocks that attend together: `blocks` picks S * a of them, `context` S * T rows, sequence by sequence, at anchors int64 [S, a].

    Where sequences differ, both are padded with others' rows: a padded block has anchor 0, a padded context row lies past all anchors.
    `real` int64 says which of the S * a are blocks of their own (None: all).
    """

    blocks: slice | Tensor
    context: slice | Tensor
    anchors: Tensor
    real: Tensor | None


def packed_hidden(model: DFlashModel, embeddings: Tensor, features: Tensor, blocks: PackedBlocks) -> Tensor:
    """Hidden states `[B, b, H]` after the final norm; `embeddings [B, b, H]` as the target gives them, `features [C, n_feat * H]`."""
    config, weights = model.config, model.weights()
    hidden = model.scale_embeddings(embeddings).flatten(0, 1)
    tables = model.angles.tables(blocks.positions.flatten(), hidden.dtype)
    context_tables = model.angles.tables(blocks.context_positions, hidden.dtype)
    keys, values = context_keys_values(config, weights, model.context_features(features), context_tables)
    groups = list(groups_on(hidden.device, blocks))
    for index, layer in enumerate(weights.layers):
        context = keys[:, index], values[:, index]
        visibility = Visibility(config.is_causal_in(index), config.window_of(index))

        def attend(
            queries: Tensor,
            keys: Tensor,
            values: Tensor,
            context: tuple[Tensor, Tensor] = context,
            visibility: Visibility = visibility,
        ) -> Tensor:
            own = Triple(*(rows.view(len(blocks.token_ids), -1, *rows.shape[1:]) for rows in (queries, keys, values)))
            return packed_attention(own, context[0], context[1], groups, visibility).flatten(0, 1)

        hidden = run_layer(config, layer, hidden, tables, attend)
    return norm(hidden, weights.norm, config.rms_norm_eps).view(*blocks.token_ids.shape, -1)


def packed_attention(
    blocks: Triple, context_keys: Tensor, context_values: Tensor, groups: Sequence[Group], visibility: Visibility
) -> Tensor:
    """Attention `[B, b, Hq, D]` of the queries of `blocks [B, b, ...]` over their own keys and values and the context before their anchors,
    `context_keys, context_values [C, Hkv, D]`."""
    mixed = []
    for group in groups:
        own = Triple(*(pick(rows, group.blocks, *group.anchors.shape) for rows in blocks))
        before = [pick(rows, group.context, len(group.anchors), -1) for rows in (context_keys, context_values)]
        of_group = group_attention(own, before[0], before[1], group.anchors, visibility).flatten(0, 1)
        mixed.append(of_group if group.real is None else of_group.index_select(0, group.real))
    return torch.cat(mixed) if len(mixed) > 1 else mixed[0]


def pick(rows: Tensor, which: slice | Tensor, *shape: int) -> Tensor:
    """The rows `which`, in `shape`."""
    picked = rows[which] if isinstance(which, slice) else rows.index_select(0, which)  # whose gradient is a plain sum
    return picked.reshape(*shape, *rows.shape[1:])


def groups_on(device: torch.device, blocks: PackedBlocks) -> Iterator[Group]:
    """All blocks in order, in the groups that suit the device."""
    return small_groups(blocks) if device.type == "cpu" else iter([one_group(blocks, device)])


def small_groups(blocks: PackedBlocks) -> Iterator[Group]:
    """Groups of neighbouring blocks of one sequence, with the context rows before the last of their anchors."""
    first_block = first_row = 0
    for starts, length in zip(blocks.anchors, blocks.context_lengths, strict=True):
        for begin in range(0, len(starts), BLOCKS_PER_GROUP):
            anchors = starts[begin : begin + BLOCKS_PER_GROUP]
            rows = slice(first_block + begin, first_block + begin + len(anchors))
            yield Group(rows, slice(first_row, first_row + anchors[-1]), torch.tensor([anchors]), None)
        first_block, first_row = first_block + len(starts), first_row + length


def one_group(blocks: PackedBlocks, device: torch.device) -> Group:
    """All blocks of all sequences, padded."""
    counts, lengths = (np.array(values, dtype=np.int64) for values in ([len(one) for one in blocks.anchors], blocks.context_lengths))
    places, owned = padded_places(counts)
    rows, _ = padded_places(lengths)
    anchors = np.zeros(places.shape, dtype=np.int64)
    anchors[owned] = np.concatenate([np.array(one, dtype=np.int64) for one in blocks.anchors])
    real = None if owned.all() else upload(np.flatnonzero(owned), device)
    chosen = slice(None) if owned.all() else upload(places.ravel(), device)
    return Group(chosen, upload(rows.ravel(), device), upload(anchors, device), real)


def padded_places(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where the items of runs of `counts [S]` items stand, one run a row, `[S, max]`, and which places are owned; the others point to any
    item, but not all to one, whose gradient would then be added up place by place."""
    offsets = np.arange(counts.max())
    owned = offsets < counts[:, None]
    return np.where(owned, (np.cumsum(counts) - counts)[:, None] + offsets, offsets), owned


def upload(values: NDArray[np.int64], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device, non_blocking=True)


def group_attention(blocks: Triple, context_keys: Tensor, context_values: Tensor, anchors: Tensor, visibility: Visibility) -> Tensor:
    """Attention `[S, a, b, Hq, D]` of `blocks [S, a, b, ...]` over themselves and `context_keys, context_values [S, T, Hkv, D]` before
    `anchors [S, a]`."""
    queries, keys, values = blocks
    num_sequences, num_blocks, block_size, _, head_dim = queries.shape
    num_kv_heads, num_context = keys.shape[3], context_keys.shape[1]
    heads = queries.view(*queries.shape[:3], num_kv_heads, -1, head_dim).permute(0, 3, 1, 2, 4, 5) * head_dim**-0.5  # [S, Hkv, a, b, G, D]
    to_context = heads.reshape(num_sequences, num_kv_heads, -1, head_dim) @ context_keys.permute(0, 2, 3, 1)
    to_block = heads.flatten(3, 4) @ keys.permute(0, 3, 1, 4, 2)  # [S, Hkv, a, b * G, b]
    context_bias, block_bias = biases(anchors, block_size, num_context, visibility, to_context.dtype)
    to_context = to_context.view(*heads.shape[:5], num_context).add_(context_bias[:, None, :, :, None])
    to_block = to_block.view(*heads.shape[:5], block_size)
    if block_bias is not None:
        to_block = to_block.add_(block_bias[:, None])
    shares = torch.cat((to_context, to_block), dim=-1).softmax(dim=-1).to(values.dtype)  # autocast makes them float32
    from_context = shares[..., :num_context].reshape(num_sequences, num_kv_heads, -1, num_context) @ context_values.transpose(1, 2)
    from_block = shares[..., num_context:].flatten(3, 4) @ values.permute(0, 3, 1, 2, 4)
    mixed = from_context.view(heads.shape) + from_block.view(heads.shape)
    return mixed.permute(0, 2, 3, 1, 4, 5).reshape(num_sequences, num_blocks, block_size, -1, head_dim)


def biases(anchors: Tensor, block_size: int, num_context: int, visibility: Visibility, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Zero where a slot may look and minus infinity where not: `[S, a, 1 or b, T]` for the context, `[b, b]` or None for the own block."""
    offsets = torch.arange(block_size, device=anchors.device)
    context = torch.arange(num_context, device=anchors.device)
    seen = context < anchors[:, :, None, None]
    distance = offsets[:, None] - offsets
    seen_in_block = distance >= 0 if visibility.causal else torch.ones_like(distance, dtype=torch.bool)
    if visibility.window is not None:
        seen = seen & (anchors[:, :, None, None] + offsets[:, None] - context < visibility.window)
        seen_in_block = seen_in_block & (distance.abs() < visibility.window)
    restricted = visibility.causal or visibility.window is not None
    return hiding(seen, dtype), hiding(seen_in_block, dtype) if restricted else None


def hiding(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
