"""Attention over local rows and over pages: natively in place on the CPU, in PyTorch elsewhere, and streamed where all pages are read.

Shapes: `queries [H, n, D]`; local `keys, values [Hkv, T, D]`, the last n of whose rows belong to the queries; `pool [slots, 2, S, D]` holds
pages (keys, then values), and `PageLists` says which of them a query sees. A group of H // Hkv query heads shares a KV head.

`attend_pages_plain` is the twin of the native kernel; it gathers what is seen and runs on any device in any float dtype.
`attend_everything` serves prompts: many rows that see all pages, which pass through the compute device block by block.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost.cache.attention import attend_with_weight, pack_heads
from hoarfrost.kernels.page_attention import HiddenRows, PageLists, Summaries, can_attend
from hoarfrost.kernels.page_attention import attend_pages as attend_pages_native

# What a prompt that streams over all pages holds on the compute device at a time: pages per head, and rows of its own.
BLOCK_PAGES, BLOCK_ROWS = 64, 512


def attend_pages(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    pool: Tensor,
    pages: PageLists,
    *,
    visible: Tensor | None,
    scale: float,
    hidden: HiddenRows | None = None,
    summaries: Summaries | None = None,
) -> Tensor:
    """`softmax(q k^T scale) v` over local rows, listed pages and summaries. `visible` bool `[n, n]`, None: causal. Returns `[n, H, D]`."""
    attend = attend_pages_native if can_attend(queries, keys, pool) else attend_pages_plain
    return attend(queries, keys, values, pool, pages, visible=visible, scale=scale, hidden=hidden, summaries=summaries)


def attend_pages_plain(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    pool: Tensor,
    pages: PageLists,
    *,
    visible: Tensor | None,
    scale: float,
    hidden: HiddenRows | None = None,
    summaries: Summaries | None = None,
) -> Tensor:
    """The twin of `hoarfrost.kernels.page_attention.attend_pages`, for every device and float dtype."""
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads = keys.shape[0]
    accurate = torch.promote_types(queries.dtype, torch.float32)
    grouped = queries.to(accurate).reshape(num_kv_heads, -1, num_rows, head_dim) * scale
    parts = [(_local_scores(grouped, keys, visible, hidden), values.to(accurate)[:, None]), _page_part(grouped, pool, pages)]
    if summaries is not None:
        biases = summaries.log_counts[:, None]
        scores = torch.einsum("hgnd,hmd->hgnm", grouped, summaries.mean_keys.to(accurate)) + biases.to(accurate)
        parts.append((scores, summaries.mean_values.to(accurate)[:, None]))
    weights = torch.softmax(torch.cat([scores for scores, _ in parts], dim=-1), dim=-1)
    split = torch.split(weights, [scores.shape[-1] for scores, _ in parts], dim=-1)
    out = sum(
        torch.einsum("hgnk,hnkd->hgnd", share, part.expand(-1, num_rows, -1, -1)) for share, (_, part) in zip(split, parts, strict=True)
    )
    assert isinstance(out, Tensor)
    return out.reshape(num_heads, num_rows, head_dim).transpose(0, 1).to(queries.dtype)


def _local_scores(grouped: Tensor, keys: Tensor, visible: Tensor | None, hidden: HiddenRows | None) -> Tensor:
    """Scores `[Hkv, G, n, T]` of the local rows, -inf where a row is out of sight, for `grouped [Hkv, G, n, D]`."""
    num_rows = grouped.shape[2]
    scores = torch.matmul(grouped.flatten(1, 2), keys.to(grouped.dtype).transpose(1, 2)).view(*grouped.shape[:3], keys.shape[1])
    if num_rows > 1:
        square = visible if visible is not None else torch.ones((num_rows, num_rows), dtype=torch.bool, device=grouped.device).tril()
        scores[..., keys.shape[1] - num_rows :].masked_fill_(~square, float("-inf"))
    if hidden is not None:
        places = torch.arange(keys.shape[1]) - hidden.first
        unseen = (places >= 0) & (places < torch.from_numpy(hidden.counts)[:, None])
        scores.masked_fill_(unseen.to(scores.device), float("-inf"))
    return scores


def _page_part(grouped: Tensor, pool: Tensor, pages: PageLists) -> tuple[Tensor, Tensor]:
    """Scores `[Hkv, G, n, P * S]` and values `[Hkv, 1 or n, P * S, D]` of the listed pages; of single rows S is 1."""
    num_kv_heads, num_lists, num_pages = pages.slots.shape
    counts = torch.from_numpy(pages.counts).to(grouped.device)
    slots = torch.from_numpy(pages.slots).to(pool.device).masked_fill(counts.to(pool.device) <= 0, 0)
    gathered = pool[slots] if pages.places is None else pool[slots, :, torch.from_numpy(pages.places).to(pool.device)].unsqueeze(4)
    gathered = gathered.to(device=grouped.device, dtype=grouped.dtype)
    page_size, head_dim = gathered.shape[4:]
    keys, values = (gathered[:, :, :, side].reshape(num_kv_heads, num_lists, num_pages * page_size, head_dim) for side in (0, 1))
    empty = torch.arange(page_size, device=grouped.device) >= counts[..., None]
    scores = torch.einsum("hgnd,hnkd->hgnk", grouped, keys.expand(-1, grouped.shape[2], -1, -1))
    scores = scores.masked_fill(empty.reshape(num_kv_heads, 1, num_lists, -1), float("-inf"))
    return scores, values.masked_fill(empty.reshape(num_kv_heads, num_lists, -1, 1), 0.0)


def local_log_mass(queries: Tensor, keys: Tensor, square: Tensor | None, hidden: HiddenRows | None, scale: float) -> Tensor:
    """The log of the sum of exponentials over the local rows that each query sees: float32 `[Hkv, G, n]`."""
    grouped = (queries.float() * scale).reshape(len(keys), -1, *queries.shape[1:])
    return torch.logsumexp(_local_scores(grouped, keys, square, hidden), dim=-1)


def attend_everything(
    queries: Tensor, keys: Tensor, values: Tensor, pool: Tensor, pages: PageLists, *, visible: Tensor | None, scale: float
) -> Tensor:
    """As `attend_pages` with one list of pages that all rows see, for many rows: matrix products over one block of pages at a time.

    A causal run of rows is taken `BLOCK_ROWS` at a time, so that no score matrix is larger than that many rows times one block.
    """
    num_rows = queries.shape[1]
    if visible is not None or num_rows <= BLOCK_ROWS:
        return _attend_block_of_rows(queries, keys, values, pool, pages, visible, scale)
    outputs = []
    for start in range(0, num_rows, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, num_rows)
        end = keys.shape[1] - num_rows + stop
        outputs.append(_attend_block_of_rows(queries[:, start:stop], keys[:, :end], values[:, :end], pool, pages, None, scale))
    return torch.cat(outputs)


def _attend_block_of_rows(
    queries: Tensor, keys: Tensor, values: Tensor, pool: Tensor, pages: PageLists, visible: Tensor | None, scale: float
) -> Tensor:
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads, num_local, _ = keys.shape
    packed, num_past = pack_heads(queries, num_kv_heads), num_local - num_rows
    square = visible if visible is not None else torch.ones((num_rows, num_rows), dtype=torch.bool, device=queries.device).tril()
    hidden = ~square.repeat(num_heads // num_kv_heads, 1)
    parts = [_attend_masked(packed, keys[:, num_past:], values[:, num_past:], hidden, scale)]
    if num_past:
        parts.append(attend_with_weight(packed, keys[:, :num_past], values[:, :num_past], scale))
    for start in range(0, pages.slots.shape[2], BLOCK_PAGES):
        block = slice(start, start + BLOCK_PAGES)
        parts.append(_attend_block_of_pages(packed, pool, pages.slots[:, 0, block], pages.counts[:, 0, block], scale))
    weights = torch.stack([weight for _, weight in parts])
    shares = torch.softmax(weights, dim=0)[..., None]
    out = (shares * torch.stack([part for part, _ in parts])).sum(dim=0)
    return out.reshape(num_heads, num_rows, head_dim).transpose(0, 1).to(queries.dtype)


def _attend_block_of_pages(
    packed: Tensor, pool: Tensor, slots: NDArray[np.int64], counts: NDArray[np.int32], scale: float
) -> tuple[Tensor, Tensor]:
    num_kv_heads, num_pages = slots.shape
    page_size, head_dim = pool.shape[2:]
    gathered = pool[torch.from_numpy(np.where(counts > 0, slots, 0)).to(pool.device)].to(packed.device)
    keys, values = (gathered[:, :, side].reshape(num_kv_heads, num_pages * page_size, head_dim) for side in (0, 1))
    if (counts == page_size).all():
        return attend_with_weight(packed, keys, values, scale)
    hidden = torch.from_numpy(np.arange(page_size) >= counts[..., None]).to(packed.device).reshape(num_kv_heads, 1, -1)
    return _attend_masked(packed, keys, values.masked_fill(hidden[:, 0, :, None], 0.0), hidden, scale)


def _attend_masked(packed: Tensor, keys: Tensor, values: Tensor, hidden: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention `[Hkv, r, D]` and the log of its denominator `[Hkv, r]`; rows that see nothing get zeros and -inf."""
    accurate = torch.promote_types(packed.dtype, torch.float32)
    scores = torch.matmul(packed.to(accurate) * scale, keys.to(accurate).transpose(1, 2)).masked_fill_(hidden, float("-inf"))
    weight = torch.logsumexp(scores, dim=-1)
    probabilities = torch.exp(scores - weight[..., None].nan_to_num(neginf=0.0))
    return torch.matmul(probabilities, values.to(accurate)), weight
