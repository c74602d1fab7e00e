"""What transformers lets pass and this project does not: weights that a checkpoint does not hold, and schemes that nobody here can read.

transformers fills a missing tensor with random numbers, ignores tensors that it has no place for, and skips a quantisation that it does
not know; each with a warning. The model would decode, and decode nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from transformers import PreTrainedConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from hoarfrost.errors import InvalidInput
from hoarfrost.model_files import HARMLESS_TENSORS, listed, quantisation_of


def check_quantisation(config: PreTrainedConfig, name: str) -> None:
    """Raises `InvalidInput` for weights of a scheme that transformers does not know and would take for plain numbers."""
    known = {re.sub("_[48]bit$", "", method) for method in AUTO_QUANTIZATION_CONFIG_MAPPING}
    scheme = quantisation_of(vars(config))
    if scheme is not None and scheme not in known:
        raise InvalidInput(
            f"The weights of {name} are quantised ({scheme!r}), which is not supported; take the model in bfloat16 or float16."
        )


def check_tensors(model: nn.Module, loading_info: Mapping[str, Iterable[Any]], name: str) -> None:
    """Raises `InvalidInput` if the checkpoint that `model` was loaded from is not the one that its config.json describes.

    `loading_info` is transformers' own. Tensors that belong to no part of the model, such as heads for other tasks, do no harm; those that
    belong to a layer would have changed what it computes.
    """
    modules = dict(model.named_modules())
    faults = {
        "missing": sorted(loading_info["missing_keys"]),
        "of the wrong shape": sorted(
            f"{key} {list(found)} instead of {list(wanted)}" for key, found, wanted in loading_info["mismatched_keys"]
        ),
        "without a place": sorted(key for key in loading_info["unexpected_keys"] if belongs_to_a_layer(key, modules)),
    }
    told = [f"{kind}: {listed(keys)}" for kind, keys in faults.items() if keys]
    if told:
        raise InvalidInput(
            f"The weights of {name} are not those that its config.json describes; tensors {'; '.join(told)}. "
            "Fetch the checkpoint again, or take one that was saved whole for this kind of model."
        )


def belongs_to_a_layer(key: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the tensor stands in a decoder layer (also in one more than the model has), or in a part of the model that has weights."""
    if HARMLESS_TENSORS.search(key):
        return False
    parent = key.rpartition(".")[0]
    lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
    return any(key.startswith(f"{name}.") for name in lists) or any(True for _ in getattr(modules.get(parent), "_parameters", ()))
