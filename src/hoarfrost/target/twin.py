"""A model that somebody else holds, made ready for packed rows without touching it.

The twin has modules of its own and the tensors of the original: its attention can be switched and its norms exchanged while the original,
its configuration included, stays as it is, also during a pass and for other threads. Building one costs some 30 microseconds per module and
no memory to speak of, so it can be made anew for every call, and adapters added to the original in the meantime are seen.

Linear layers stay the original's: packing them for the CPU would hold every weight twice.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from hoarfrost.errors import InvalidInput
from hoarfrost.target.loading import check_supported, use_fused_norms
from hoarfrost.target.packed import ATTENTION_NAME, packed_attention

Module = TypeVar("Module", bound=nn.Module)


def packed_twin(model: PreTrainedModel) -> PreTrainedModel:
    """The twin of `model`, for `Target`. Raises `InvalidInput` for models that `Target.load` would refuse, that are spread over devices
    or in training mode, or whose layers had their `forward` replaced."""
    check_supported(model.config, name_of(model))
    _check_state(model)
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    config = copy.copy(model.config)
    config._attn_implementation = ATTENTION_NAME
    twin = _share(model)
    for module in twin.modules():
        if getattr(module, "config", None) is model.config:
            module.config = config  # type: ignore[assignment]
    use_fused_norms(twin)
    return twin


def name_of(model: PreTrainedModel) -> str:
    """What to call the model in messages."""
    return model.name_or_path or type(model).__name__


def _share(module: Module) -> Module:
    """A copy of the tree of modules over the same parameters and buffers."""
    twin = copy.copy(module)
    twin._modules = {name: None if child is None else _share(child) for name, child in module._modules.items()}
    twin._parameters, twin._buffers = dict(module._parameters), dict(module._buffers)
    if "_hf_hook" in vars(twin):  # accelerate's, which calls the original: on one device it has nothing to move
        vars(twin).pop("forward", None)
    return twin


def _check_state(model: PreTrainedModel) -> None:
    name = name_of(model)
    if model.training:
        raise InvalidInput(f"{name} is in training mode, where dropout changes what it says; call model.eval() first.")
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) > 1 or any(device.type == "meta" for device in devices):
        found = ", ".join(sorted(map(str, devices)))
        raise InvalidInput(f"{name} is spread over devices ({found}); load it whole on one device (device_map={{'': 0}} or 'cpu').")
    for layer in model.base_model.layers:  # type: ignore[union-attr]
        for module in layer.modules():
            if "forward" in vars(module) and "_hf_hook" not in vars(module):
                raise InvalidInput(
                    f"A {type(module).__name__} of {name} had its forward replaced on the instance, which a copy would not follow; "
                    "load the model without that patch."
                )
