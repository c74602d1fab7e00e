"""What every result of a cache evaluation says beside its figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from hoarfrost.evaluation.common.machine import describe_commit, describe_machine, describe_versions

if TYPE_CHECKING:
    from hoarfrost.target import Target

BUDGET_MEANING = "committed rows attended to per KV head, in every layer, by the query of a decoded token"
EXACT_PART = "the prompt is read with exact attention; the answer, begun for the model where the task begins it, is decoded with the cache"


def describe_run(evaluation: str, target: Target, settings: Mapping[str, Any], command: Iterable[str] = ()) -> dict[str, Any]:
    """The header: JSON values that are the same whenever the same thing is measured on the same machine."""
    return {
        "evaluation": evaluation,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": describe_commit(),
        "command": list(command),
        "settings": {
            **settings,
            "model": target.name,
            "dtype": str(target.dtype).removeprefix("torch."),
            "device": str(target.device),
            "num_threads": torch.get_num_threads(),
            "budget_is": BUDGET_MEANING,
            "exact": EXACT_PART,
        },
    }
