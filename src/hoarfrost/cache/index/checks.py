"""What every index refuses, said in one place."""

from __future__ import annotations

import torch
from torch import Tensor

from hoarfrost.errors import InvalidInput


def check_page_size(page_size: int) -> None:
    if not 1 <= page_size <= 256:
        raise InvalidInput(f"The page size is {page_size}; a page holds 1 to 256 rows, 16 by default.")


def check_keys(keys: Tensor, like: tuple[int, int] | None = None) -> None:
    """Refuses keys that are not finite floats [Hkv, N, D], or not of the heads and dimensions `like`."""
    check_shape(keys, like)
    if not torch.isfinite(keys.sum()) and not torch.isfinite(keys).all():
        raise not_finite()


def check_shape(keys: Tensor, like: tuple[int, int] | None = None) -> None:
    if keys.ndim != 3 or not keys.is_floating_point() or 0 in (keys.shape[0], keys.shape[2]):
        raise InvalidInput(
            f"The keys are {keys.dtype} {tuple(keys.shape)}; an index takes floating-point keys [KV heads, rows, dimensions]."
        )
    if like is not None and (keys.shape[0], keys.shape[2]) != like:
        raise InvalidInput(f"The keys are {tuple(keys.shape)}; this index holds {like[0]} KV heads of {like[1]} dimensions.")


def not_finite() -> InvalidInput:
    return InvalidInput(
        "The keys hold NaN or infinity; an index takes finite keys. Check the model's weights, or load it in a wider dtype."
    )


def check_query(queries: Tensor, like: tuple[int, int], num_pages: int) -> None:
    if queries.ndim != 4 or (queries.shape[0], queries.shape[3]) != like or not queries.is_floating_point():
        raise InvalidInput(
            f"The queries are {queries.dtype} {tuple(queries.shape)}; this index takes floats [{like[0]}, sets, queries, {like[1]}]."
        )
    if not torch.isfinite(queries).all():
        raise InvalidInput("The queries hold NaN or infinity. Check the model's weights, or load it in a wider dtype.")
    if num_pages < 1:
        raise InvalidInput(f"num_pages is {num_pages}; ask for 1 or more.")


def check_truncation(num_rows: int, held: int) -> None:
    if not 0 <= num_rows <= held:
        raise InvalidInput(f"Cannot truncate {held} rows to {num_rows}; give a number between 0 and {held}.")
