"""How much an engine takes on: memory for keys and values, and requests that wait."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.drafting import Drafter
from hoarfrost.errors import InvalidInput
from hoarfrost.target import Target


@dataclass(frozen=True)
class Limits:
    """What there may be at a time.

    Attributes:
        num_bytes: keys and values of the requests that are decoded, each counted at its full length; those for which there is no room now
            wait. None: half of the memory of the target's device.
        prefix_bytes: beginnings of prompts that are kept for others which begin alike, 0 for none. None: a sixteenth of the memory.
        num_waiting: requests that wait; one more is refused. None: any number.
    """

    num_bytes: int | None = None
    prefix_bytes: int | None = None
    num_waiting: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_bytes", 1), ("prefix_bytes", 0), ("num_waiting", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise InvalidInput(f"The limit {name} is {value!r}; it must be an integer of {least} or more, or None.")

    def resolved(self, device: torch.device) -> Limits:
        """With numbers of bytes for a device."""
        memory = memory_bytes(device)
        return Limits(
            memory // 2 if self.num_bytes is None else self.num_bytes,
            memory // 16 if self.prefix_bytes is None else self.prefix_bytes,
            self.num_waiting,
        )


def memory_bytes(device: torch.device) -> int:
    """All memory of a device; where a system does not tell, as much as none will ever have."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**62


def bytes_for(num_rows: int, target: Target, drafter: Drafter | None, cache: IceConfig | None) -> int:
    """Memory for keys and values of a sequence of so many rows; what lies on disk is not counted."""
    num_held = num_rows if cache is None or cache.cold_tier == "memory" else min(num_rows, cache.budget + 2 * cache.page_size)
    row_bytes = 2 * target.num_layers * target.num_kv_heads * target.head_dim * target.dtype.itemsize
    return num_held * row_bytes + (0 if drafter is None else num_rows * drafter.row_bytes)
