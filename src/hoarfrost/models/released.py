"""Drafters that others have released, out of `drafters.json` beside this file: one object per drafter, in the order of the list.

`drafter` and `target` are hub ids; `block` is the number of slots, where it is known; `note` says what the drafter is for. One that is not
served has a `refusal`, any other the `model_type` of its target. Served means that kind and architecture are: whether the two fit is
checked against their configurations when they are loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ReleasedDrafter:
    """One entry of the list."""

    drafter: str
    target: str
    block: int | None = None
    model_type: str | None = None
    refusal: str | None = None
    note: str = ""


@cache
def released_drafters() -> tuple[ReleasedDrafter, ...]:
    entries = json.loads((Path(__file__).parent / "drafters.json").read_text(encoding="utf-8"))
    return tuple(ReleasedDrafter(**entry) for entry in entries)


def drafters_for(target: str) -> tuple[ReleasedDrafter, ...]:
    """Those whose target or own name holds these words, whatever their case."""
    wanted = target.lower()
    return tuple(one for one in released_drafters() if wanted in one.target.lower() or wanted in one.drafter.lower())
