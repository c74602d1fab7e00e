"""Faces of the native decoder layer, of a whole stack of them, and of attention over a dense buffer; the kernels and their guarantees:
native/decoder/decoder_layer.hpp, native/decoder/decoder_stack.hpp, native/decoder/dense_attention.hpp.

These run in every pass, most for every layer, so they check what a mistake in this package could get wrong (type, shape, contiguity) and
hand addresses on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.kernels.linear import Matrix, Weight, Weights, can_multiply, make_matrix, to_bits
from hoarfrost.rotary import RotaryTable

DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class LayerShape:
    """The heads of a decoder layer and the epsilon of its norms."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float


class Layout(NamedTuple):
    """What buffers `[2, layers, Hkv, capacity, D]` of keys and values must agree in to be interchangeable."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device_type: str


@dataclass(frozen=True)
class LayerTensors:
    """One layer's weights, projections of one input stacked: q, k, v rows in `qkv`, gate and up rows in `gate_up`; biases likewise.

    `head_norm [num_heads + num_kv_heads, head_dim]` is None where queries and keys are not normed, `gate_up` and `down` where something
    else is the feed-forward network.
    """

    input_norm: Tensor
    qkv: tuple[Weights, Tensor | None]
    head_norm: Tensor | None
    output: tuple[Weights, Tensor | None]
    post_norm: Tensor
    gate_up: tuple[Weights, Tensor | None] | None
    down: tuple[Weights, Tensor | None] | None


class NativeLayer:
    """A decoder layer around its attention, on the CPU. Hidden states are float32; queries, keys, values are of the norms' type."""

    def __init__(self, shape: LayerShape, tensors: LayerTensors) -> None:
        self.shape, self.dtype = shape, tensors.input_norm.dtype
        self.has_feed_forward = tensors.down is not None
        norms = (tensors.input_norm, tensors.head_norm, tensors.post_norm)
        matrices = (tensors.qkv, tensors.output, tensors.gate_up, tensors.down)
        parts: list[Any] = [None if norm is None else to_bits(norm.float()).flatten().numpy() for norm in norms]
        parts += [None if pair is None else make_matrix(*pair) for pair in matrices]
        self._layer = _native.DecoderLayer(shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.norm_eps, *parts)
        self._width = tensors.input_norm.shape[0]
        self._project, self._finish, self._finish_attention = (
            getattr(self._layer, f"{name}_{suffix_of(self.dtype)}") for name in ("project", "finish", "finish_attention")
        )

    @staticmethod
    def can_run(weight: Weight, dtype: torch.dtype, head_dim: int) -> bool:
        """Whether layers of weights like this one, with keys and values in `dtype`, run here."""
        return can_multiply(weight) and dtype in DTYPES and head_dim % 2 == 0

    def project(self, hidden: Tensor, cos: Tensor, sin: Tensor, num_threads: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[H, n, D]`, keys and values `[Hkv, n, D]` of `hidden [n, width]` at the angles of `cos, sin [n, D / 2]` (float32)."""
        num_rows, shape = hidden.shape[0], self.shape
        self._check(hidden, self._width, torch.float32)
        self._check(cos, shape.head_dim // 2, torch.float32)
        self._check(sin, shape.head_dim // 2, torch.float32)
        assert cos.shape[0] == sin.shape[0] == num_rows
        heads = torch.empty((shape.num_heads + 2 * shape.num_kv_heads, num_rows, shape.head_dim), dtype=self.dtype)
        queries, keys, values = torch.split_with_sizes(heads, (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads))
        self._project(
            hidden.data_ptr(), num_rows, cos.data_ptr(), sin.data_ptr(), queries.data_ptr(), keys.data_ptr(), values.data_ptr(), num_threads
        )
        return queries, keys, values

    def finish(self, mixed: Tensor, hidden: Tensor, num_threads: int) -> None:
        """Takes `hidden [n, width]`, in place, to the layer's output; `mixed [n, H * D]` comes from attention."""
        self._check_mixed(mixed, hidden)
        self._finish(mixed.data_ptr(), hidden.shape[0], hidden.data_ptr(), num_threads)

    def finish_attention(self, mixed: Tensor, hidden: Tensor, num_threads: int) -> Tensor:
        """Adds the attention's output to `hidden`, in place, and returns its norm: the input of a feed-forward network from elsewhere."""
        self._check_mixed(mixed, hidden)
        normed = torch.empty_like(hidden)
        self._finish_attention(mixed.data_ptr(), hidden.shape[0], hidden.data_ptr(), normed.data_ptr(), num_threads)
        return normed

    def _check_mixed(self, mixed: Tensor, hidden: Tensor) -> None:
        self._check(hidden, self._width, torch.float32)
        self._check(mixed, self.shape.num_heads * self.shape.head_dim, self.dtype)
        assert mixed.shape[0] == hidden.shape[0]

    @staticmethod
    def _check(rows: Tensor, width: int, dtype: torch.dtype) -> None:
        assert rows.dtype == dtype, rows.dtype
        assert rows.ndim == 2, rows.shape
        assert rows.shape[1] == width, rows.shape
        assert rows.is_contiguous(), rows.stride()


class SegmentRows(NamedTuple):
    """The new rows of one sequence in a pass of a `NativeLayers`, as numbers: their keys and values go behind the `length` rows of a buffer
    `[2, layers, Hkv, capacity, D]`, which has room for them. They see those and each other causally, or as the words at the address
    `ancestors` say: uint64 `[n, words_per_row]`, bit j % 64 of word j // 64 of row i for row j."""

    buffer: int
    capacity: int
    length: int
    num_rows: int
    ancestors: int
    words_per_row: int

    @staticmethod
    def at(buffer: Tensor, length: int, num_rows: int, ancestors: NDArray[np.uint64] | None) -> SegmentRows:
        """The rows from `length` on of `buffer`. Both arrays must outlive the pass."""
        capacity, address, words_per_row = buffer.shape[3], 0, 0
        assert length + num_rows <= capacity
        if ancestors is not None:
            assert ancestors.dtype == np.uint64
            assert len(ancestors) == num_rows <= 64 * ancestors.shape[1]
            assert ancestors.shape[1] == 1 or ancestors.strides[1] == ancestors.itemsize
            address, words_per_row = ancestors.ctypes.data, ancestors.strides[0] // ancestors.itemsize
        return SegmentRows(buffer.data_ptr(), capacity, length, num_rows, address, words_per_row)


class NativeLayers:
    """A decoder in one call: embeddings, all layers and the final norm, over rows whose stores are dense buffers of the layers' `layout`. A
    row's result has the bits that the layers give one by one, with `append_rows` and `attend_dense` in between."""

    def __init__(
        self, layers: Sequence[NativeLayer], final_norm: Tensor, final_eps: float, attention_scale: float, embedding: Tensor | Matrix
    ) -> None:
        """`final_norm [width]` of any type, `embedding [tokens, width]` of the layers' own, or a matrix; the latter is not copied."""
        shape, self._dtype = layers[0].shape, layers[0].dtype
        self._num_layers, self._width, self._half = len(layers), len(final_norm), shape.head_dim // 2
        self.layout = Layout(len(layers), shape.num_kv_heads, shape.head_dim, self._dtype, "cpu")
        self._embedding: Any = (
            embedding if isinstance(embedding, Matrix) else to_bits(embedding).numpy()
        )  # the stack knows its address only
        norm = to_bits(final_norm.float()).numpy()
        self._stack = _native.DecoderStack([layer._layer for layer in layers], norm, final_eps, attention_scale, self._embedding)
        self._run = getattr(self._stack, f"run_{suffix_of(self._dtype)}")

    @staticmethod
    def can_run(layers: Sequence[NativeLayer]) -> bool:
        """Whether layers like these run as one."""
        return all(layer.has_feed_forward and layer.shape == layers[0].shape for layer in layers) and layers[0].shape.head_dim % 8 == 0

    def run(
        self, rows: NDArray[np.int64], table: RotaryTable, segments: Sequence[SegmentRows], taps: Sequence[int], num_threads: int
    ) -> tuple[Tensor, Tensor | None]:
        """Final hidden states of n rows, and the outputs of the layers in `taps` side by side, `[n, len(taps) * width]`; both of the
        weights' type. `rows [2, n]`: token ids and positions, which `table` covers. Raises `ValueError` for a token or a position that is
        not there."""
        num_rows = rows.shape[1]
        assert table.cos.shape[1] == self._half
        assert sum([segment.num_rows for segment in segments]) == num_rows
        assert all(0 <= tap < self._num_layers for tap in taps)
        out = torch.empty((num_rows, self._width), dtype=self._dtype)
        features = torch.empty((num_rows, len(taps) * self._width), dtype=self._dtype) if taps else None
        self._run(
            rows, table.cos.data_ptr(), table.sin.data_ptr(), len(table.cos), segments, taps,
            0 if features is None else features.data_ptr(), out.data_ptr(), num_threads,
        )  # fmt: skip
        return out, features


def suffix_of(dtype: torch.dtype) -> str:
    """What the names of kernels for rows of this type end in."""
    return "bfloat16" if dtype == torch.bfloat16 else "float32"


def rms_norm(hidden: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """`hidden [n, width]` normed row by row, in `dtype`: the final norm of `NativeLayers`, bit for bit. `weight [width]`: float32, too."""
    num_rows, width = hidden.shape
    assert hidden.dtype == weight.dtype == torch.float32
    assert hidden.is_contiguous()
    assert weight.is_contiguous()
    assert weight.shape == (width,)
    out = torch.empty((num_rows, width), dtype=dtype)
    norm = getattr(_native, f"rms_norm_{suffix_of(dtype)}")
    norm(hidden.data_ptr(), num_rows, weight.data_ptr(), width, eps, out.data_ptr())
    return out


def can_attend(queries: Tensor) -> bool:
    """Whether `attend_dense` takes queries like these."""
    return queries.device.type == "cpu" and queries.dtype in DTYPES and queries.shape[-1] % 8 == 0


def attend_dense(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor | str, scale: float) -> Tensor:
    """Attention `[n, H, D]` of `queries [H, n, D]` over `keys, values [Hkv, T, D]`, whose last n rows are the queries' own.

    Of those each query sees what `visible` says: "all", "causal" (up to itself), or bool `[n, n]`; it sees all T - n before them. A row's
    result depends, bit for bit, on its query and the keys it sees in their order, on nothing else. The plain twin is
    `hoarfrost.cache.attention.attend_with_mask`.
    """
    num_heads, num_rows, head_dim = queries.shape
    num_kv_heads, num_keys, _ = keys.shape
    head_stride, row_stride, _ = queries.stride()
    mask, is_causal = 0, False
    if isinstance(visible, str):
        is_causal = visible == "causal" and num_rows > 1
    else:
        visible = visible.contiguous()
        assert visible.dtype == torch.bool
        assert visible.shape == (num_rows, num_rows)
        mask = visible.data_ptr()
    assert keys.stride() == values.stride()
    assert keys.stride(1) == head_dim
    assert queries.stride(2) == keys.stride(2) == 1
    assert queries.dtype == keys.dtype == values.dtype
    assert num_heads % num_kv_heads == 0
    out = torch.empty((num_rows, num_heads, head_dim), dtype=queries.dtype)
    attend = getattr(_native, f"attend_dense_{suffix_of(queries.dtype)}")
    attend(
        queries.data_ptr(), head_stride, row_stride, keys.data_ptr(), values.data_ptr(), keys.stride(0),
        num_heads, num_kv_heads, head_dim, num_rows, num_keys, mask, is_causal, scale, out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


def can_append(buffer: Tensor, rows: Tensor) -> bool:
    """Whether `append_rows` takes these rows: of the buffer's type, on the CPU, the entries of a row side by side."""
    return rows.device.type == "cpu" and rows.dtype == buffer.dtype and rows.stride(2) == 1


def append_rows(buffer: Tensor, layer: int, start: int, keys: Tensor, values: Tensor) -> None:
    """Copies `keys, values [Hkv, n, D]` to the rows from `start` on of one layer of a contiguous `buffer [2, layers, Hkv, capacity, D]`."""
    num_heads, num_rows, head_dim = keys.shape
    assert values.shape == keys.shape
    assert (num_heads, head_dim) == (buffer.shape[2], buffer.shape[4])
    assert start + num_rows <= buffer.shape[3]
    size, first = buffer.element_size(), buffer.data_ptr()
    kind_stride, layer_stride, target_stride, _, _ = buffer.stride()
    for kind, rows in enumerate((keys, values)):
        head_stride, row_stride, _ = rows.stride()
        place = first + size * (kind * kind_stride + layer * layer_stride + start * head_dim)
        _native.copy_rows(
            rows.data_ptr(), head_stride * size, row_stride * size, place, target_stride * size, num_heads, num_rows, head_dim * size
        )
