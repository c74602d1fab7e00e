"""Attention of a few query rows over many stored rows, without a mask as wide as the past.

Shapes: `queries [H, n, D]`, `keys` and `values [Hkv, T, D]` with H a multiple of Hkv; the last n of the T rows belong to the queries.
The past (the first T - n rows) is visible to every query, so only the square block at the end needs a mask. The query heads that share a
KV head are packed into the row axis, so K and V are never repeated. Three ways, one result:

- one unmasked call of the fused kernel, where every query sees every row (a single row, a bidirectional block);
- float32 and float64: one score matrix whose last n columns are masked in place;
- half precision: the fused kernel over the past, float32 arithmetic over the small block, merged by log-sum-exp.

`attend_with_mask` is the plain twin, and serves where rows of the past are out of sight as well (sliding windows, long prefill chunks).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# Rows from which a chunk counts as prefill: the fused kernel with a mask never holds all its scores at once.
PREFILL_ROWS = 128


def pack_heads(queries: Tensor, num_kv_heads: int) -> Tensor:
    """`[H, n, D]` -> `[Hkv, H // Hkv * n, D]`: the query heads of a group become rows of their KV head."""
    num_heads, num_rows, head_dim = queries.shape
    return queries.reshape(num_kv_heads, num_heads // num_kv_heads * num_rows, head_dim)


def attend_with_mask(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """`softmax(q k^T scale + mask) v` with a bool `mask [n, T]`, True where a row is visible. Returns `[n, H, D]`."""
    out = functional.scaled_dot_product_attention(
        queries[None], keys[None], values[None], attn_mask=mask, scale=scale, enable_gqa=keys.shape[0] != queries.shape[0]
    )
    return out[0].transpose(0, 1)


def attend_all(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """Every query sees every row. Returns `[n, H, D]`."""
    num_heads, num_rows, head_dim = queries.shape
    packed = pack_heads(queries, keys.shape[0])
    out = functional.scaled_dot_product_attention(packed[None], keys[None], values[None], scale=scale)
    return out.reshape(num_heads, num_rows, head_dim).transpose(0, 1)  # of several kernels, some write it the other way round


def attend_causal(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    """A first chunk: no past, rows see themselves and what came before. Returns `[n, H, D]`."""
    out = functional.scaled_dot_product_attention(
        queries[None], keys[None], values[None], is_causal=True, scale=scale, enable_gqa=keys.shape[0] != queries.shape[0]
    )
    return out[0].transpose(0, 1)


def attend_tail(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float) -> Tensor:
    """Past visible to all, the last n rows masked where `hidden [n, n]` is True. Returns `[n, H, D]`."""
    if queries.dtype in (torch.float32, torch.float64):
        return _attend_tail_scores(queries, keys, values, hidden, scale)
    return _attend_tail_merged(queries, keys, values, hidden, scale)


def _attend_tail_scores(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float) -> Tensor:
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads, num_keys, _ = keys.shape
    scores = torch.matmul(pack_heads(queries * scale, num_kv_heads), keys.transpose(1, 2))
    tail = scores.view(num_heads, num_rows, num_keys)[:, :, num_keys - num_rows :]
    tail.masked_fill_(hidden, float("-inf"))
    out = torch.matmul(torch.softmax(scores, dim=-1), values)
    return out.reshape(num_heads, num_rows, head_dim).transpose(0, 1)  # of several kernels, some write it the other way round


def _attend_tail_merged(queries: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float) -> Tensor:
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads, num_keys, _ = keys.shape
    num_past = num_keys - num_rows
    packed = pack_heads(queries, num_kv_heads)
    scores = torch.matmul(packed.float() * scale, keys[:, num_past:].float().transpose(1, 2)).view(num_heads, num_rows, num_rows)
    scores.masked_fill_(hidden, float("-inf"))
    tail_weight = torch.logsumexp(scores, dim=-1, keepdim=True)
    probabilities = torch.softmax(scores, dim=-1).view(num_kv_heads, -1, num_rows)
    tail = torch.matmul(probabilities, values[:, num_past:].float()).view(num_heads, num_rows, head_dim)
    if num_past:
        past, past_weight = attend_with_weight(packed, keys[:, :num_past], values[:, :num_past], scale)
        share = torch.sigmoid(past_weight.reshape(num_heads, num_rows, 1) - tail_weight)
        tail = torch.lerp(tail, past.reshape(num_heads, num_rows, head_dim), share)
    return tail.to(queries.dtype).transpose(0, 1)


def attend_with_weight(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Unmasked attention `[Hkv, r, D]` in float32 together with the log of its softmax denominator, `[Hkv, r]`."""
    if _has_flash_kernel(queries):
        out, weight, *_ = torch.ops.aten._scaled_dot_product_flash_attention(queries[None], keys[None], values[None], scale=scale)
        return out[0].float(), weight[0, :, : queries.shape[1]]
    if queries.device.type == "cpu":
        out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries[None], keys[None], values[None], scale=scale)
        return out[0].float(), weight[0]
    scores = torch.matmul(queries.float() * scale, keys.float().transpose(1, 2))
    return torch.matmul(torch.softmax(scores, dim=-1), values.float()), torch.logsumexp(scores, dim=-1)


def _has_flash_kernel(queries: Tensor) -> bool:
    """Whether this is a GPU, build and head size that torch's flash kernel is made for; called by itself, it takes no others."""
    if queries.device.type != "cuda" or queries.dtype not in (torch.float16, torch.bfloat16):
        return False
    is_recent = torch.cuda.get_device_capability(queries.device) >= (8, 0)
    return is_recent and torch.backends.cuda.is_flash_attention_available() and queries.shape[-1] % 8 == 0 and queries.shape[-1] <= 256
