"""The drafter's passes as one native call each, on CPUs: the arithmetic of `TorchPasses`, a fraction of its dispatch.

For networks without convolutions. Within a pass hidden states stay float32, from the embedding to the final norm. Beside a target whose
weights are quantised the drafter's are, too, to 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hoarfrost.cache import DenseStore
from hoarfrost.drafting.network import DFlashModel, Layer, stacked
from hoarfrost.kernels.decoder import LayerShape, LayerTensors
from hoarfrost.kernels.drafter import ContextTensors, DraftRows, NativeDraftNetwork
from hoarfrost.kernels.linear import Weight
from hoarfrost.kernels.quantized import in_blocks

Hold = Callable[[Tensor], Weight]


def can_run_natively(model: DFlashModel) -> bool:
    """Whether this model has a native form that is the fastest here."""
    return model.config.conv_kernel_size is None and NativeDraftNetwork.can_run(model.fc.weight, model.config.head_dim)


class NativePasses:
    """Implements `Passes`."""

    def __init__(self, model: DFlashModel, quantized: bool = False) -> None:
        hold = in_blocks if quantized else as_it_is
        config = model.config
        layers = [layer for layer in model.layers if isinstance(layer, Layer)]
        views = [(config.is_causal_in(index), config.window_of(index)) for index in range(config.num_hidden_layers)]
        shape = LayerShape(config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.rms_norm_eps)
        context = _context_tensors(model, layers, hold)
        self._network = NativeDraftNetwork(
            shape, config.block_size, context, [_tensors(layer, hold) for layer in layers], views, model.norm.weight
        )
        self._block_size, self._angles = config.block_size, model.angles

    def extend(self, stores: Sequence[DenseStore], counts: Sequence[int], taps: Tensor) -> None:
        rows = [_rows(store, count) for store, count in zip(stores, counts, strict=True)]
        self._network.extend(rows, taps, *self._angles.half_tables([range(one.length, one.length + one.count) for one in rows]))
        for store, count in zip(stores, counts, strict=True):
            store.commit(range(count))

    def run(self, stores: Sequence[DenseStore], blocks: Tensor) -> Tensor:
        rows = [_rows(store, self._block_size) for store in stores]
        return self._network.run(rows, blocks, *self._angles.half_tables([range(one.length, one.length + one.count) for one in rows]))


def _rows(store: DenseStore, count: int) -> DraftRows:
    """Room for `count` rows behind the committed ones."""
    store.reserve(store.length + count)
    return DraftRows(store.buffer, store.length, count)


def as_it_is(weight: Tensor) -> Weight:
    return weight


def _context_tensors(model: DFlashModel, layers: Sequence[Layer], hold: Hold) -> ContextTensors:
    num_kv_heads = model.config.num_key_value_heads
    attentions = [layer.self_attn for layer in layers]
    weight, bias = stacked([*(attention.k_proj for attention in attentions), *(attention.v_proj for attention in attentions)])
    return ContextTensors(
        fusion=hold(model.fc.weight),
        norm=model.hidden_norm.weight,
        key_norm=torch.cat([attention.k_norm.weight.expand(num_kv_heads, -1) for attention in attentions]),
        keys_values=(hold(weight), bias),
    )


def _tensors(layer: Layer, hold: Hold) -> LayerTensors:
    attention, mlp, config = layer.self_attn, layer.mlp, layer.config
    query_norm = attention.q_norm.weight.expand(config.num_attention_heads, -1)
    key_norm = attention.k_norm.weight.expand(config.num_key_value_heads, -1)
    qkv, qkv_bias = stacked((attention.q_proj, attention.k_proj, attention.v_proj))
    gate_up, gate_up_bias = stacked((mlp.gate_proj, mlp.up_proj))
    return LayerTensors(
        input_norm=layer.input_layernorm.weight,
        qkv=(hold(qkv), qkv_bias),
        head_norm=torch.cat((query_norm, key_norm)),
        output=(hold(attention.o_proj.weight), attention.o_proj.bias),
        post_norm=layer.post_attention_layernorm.weight,
        gate_up=(hold(gate_up), gate_up_bias),
        down=(hold(mlp.down_proj.weight), None),
    )
