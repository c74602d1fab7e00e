"""The drafter's layers as native calls, on CPUs: the same arithmetic as `network.run_layer`, a fraction of its dispatch.

For layers without convolutions. Hidden states stay float32 from the embedding to the final norm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hoarfrost.drafting.network import DFlashModel, Layer, Tables, stacked
from hoarfrost.native.decoder import LayerShape, LayerTensors, NativeLayer

HeadsFirst = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries `[H, N, D]`, keys and values `[Hkv, N, D]`) -> `[N, H, D]`."""


def can_run_natively(model: DFlashModel) -> bool:
    """Whether this model's layers have a native form that is the fastest here."""
    return model.config.conv_kernel_size is None and NativeLayer.can_run(model.fc.weight, model.config.head_dim)


class NativeLayers:
    """All layers of a drafter; a snapshot of the model it was built from."""

    def __init__(self, model: DFlashModel) -> None:
        config = model.config
        shape = LayerShape(config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.rms_norm_eps)
        self._layers = [NativeLayer(shape, _tensors(layer)) for layer in model.layers if isinstance(layer, Layer)]

    def run(self, hidden: Tensor, tables: Tables, attend: HeadsFirst) -> Tensor:
        """Block rows `hidden [N, H]` through all layers, at the positions of float32 `tables`; float32 `[N, H]`."""
        half, num_threads = tables[0].shape[-1] // 2, torch.get_num_threads()
        cos, sin = tables[0][:, :half].contiguous(), tables[1][:, half:].contiguous()
        hidden = hidden.float().clone() if hidden.dtype == torch.float32 else hidden.float()
        for index, layer in enumerate(self._layers):
            mixed = attend(index, *layer.project(hidden, cos, sin, num_threads))
            layer.finish(mixed.flatten(1), hidden, num_threads)
        return hidden


def _tensors(layer: Layer) -> LayerTensors:
    attention, mlp, config = layer.self_attn, layer.mlp, layer.config
    query_norm = attention.q_norm.weight.expand(config.num_attention_heads, -1)
    key_norm = attention.k_norm.weight.expand(config.num_key_value_heads, -1)
    return LayerTensors(
        input_norm=layer.input_layernorm.weight,
        qkv=stacked((attention.q_proj, attention.k_proj, attention.v_proj)),
        head_norm=torch.cat((query_norm, key_norm)),
        output=(attention.o_proj.weight, attention.o_proj.bias),
        post_norm=layer.post_attention_layernorm.weight,
        gate_up=stacked((mlp.gate_proj, mlp.up_proj)),
        down=(mlp.down_proj.weight, None),
    )
