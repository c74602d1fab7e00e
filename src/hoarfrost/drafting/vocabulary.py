"""Drafters that guess among a part of the vocabulary (FR-Spec, arXiv 2502.14856; EAGLE-3's `d2t`).

Most of a small drafter's time goes to the borrowed head, and most of the head's rows to tokens that are hardly ever right. A checkpoint may
name the tokens it can guess: the tensor `d2t`, int64 `[draft_vocab_size]`, as vLLM, SGLang and speculators write it: column i stands for
the target's token i + d2t[i]. The rows are those of the target's own head, taken when the drafter is loaded. Decoding stays exact: what
cannot be guessed is not in the tree.

Columns stand in the order of their token ids, so that ties are broken as among the whole vocabulary; a table in another order is sorted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.linear import MakeProduct, NativeLinear, Product, read_rows
from hoarfrost.kernels.quantized import in_blocks


def offsets_of(token_ids: Tensor) -> Tensor:
    """`d2t` of rising `token_ids [W]`."""
    return token_ids - torch.arange(len(token_ids), device=token_ids.device)


def token_ids_of(offsets: Tensor) -> Tensor:
    """The target's token ids `[W]` that `d2t` stands for."""
    return offsets + torch.arange(len(offsets), device=offsets.device)


def checked_offsets(offsets: Tensor, vocab_size: int, mask_token_id: int, where: str) -> Tensor:
    """`d2t` of the same tokens in rising order, int64. Raises `InvalidInput` for a table that is none."""
    if offsets.is_floating_point() or offsets.dtype == torch.bool:
        raise InvalidInput(f"{where} has a d2t of type {offsets.dtype}; it must hold whole numbers, the token id less its own place.")
    token_ids = token_ids_of(offsets.long()).sort().values
    outside = token_ids[(token_ids < 0) | (token_ids >= vocab_size)]
    if len(outside):
        raise InvalidInput(
            f"{where} has a d2t that leads to token {int(outside[0])}, outside the vocabulary of {vocab_size}; an entry is a token id less "
            "its own place, not the id itself."
        )
    twice = token_ids[1:][token_ids[1:] == token_ids[:-1]]
    if len(twice):
        raise InvalidInput(f"{where} has a d2t that leads to token {int(twice[0])} twice; fetch the checkpoint again.")
    if len(token_ids) == 1 and int(token_ids[0]) == mask_token_id:
        raise InvalidInput(f"{where} can guess nothing but its mask token, {mask_token_id}; fetch the checkpoint again.")
    return offsets_of(token_ids)


def part_of_head(head: nn.Module, token_ids: Tensor, width: int, dtype: torch.dtype, product: MakeProduct) -> Product:
    """The product with the rows `token_ids` of a head over states of `width`; quantised if the head is."""
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if isinstance(weight, Tensor):
        return product(weight.detach()[token_ids], None if bias is None else bias.detach()[token_ids])
    if not isinstance(head, NativeLinear):
        raise InvalidInput(
            f"A drafter that guesses among a part of the vocabulary cannot borrow from a head of kind {type(head).__name__}."
        )
    rows = read_rows(head.matrix, token_ids.tolist())
    bias = head(torch.zeros(1, width, dtype=dtype))[0, token_ids]
    return NativeLinear(in_blocks(rows) if head.is_quantized else rows.to(dtype), bias if bool(bias.any()) else None)
