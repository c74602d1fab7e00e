"""The drafter's forward over many blocks at once: each block sees the context before its anchor, and itself.

One attention over `[context ; all blocks]` under a mask would spend most of its work on other blocks' rows. Here a group of blocks shares
one product with the context up to the group's last anchor, each block has a small one with itself, and one softmax runs over both. On a
CPU this takes a quarter of the time of the masked whole, which `DFlashModel.block_hidden` computes and the tests compare with.

Shapes: B blocks of b slots, R = B * b rows; T context rows of one sequence; Hq and Hkv query and key/value heads, G = Hq / Hkv; D head_dim.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hoarfrost.drafting.network import DFlashModel, context_keys_values, run_layer
from hoarfrost.training.anchors import PackedBlocks

BLOCKS_PER_GROUP = 16  # larger groups waste products with rows past the earlier anchors, smaller ones have small products


@dataclass(frozen=True)
class Visibility:
    """What a layer hides beyond what blocks hide: keys `window` or more positions away, later slots of the block if `causal`."""

    causal: bool
    window: int | None


def packed_hidden(model: DFlashModel, embeddings: Tensor, features: Tensor, blocks: PackedBlocks) -> Tensor:
    """Hidden states `[B, b, H]` after the final norm; `embeddings [B, b, H]` as the target gives them, `features [C, n_feat * H]`."""
    config, weights = model.config, model.weights()
    hidden = model.scale_embeddings(embeddings).flatten(0, 1)
    tables = model.angles.tables(blocks.positions.flatten(), hidden.dtype)
    context_tables = model.angles.tables(blocks.context_positions, hidden.dtype)
    keys, values = context_keys_values(config, weights, model.context_features(features), context_tables)
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
            return packed_attention(queries, keys, values, *context, blocks, visibility)

        hidden = run_layer(config, layer, hidden, tables, attend)
    hidden = functional.rms_norm(hidden, weights.norm.shape, weights.norm, config.rms_norm_eps)
    return hidden.view(*blocks.token_ids.shape, -1)


def packed_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    context_keys: Tensor,
    context_values: Tensor,
    blocks: PackedBlocks,
    visibility: Visibility,
) -> Tensor:
    """Attention `[R, Hq, D]` of `queries [R, Hq, D]` over the block's own `keys, values [R, Hkv, D]` and the context before its anchor."""
    block_size = blocks.token_ids.shape[1]
    mixed = []
    for rows, context, anchors in groups(blocks):
        block_rows = slice(rows.start * block_size, rows.stop * block_size)
        mixed.append(
            group_attention(
                queries[block_rows].view(-1, block_size, *queries.shape[1:]),
                keys[block_rows].view(-1, block_size, *keys.shape[1:]),
                values[block_rows].view(-1, block_size, *values.shape[1:]),
                context_keys[context],
                context_values[context],
                anchors.to(queries.device),
                visibility,
            )
        )
    return torch.cat(mixed)


def groups(blocks: PackedBlocks) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields (blocks, context rows before the last of their anchors, anchors int64) for groups of neighbouring blocks of one sequence."""
    first_block = first_row = 0
    for starts, length in zip(blocks.anchors, blocks.context_lengths, strict=True):
        for begin in range(0, len(starts), BLOCKS_PER_GROUP):
            anchors = starts[begin : begin + BLOCKS_PER_GROUP]
            rows = slice(first_block + begin, first_block + begin + len(anchors))
            yield rows, slice(first_row, first_row + anchors[-1]), torch.tensor(anchors)
        first_block, first_row = first_block + len(starts), first_row + length


def group_attention(
    queries: Tensor, keys: Tensor, values: Tensor, context_keys: Tensor, context_values: Tensor, anchors: Tensor, visibility: Visibility
) -> Tensor:
    """Attention of a blocks `queries [a, b, Hq, D]`, `keys, values [a, b, Hkv, D]` over `context_keys, context_values [T, Hkv, D]`."""
    num_blocks, block_size, num_heads, head_dim = queries.shape
    num_kv_heads, num_context = keys.shape[2], len(context_keys)
    scaled = queries.view(num_blocks, block_size, num_kv_heads, -1, head_dim).permute(2, 0, 1, 3, 4) * head_dim**-0.5  # [Hkv, a, b, G, D]
    to_context = scaled.reshape(num_kv_heads, -1, head_dim) @ context_keys.permute(1, 2, 0)
    to_block = scaled.flatten(2, 3) @ keys.permute(2, 0, 3, 1)  # [Hkv, a, b * G, b]
    context_bias, block_bias = biases(anchors, block_size, num_context, visibility, to_context.dtype)
    to_context = to_context.view(*scaled.shape[:4], num_context).add_(context_bias[:, :, None])
    to_block = to_block.view(*scaled.shape[:4], block_size)
    if block_bias is not None:
        to_block = to_block.add_(block_bias[:, None])
    shares = torch.cat((to_context, to_block), dim=-1).softmax(dim=-1)
    from_context = shares[..., :num_context].reshape(num_kv_heads, -1, num_context) @ context_values.transpose(0, 1)
    from_block = shares[..., num_context:].flatten(2, 3) @ values.permute(2, 0, 1, 3)
    mixed = from_context.view(scaled.shape) + from_block.view(scaled.shape)
    return mixed.permute(1, 2, 0, 3, 4).reshape(num_blocks * block_size, num_heads, head_dim)


def biases(anchors: Tensor, block_size: int, num_context: int, visibility: Visibility, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Zero where a slot may look and minus infinity where not: `[a, 1 or b, T]` for the context, `[b, b]` or None for the own block."""
    offsets = torch.arange(block_size, device=anchors.device)
    context = torch.arange(num_context, device=anchors.device)
    seen = context < anchors[:, None, None]
    distance = offsets[:, None] - offsets
    seen_in_block = distance >= 0 if visibility.causal else torch.ones_like(distance, dtype=torch.bool)
    if visibility.window is not None:
        seen = seen & (anchors[:, None, None] + offsets[:, None] - context < visibility.window)
        seen_in_block = seen_in_block & (distance.abs() < visibility.window)
    restricted = visibility.causal or visibility.window is not None
    return hiding(seen, dtype), hiding(seen_in_block, dtype) if restricted else None


def hiding(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, -torch.inf)
