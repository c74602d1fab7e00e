"""The DFlash network (arXiv 2602.06036, section 3; z-lab's released checkpoints): one pass from a block of masks to all its guesses.

A stack of Qwen3-style layers over blocks `[bonus token, mask, mask, ...]`. Each layer's keys and values are those of the block and, from
the same projections, those of the *context*: the target's hidden states at a few layers, fused to `h_ctx` once. Context rows have no
queries and never pass through an MLP, so their keys and values can be kept for good.

Two parts are there only if the configuration says so (DFlash 2): convolutions around attention and MLP (`convolution`), which belong to the
network, and a candidate selector (`selector`), which is kept with it and used by its callers. benchmarks/peers/dflash2_parity.py holds all
of it to the official implementation.

The network has no embedding and no head; it borrows the target's, or the part of the head that it can guess (`vocabulary`). The parameters
carry the released names one by one; all arithmetic runs on `Weights`, where projections with the same input stand together (differentiable,
so that training and decoding share every line of it).

Shapes: H hidden size, D head_dim, Hq and Hkv query and key/value heads, T context rows, N block rows; `...` are optional batch dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.drafting.convolution import Convolution, ConvolutionWeights, convolve_around
from hoarfrost.drafting.rotary import RotaryAngles
from hoarfrost.drafting.selector import CandidateSelector, SelectorWeights
from hoarfrost.drafting.vocabulary import part_of_head, token_ids_of
from hoarfrost.kernels.linear import MakeProduct, Product, plain_product
from hoarfrost.rotary import rotate

INITIAL_STANDARD_DEVIATION = 0.02
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(queries `[..., N, Hq, D]`, keys and values of the block `[..., N, Hkv, D]`) -> `[..., N, Hq, D]`; it adds the context's by itself."""
Tables = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LayerWeights:
    """One layer, fused: q, k, v rows in one matrix, gate and up rows in another, the per-head norms of q and k side by side."""

    input_norm: Tensor
    qkv: Product
    query_key_norm: Tensor
    output: Product
    post_norm: Tensor
    gate_up: Product
    down: Product
    attention_convolution: ConvolutionWeights | None
    mlp_convolution: ConvolutionWeights | None


@dataclass(frozen=True)
class Weights:
    """The whole network, fused: `context_kv` holds k and v rows of all layers, so that the context costs one product."""

    layers: tuple[LayerWeights, ...]
    context_kv: Product
    context_key_norm: Tensor
    fusion: Product
    context_norm: Tensor
    norm: Tensor
    selector: SelectorWeights | None


class Attention(nn.Module):
    """Holds the projections of one attention under their released names."""

    def __init__(self, config: DFlashConfig) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.attention_bias
        self.q_proj = nn.Linear(width, config.num_attention_heads * config.head_dim, bias=bias)
        self.k_proj = nn.Linear(width, config.num_key_value_heads * config.head_dim, bias=bias)
        self.v_proj = nn.Linear(width, config.num_key_value_heads * config.head_dim, bias=bias)
        self.o_proj = nn.Linear(config.num_attention_heads * config.head_dim, width, bias=bias)
        self.q_norm = nn.RMSNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(config.head_dim, config.rms_norm_eps)


class FeedForward(nn.Module):
    """Holds the projections of one SwiGLU under their released names."""

    def __init__(self, config: DFlashConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)


class Layer(nn.Module):
    """Holds one layer's parameters; `weights` fuses them."""

    def __init__(self, config: DFlashConfig) -> None:
        super().__init__()
        self.config = config
        self.self_attn = Attention(config)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention_conv, self.mlp_conv = new_convolution(config), new_convolution(config)

    def weights(self, product: MakeProduct) -> LayerWeights:
        attention, mlp, config = self.self_attn, self.mlp, self.config
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        query_norm = attention.q_norm.weight.expand(config.num_attention_heads, -1)
        key_norm = attention.k_norm.weight.expand(config.num_key_value_heads, -1)
        return LayerWeights(
            input_norm=self.input_layernorm.weight,
            qkv=product(*stacked(projections)),
            query_key_norm=torch.cat((query_norm, key_norm)),
            output=product(attention.o_proj.weight, attention.o_proj.bias),
            post_norm=self.post_attention_layernorm.weight,
            gate_up=product(*stacked((mlp.gate_proj, mlp.up_proj))),
            down=product(mlp.down_proj.weight, None),
            attention_convolution=None if self.attention_conv is None else self.attention_conv.weights(product),
            mlp_convolution=None if self.mlp_conv is None else self.mlp_conv.weights(product),
        )


class DFlashModel(nn.Module):
    """The network with exactly the released tensor names: `fc`, `hidden_norm`, `layers.{i}...`, `norm`, `candidate_selector`.

    A new one starts random, but for the parts of DFlash 2, which start without effect.

    For training, many blocks pass side by side:

        context = model.context_features(taps)                             # [..., T, n_feat * H] -> [..., T, H]
        embeddings = model.scale_embeddings(target.embed(block_ids))       # [..., N, H], blocks flattened into rows
        hidden = model.block_hidden(embeddings, block_positions, context, context_positions, visible)
        head = model.borrowed_head(target.head, plain_product)
        logits = model.logits(hidden_of_the_guessing_slots, head)          # slot 0 of each block guesses nothing
    """

    def __init__(self, config: DFlashConfig) -> None:
        super().__init__()
        self.config = config
        self.angles = RotaryAngles(config)
        self.fc = nn.Linear(len(config.target_layer_ids) * config.hidden_size, config.hidden_size, bias=False)
        self.hidden_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.candidate_selector = new_selector(config)
        self.d2t: Tensor | None
        table = None if config.draft_vocab_size is None else torch.zeros(config.draft_vocab_size, dtype=torch.int64)
        self.register_buffer("d2t", table)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STANDARD_DEVIATION)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, (Convolution, CandidateSelector)):
                module.reset_parameters()

    def weights(self, product: MakeProduct = plain_product) -> Weights:
        """All parameters, fused. A snapshot: fuse again after an optimizer step. Gradients flow through where `product` lets them."""
        attentions = [layer.self_attn for layer in self.layers if isinstance(layer, Layer)]
        projections = [projection for attention in attentions for projection in (attention.k_proj, attention.v_proj)]
        return Weights(
            layers=tuple(layer.weights(product) for layer in self.layers if isinstance(layer, Layer)),
            context_kv=product(*stacked(projections)),
            context_key_norm=torch.stack([attention.k_norm.weight for attention in attentions])[:, None],
            fusion=product(self.fc.weight, None),
            context_norm=self.hidden_norm.weight,
            norm=self.norm.weight,
            selector=None if self.candidate_selector is None else self.candidate_selector.weights(product),
        )

    def context_features(self, taps: Tensor) -> Tensor:
        """h_ctx `[..., T, H]` of the target's outputs at the tapped layers side by side, `taps [..., T, n_feat * H]`."""
        return fuse_features(self.config, plain_product(self.fc.weight), self.hidden_norm.weight, taps)

    def scale_embeddings(self, embeddings: Tensor) -> Tensor:
        """The target's embeddings `[..., H]` as this drafter wants them."""
        return scale_embeddings(self.config, embeddings)

    def block_hidden(
        self, block_embeddings: Tensor, block_positions: Tensor, context: Tensor, context_positions: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        """Final hidden states `[..., N, H]` of N block rows: one block, or any number of blocks side by side.

        `block_embeddings [..., N, H]` (scaled), `block_positions [..., N]`, `context [..., T, H]` from `context_features`,
        `context_positions [..., T]` (positions int64). `visible` is bool and broadcasts to `[..., N, T + N]`: row i may see key j, keys
        being context rows and then block rows; None: all. It says what a *block* may see (context strictly before its anchor, itself, no
        other block; every row at least itself). What a *layer* hides beyond that (window, order within the block) is added here.
        """
        weights = self.weights()
        tables = self.angles.tables(block_positions, block_embeddings.dtype)
        context_tables = self.angles.tables(context_positions, block_embeddings.dtype)
        keys, values = context_keys_values(self.config, weights, context, context_tables)
        key_positions = torch.cat((context_positions, block_positions), dim=-1)
        hidden = block_embeddings
        for index, layer in enumerate(weights.layers):
            mask = self._layer_mask(index, visible, block_positions, key_positions)
            attend = attention_over(keys[..., index, :, :], values[..., index, :, :], mask)
            hidden = run_layer(self.config, layer, hidden, tables, attend)
        return norm(hidden, weights.norm, self.config.rms_norm_eps)

    def borrowed_head(self, head: nn.Module, product: MakeProduct) -> Product:
        """The target's `head`, or the part of it whose tokens can be guessed."""
        token_ids = self.draft_token_ids()
        return head if token_ids is None else part_of_head(head, token_ids, self.config.hidden_size, self.norm.weight.dtype, product)

    def draft_token_ids(self) -> Tensor | None:
        """The tokens that can be guessed, rising, int64 `[W]`; None: all of the vocabulary."""
        return None if self.d2t is None else token_ids_of(self.d2t)

    def logits(self, hidden: Tensor, head: Product) -> Tensor:
        """Logits `[..., W]` of hidden states `[..., H]` from `block_hidden`, by the `borrowed_head`."""
        return head_logits(self.config, hidden, head)

    def _layer_mask(self, layer: int, visible: Tensor | None, queries: Tensor, keys: Tensor) -> Tensor | None:
        window, mask = self.config.window_of(layer), visible
        causal = self.config.is_causal_in(layer)
        distance = queries.unsqueeze(-1) - keys.unsqueeze(-2)
        for rule in (distance >= 0 if causal else None, distance.abs() < window if window is not None else None):
            if rule is not None:
                mask = rule if mask is None else mask & rule
        return mask


def new_convolution(config: DFlashConfig) -> Convolution | None:
    if config.conv_kernel_size is None or config.conv_group_size is None:
        return None
    return Convolution(config.hidden_size, config.conv_kernel_size, config.conv_group_size)


def new_selector(config: DFlashConfig) -> CandidateSelector | None:
    if config.selector_rank is None or config.selector_top_k is None:
        return None
    return CandidateSelector(config.vocab_size, config.hidden_size, config.selector_rank, config.selector_top_k)


def stacked(projections: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of projections of the same input, as one."""
    weights: list[Tensor] = [projection.weight for projection in projections]
    biases: list[Tensor] = [projection.bias for projection in projections if projection.bias is not None]
    return torch.cat(weights), torch.cat(biases) if biases else None


def norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of `hidden [..., H]` in its own type, which autocast makes narrower than the weight's."""
    return functional.rms_norm(hidden, weight.shape, weight.to(hidden.dtype), eps)


def norm_heads(heads: Tensor, weights: Tensor, eps: float) -> Tensor:
    """RMSNorm of every head of `heads [..., heads, D]` with a weight of its own, `weights [..., heads or 1, D]`."""
    return functional.rms_norm(heads, heads.shape[-1:], None, eps) * weights.to(heads.dtype)


def fuse_features(config: DFlashConfig, fusion: Product, context_norm: Tensor, taps: Tensor) -> Tensor:
    return norm(fusion(taps), context_norm, config.rms_norm_eps)


def scale_embeddings(config: DFlashConfig, embeddings: Tensor) -> Tensor:
    return embeddings if config.input_embedding_scale == 1.0 else embeddings * config.input_embedding_scale


def head_logits(config: DFlashConfig, hidden: Tensor, head: Product) -> Tensor:
    logits = head(hidden)
    if config.output_multiplier != 1.0:
        logits = logits * config.output_multiplier
    cap = config.final_logit_softcapping
    return torch.tanh(logits / cap) * cap if cap else logits


def context_keys_values(config: DFlashConfig, weights: Weights, context: Tensor, tables: Tables) -> tuple[Tensor, Tensor]:
    """Keys (normed, rotated) and values of the context for all layers, `[..., T, layers, Hkv, D]` each, in one product."""
    projected = weights.context_kv(context)
    shape = (*context.shape[:-1], config.num_hidden_layers, 2, config.num_key_value_heads, config.head_dim)
    keys, values = projected.view(shape).unbind(-3)
    keys = norm_heads(keys, weights.context_key_norm, config.rms_norm_eps)
    cos, sin = (table[..., None, None, :] for table in tables)
    return rotate(keys, cos, sin), values


def run_layer(config: DFlashConfig, weights: LayerWeights, hidden: Tensor, tables: Tables, attend: Attend) -> Tensor:
    """One layer over block rows `hidden [..., N, H]`, whole blocks, at the positions of `tables`; `attend` joins block and context."""
    eps, num_queries = config.rms_norm_eps, config.num_attention_heads
    normed = norm(hidden, weights.input_norm, eps)
    normed, leave = convolve_around(weights.attention_convolution, normed, config.block_size)
    heads = weights.qkv(normed).view(*hidden.shape[:-1], -1, config.head_dim)
    num_rotating = num_queries + config.num_key_value_heads
    rotating, values = heads[..., :num_rotating, :], heads[..., num_rotating:, :]
    rotating = norm_heads(rotating, weights.query_key_norm, eps)
    rotating = rotate(rotating, tables[0].unsqueeze(-2), tables[1].unsqueeze(-2))
    mixed = attend(rotating[..., :num_queries, :], rotating[..., num_queries:, :], values)
    hidden = hidden + leave(weights.output(mixed.flatten(-2)))
    normed = norm(hidden, weights.post_norm, eps)
    normed, leave = convolve_around(weights.mlp_convolution, normed, config.block_size)
    gate, up = weights.gate_up(normed).chunk(2, dim=-1)
    return hidden + leave(weights.down(functional.silu(gate) * up))


def attention_over(context_keys: Tensor, context_values: Tensor, mask: Tensor | None) -> Attend:
    """Attention of block rows over `[..., T, Hkv, D]` context rows and themselves under one mask `[..., N, T + N]`."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(-3, -2),
            torch.cat((context_keys, keys), dim=-3).transpose(-3, -2),
            torch.cat((context_values, values), dim=-3).transpose(-3, -2),
            attn_mask=None if mask is None else mask.unsqueeze(-3),
            enable_gqa=queries.shape[-2] != keys.shape[-2],
        )
        return mixed.transpose(-3, -2)

    return attend
