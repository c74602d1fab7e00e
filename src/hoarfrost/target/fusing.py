"""Takes the weights out of transformers' decoder layers and builds the fastest stack that runs them.

A layer is known if it consists of exactly the parts that are used here: a norm, projections to queries, keys and values (with or without
bias, with or without norms per head), the projection back, a second norm, and either a SwiGLU or a block of experts, which stays as it is.
If any layer of a model holds anything else, the whole model keeps transformers' layers. Weights are taken layer by layer, so none is held
twice; the model's own layers are gone afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hoarfrost.kernels.decoder import LayerShape, LayerTensors, NativeLayer
from hoarfrost.kernels.linear import NativeEmbedding, Weights, stacked_weights
from hoarfrost.rotary import RotaryTable
from hoarfrost.target.blocks import FusedLayer, FusedStack, NativeStack, Stack, StackParts, StockStack
from hoarfrost.target.quantized import QuantizedLinear

LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
HEAD_NORMS = {"q_norm", "k_norm"}
FEED_FORWARD_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}
EXPERT_BLOCKS = ("Qwen3MoeSparseMoeBlock",)
SILU = ("SiLU", "SiLUActivation")
LINEARS = (nn.Linear, QuantizedLinear)


def fuse(model: PreTrainedModel) -> Stack:
    """The fastest stack for `model`, which loses its layers unless they are used themselves."""
    decoder: Any = model.base_model
    is_known = type(decoder.embed_tokens) in (nn.Embedding, NativeEmbedding) and is_known_norm(decoder.norm)
    if not is_known or not all(is_known_layer(layer) for layer in decoder.layers):
        return StockStack(decoder)
    attention, weight = decoder.layers[0].self_attn, decoder.norm.weight
    runs_natively = NativeLayer.can_run(attention.q_proj.weight, weight.dtype, attention.head_dim)
    if not runs_natively and any(type(module) is QuantizedLinear for module in decoder.modules()):
        return StockStack(decoder)
    parts = StackParts(
        embed=decoder.embed_tokens,
        norm_weight=weight.float() if runs_natively else weight,
        norm_eps=decoder.norm.variance_epsilon,
        table=RotaryTable(decoder.rotary_emb.inv_freq, float(decoder.rotary_emb.attention_scaling)),
        attention_scale=attention.scaling,
        width=model.config.hidden_size,
    )
    native, fused, experts = [], [], []
    for index in range(len(decoder.layers)):
        layer, decoder.layers[index] = decoder.layers[index], nn.Identity()
        shape, tensors = shape_of(layer), tensors_of(layer)
        block = layer.mlp if tensors.down is None else None
        del layer
        if runs_natively:
            native.append(NativeLayer(shape, tensors))
            experts.append(block)
        else:
            fused.append(FusedLayer(shape, tensors, block))
    decoder.layers = nn.ModuleList()
    return NativeStack(parts, native, experts) if runs_natively else FusedStack(parts, fused)


def is_known_norm(norm: nn.Module) -> bool:
    return type(norm).__name__.endswith("RMSNorm") and hasattr(norm, "variance_epsilon")


def is_known_layer(layer: nn.Module) -> bool:
    """Whether the layer consists of known parts alone."""
    if children_of(layer) != LAYER_PARTS:
        return False
    attention: Any = layer.self_attn
    parts = children_of(attention)
    norms = [layer.input_layernorm, layer.post_attention_layernorm, *(getattr(attention, name) for name in sorted(parts & HEAD_NORMS))]
    return (
        parts in (PROJECTIONS, PROJECTIONS | HEAD_NORMS)
        and all(type(getattr(attention, name)) in LINEARS for name in PROJECTIONS)
        and have_one_kind_of_bias(attention.q_proj, attention.k_proj, attention.v_proj)
        and all(is_known_norm(norm) for norm in norms)
        and len({norm.variance_epsilon for norm in norms}) == 1
        and is_known_feed_forward(layer.mlp)  # type: ignore[arg-type]
    )


def is_known_feed_forward(mlp: nn.Module) -> bool:
    """A block of experts, or a SwiGLU of plain linear layers."""
    if type(mlp).__name__ in EXPERT_BLOCKS:
        return True
    if children_of(mlp) != FEED_FORWARD_PARTS or type(mlp.act_fn).__name__ not in SILU:
        return False
    linears = (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    return all(type(linear) in LINEARS for linear in linears) and have_one_kind_of_bias(mlp.gate_proj, mlp.up_proj)


def have_one_kind_of_bias(*linears: Any) -> bool:
    return len({linear.bias is None for linear in linears}) == 1


def children_of(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def shape_of(layer: Any) -> LayerShape:
    attention, head_dim = layer.self_attn, layer.self_attn.head_dim
    return LayerShape(
        num_heads=attention.q_proj.out_features // head_dim,
        num_kv_heads=attention.k_proj.out_features // head_dim,
        head_dim=head_dim,
        norm_eps=layer.input_layernorm.variance_epsilon,
    )


def tensors_of(layer: Any) -> LayerTensors:
    """The layer's weights, projections of one input stacked."""
    attention, mlp, shape = layer.self_attn, layer.mlp, shape_of(layer)
    head_norm = None
    if hasattr(attention, "q_norm"):
        repeats = ((attention.q_norm.weight, shape.num_heads), (attention.k_norm.weight, shape.num_kv_heads))
        head_norm = torch.cat([weight.expand(count, -1) for weight, count in repeats])
    is_plain = hasattr(mlp, "gate_proj")
    return LayerTensors(
        input_norm=layer.input_layernorm.weight,
        qkv=stack((attention.q_proj, attention.k_proj, attention.v_proj)),
        head_norm=head_norm,
        output=stack((attention.o_proj,)),
        post_norm=layer.post_attention_layernorm.weight,
        gate_up=stack((mlp.gate_proj, mlp.up_proj)) if is_plain else None,
        down=stack((mlp.down_proj,)) if is_plain else None,
    )


def stack(linears: Sequence[Any]) -> tuple[Weights, Tensor | None]:
    """Weight and bias of linear layers of one input, as one."""
    biases: list[Tensor] = [linear.bias for linear in linears if linear.bias is not None]
    return stacked_weights([linear.weight for linear in linears]), torch.cat(biases) if biases else None
