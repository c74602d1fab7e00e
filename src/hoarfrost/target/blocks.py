"""The decoder stack run by straight-line code over fused weights, in place of transformers' layer modules.

Per layer: one product for q, k and v, one for gate and up; the per-head norms of queries and keys together; no module dispatch. On a CPU
all layers are one native call (`hoarfrost.kernels.decoder`), with hidden states in float32, as long as every row's store is a dense one;
for other stores a layer is two native calls around its attention. Elsewhere `FusedLayer` does the same in torch. Transformers' own layers
are the twin of all these (`StockStack`), and serve every model in which a layer holds something that is not known to `fusing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.cache import DenseStore
from hoarfrost.kernels.decoder import LayerShape, LayerTensors, Layout, NativeLayer, NativeLayers, SegmentRows, rms_norm
from hoarfrost.kernels.linear import NativeEmbedding, Product, fastest_product
from hoarfrost.rotary import RotaryTable, rotate
from hoarfrost.target.packed import PackedRows, Segment, attend_segments

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(queries `[H, N, D]`, keys and values `[Hkv, N, D]`) -> `[N, H * D]`."""


class Stack(Protocol):
    """Embedding, decoder layers and final norm of a model."""

    def __call__(self, rows: PackedRows, taps: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Final hidden states `[N, width]`, and the outputs of the layers in `taps` side by side, `[N, len(taps) * width]`."""
        ...


class StockStack:
    """Transformers' own layers, with `packed_attention` in place."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __call__(self, rows: PackedRows, taps: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        hidden = self._decoder.embed_tokens(rows.token_ids)
        rotary = self._decoder.rotary_emb(hidden, position_ids=rows.positions)
        tapped: dict[int, Tensor] = {}
        for index, layer in enumerate(self._decoder.layers):
            hidden = layer(hidden, position_embeddings=rotary, position_ids=rows.positions, packed=rows)
            if index in taps:
                tapped[index] = hidden[0]
        features = torch.cat([tapped[index] for index in taps], dim=-1) if taps else None
        return self._decoder.norm(hidden)[0], features


@dataclass(frozen=True)
class StackParts:
    """What a stack holds beside its layers."""

    embed: nn.Embedding | NativeEmbedding
    norm_weight: Tensor
    norm_eps: float
    table: RotaryTable
    attention_scale: float
    width: int

    def angles(self, rows: PackedRows) -> tuple[Tensor, Tensor]:
        """Cosines and sines `[N, D / 2]` of the rows' positions, in float32."""
        self.table.reserve(rows.num_positions)
        return self.table.cos[rows.positions[0]], self.table.sin[rows.positions[0]]

    def norm(self, hidden: Tensor) -> Tensor:
        """The final norm; `norm_weight` is of the type of the hidden states."""
        return functional.rms_norm(hidden, self.norm_weight.shape, self.norm_weight, self.norm_eps)

    def tap(self, hidden: Tensor, index: int, taps: Sequence[int], features: Tensor | None) -> None:
        """Copies the output of layer `index` to its place in `features`, if it is tapped."""
        if features is not None and index in taps:
            for place in (place for place, tap in enumerate(taps) if tap == index):
                features[:, place * self.width : (place + 1) * self.width] = hidden


class FusedLayer:
    """One layer in torch, on any device; hidden states `[N, width]` in the model's type."""

    def __init__(self, shape: LayerShape, tensors: LayerTensors, experts: nn.Module | None) -> None:
        self.shape, self._experts = shape, experts
        self._input_norm, self._head_norm, self._post_norm = tensors.input_norm, tensors.head_norm, tensors.post_norm
        self._qkv, self._output = fastest_product(*tensors.qkv), fastest_product(*tensors.output)
        self._gate_up: Product | None = None if tensors.gate_up is None else fastest_product(*tensors.gate_up)
        self._down: Product | None = None if tensors.down is None else fastest_product(*tensors.down)

    def __call__(self, hidden: Tensor, cos: Tensor, signed_sin: Tensor, attend: Attend) -> Tensor:
        shape, eps = self.shape, self.shape.norm_eps
        normed = functional.rms_norm(hidden, self._input_norm.shape, self._input_norm, eps)
        heads = self._qkv(normed).view(hidden.shape[0], -1, shape.head_dim)
        rotating, values = torch.split_with_sizes(heads, (shape.num_heads + shape.num_kv_heads, shape.num_kv_heads), dim=1)
        if self._head_norm is not None:
            rotating = functional.rms_norm(rotating, (shape.head_dim,), None, eps) * self._head_norm
        rotated = rotate(rotating, cos, signed_sin).transpose(0, 1)
        queries, keys = torch.split_with_sizes(rotated, (shape.num_heads, shape.num_kv_heads))
        hidden = hidden + self._output(attend(queries, keys, values.transpose(0, 1)))
        normed = functional.rms_norm(hidden, self._post_norm.shape, self._post_norm, eps)
        if self._experts is not None:
            expert_output: Tensor = self._experts(normed[None])[0]
            return hidden + expert_output
        assert self._gate_up is not None
        assert self._down is not None
        gate, up = self._gate_up(normed).chunk(2, dim=-1)
        return hidden + self._down(functional.silu(gate) * up)


class FusedStack:
    """The layers in torch."""

    def __init__(self, parts: StackParts, layers: Sequence[FusedLayer]) -> None:
        self._parts, self._layers = parts, layers

    def __call__(self, rows: PackedRows, taps: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        parts = self._parts
        hidden = parts.embed(rows.token_ids[0])
        cos, sin = parts.angles(rows)
        whole_cos, signed_sin = (torch.cat(halves, dim=-1).to(hidden.dtype).unsqueeze(1) for halves in ((cos, cos), (-sin, sin)))
        features = hidden.new_empty((len(hidden), len(taps) * parts.width)) if taps else None
        for index, layer in enumerate(self._layers):
            hidden = layer(hidden, whole_cos, signed_sin, attend_segments(rows, index, parts.attention_scale))
            parts.tap(hidden, index, taps, features)
        return parts.norm(hidden), features


class NativeStack:
    """The layers in native calls, on the CPU; hidden states stay float32 from the embedding to the final norm."""

    def __init__(self, parts: StackParts, layers: Sequence[NativeLayer], experts: Sequence[nn.Module | None]) -> None:
        self._parts, self._layers, self._experts = parts, layers, experts
        self._whole: NativeLayers | None = None
        if NativeLayers.can_run(layers):
            embedding = parts.embed.matrix if isinstance(parts.embed, NativeEmbedding) else parts.embed.weight
            self._whole = NativeLayers(layers, parts.norm_weight, parts.norm_eps, parts.attention_scale, embedding)

    def __call__(self, rows: PackedRows, taps: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        whole = self._whole
        if whole is None or not all(is_dense(segment, whole.layout) for segment in rows.segments):
            return self._run_layers(rows, taps)
        self._parts.table.reserve(rows.num_positions)
        return whole.run(rows.host, self._parts.table, [dense_rows(segment) for segment in rows.segments], taps, torch.get_num_threads())

    def _run_layers(self, rows: PackedRows, taps: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """Layer by layer, through the protocol of the stores."""
        parts, num_threads = self._parts, torch.get_num_threads()
        embedded, (cos, sin) = parts.embed(rows.token_ids[0]), parts.angles(rows)
        hidden = embedded.float()
        features = embedded.new_empty((len(hidden), len(taps) * parts.width)) if taps else None
        for index, (layer, experts) in enumerate(zip(self._layers, self._experts, strict=True)):
            mixed = attend_segments(rows, index, parts.attention_scale)(*layer.project(hidden, cos, sin, num_threads))
            if experts is None:
                layer.finish(mixed, hidden, num_threads)
            else:
                hidden += experts(layer.finish_attention(mixed, hidden, num_threads).to(embedded.dtype)[None])[0]
            parts.tap(hidden, index, taps, features)
        return rms_norm(hidden, parts.norm_weight, parts.norm_eps, embedded.dtype), features


def is_dense(segment: Segment, layout: Layout) -> bool:
    """Whether the call of all layers takes the segment, which then gets the bits that its store's own attention gives it."""
    store = segment.store
    return (
        type(store) is DenseStore  # one that is derived from it may attend in its own way
        and store.attends_natively(segment.stop - segment.start)
        and store.layout == layout
    )


def dense_rows(segment: Segment) -> SegmentRows:
    """The segment's rows with their place in its store's buffer, where they count as appended from now on."""
    store, num_rows, tree = segment.store, segment.stop - segment.start, segment.tree
    assert isinstance(store, DenseStore)
    return SegmentRows.at(store.lend(num_rows), store.length, num_rows, None if tree is None or num_rows == 1 else tree.ancestors)
