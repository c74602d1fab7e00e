"""Faces of a DFlash drafter's passes on the CPU and of transitions; the kernels: native/decoder/draft_network.hpp,
native/decoder/transitions.hpp.

They run in every round, so tensors are checked for what a mistake in this package could get wrong (type, shape, contiguity), and handed on
as addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.decoder import DTYPES, LayerShape, LayerTensors, suffix_of
from hoarfrost.kernels.linear import Matrix, Weights, can_multiply, make_matrix, to_bits

Ordered = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32]]


@dataclass(frozen=True)
class ContextTensors:
    """Weights of the context: `fusion` leads from the tapped features to the width, `keys_values` from there to all keys of all layers,
    layer by layer, and then all values; `norm [width]` and `key_norm [layers * Hkv, D]` are those of the fused features and of the keys."""

    fusion: Weights
    norm: Tensor
    key_norm: Tensor
    keys_values: tuple[Weights, Tensor | None]


@dataclass(frozen=True)
class DraftRows:
    """Where a pass writes the keys and values of `count` new rows: behind `length` rows of a buffer `[2, layers, Hkv, capacity, D]`."""

    buffer: Tensor
    length: int
    count: int


class NativeDraftNetwork:
    """A DFlash network without convolutions. Hidden states are float32 within a pass; what comes in and out is of the norms' type."""

    def __init__(
        self,
        shape: LayerShape,
        block_size: int,
        context: ContextTensors,
        layers: Sequence[LayerTensors],
        views: Sequence[tuple[bool, int | None]],
        norm: Tensor,
    ) -> None:
        """`views` say of each layer whether a row sees no later ones, and how far it sees."""
        self.dtype = norm.dtype
        self._shape, self._block_size, self._num_layers = shape, block_size, len(layers)
        fusion = make_matrix(context.fusion)
        self._width, self._num_features = fusion.num_outputs, fusion.num_inputs
        self._network = _native.DraftNetwork(
            shape.num_heads,
            shape.num_kv_heads,
            shape.head_dim,
            shape.norm_eps,
            block_size,
            fusion,
            _floats(context.norm),
            _floats(context.key_norm),
            make_matrix(*context.keys_values),
            [_draft_layer(layer, is_causal, window) for layer, (is_causal, window) in zip(layers, views, strict=True)],
            _floats(norm),
        )
        self._extend, self._run = (getattr(self._network, f"{name}_{suffix_of(self.dtype)}") for name in ("extend", "run"))

    @staticmethod
    def can_run(weight: Tensor, head_dim: int) -> bool:
        """Whether a network of weights like this one runs here."""
        return can_multiply(weight) and weight.dtype in DTYPES and head_dim % 8 == 0

    def extend(self, rows: Sequence[DraftRows], features: Tensor, cos: Tensor, sin: Tensor) -> None:
        """Writes the context's keys and values of `features [n, num_features]`, n rows in all, at the angles of `cos, sin [n, D / 2]`."""
        num_rows = sum(one.count for one in rows)
        assert features.shape == (num_rows, self._num_features)
        features = features.contiguous()
        self._extend(*self._pass(rows, num_rows, features, cos, sin), torch.get_num_threads())

    def run(self, rows: Sequence[DraftRows], blocks: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Final normed states `[S, b - 1, width]` of S blocks after their first slots, from embeddings `[S * b, width]` at given angles."""
        num_rows = len(rows) * self._block_size
        assert all(one.count == self._block_size for one in rows)
        assert blocks.shape == (num_rows, self._width)
        assert blocks.is_contiguous()
        out = torch.empty((len(rows), self._block_size - 1, self._width), dtype=self.dtype)
        self._run(*self._pass(rows, num_rows, blocks, cos, sin), out.data_ptr(), torch.get_num_threads())
        return out

    def _pass(self, rows: Sequence[DraftRows], num_rows: int, states: Tensor, cos: Tensor, sin: Tensor) -> tuple[Any, int, int, int]:
        assert states.dtype == self.dtype, states.dtype
        for table in (cos, sin):
            assert table.dtype == torch.float32
            assert table.shape == (num_rows, self._shape.head_dim // 2), table.shape
            assert table.is_contiguous()
        return [self._context(one) for one in rows], states.data_ptr(), cos.data_ptr(), sin.data_ptr()

    def _context(self, rows: DraftRows) -> tuple[int, int, int, int]:
        buffer, shape = rows.buffer, self._shape
        capacity = buffer.shape[3]
        assert buffer.shape == (2, self._num_layers, shape.num_kv_heads, capacity, shape.head_dim), buffer.shape
        assert buffer.dtype == self.dtype
        assert buffer.is_contiguous()
        assert rows.length + rows.count <= capacity
        return buffer.data_ptr(), capacity, rows.length, rows.count


class NativeSelector:
    """A candidate selector's weights: codebooks `[V, r]`, not copied, and the projection `[r, width]`."""

    def __init__(self, predecessors: Tensor, successors: Tensor, projection: Tensor) -> None:
        assert predecessors.shape == successors.shape
        assert predecessors.shape[1] == projection.shape[0]
        assert predecessors.dtype == successors.dtype == projection.dtype
        self._predecessors, self._successors = predecessors.detach().contiguous(), successors.detach().contiguous()
        self._projection: Matrix = make_matrix(projection)
        self._transitions: Any = getattr(_native, f"transitions_{suffix_of(projection.dtype)}")
        self.dtype = projection.dtype

    def log_probs(
        self, hidden: Tensor, marginals: NDArray[np.float32], token_ids: NDArray[np.int64], bonus_token_ids: Sequence[int]
    ) -> NDArray[np.float32]:
        """Log-probabilities `[S, L, K, K]` of candidates after each other from final states `hidden [S, L, width]` and the candidates'
        `marginals` and `token_ids [S, L, K]`. The plain twin is
        `hoarfrost.drafting.selector.weigh_plainly`."""
        num_sequences, horizon, num_candidates = marginals.shape
        assert hidden.shape == (num_sequences, horizon, self._projection.num_inputs)
        assert hidden.dtype == self.dtype
        assert hidden.is_contiguous()
        assert len(bonus_token_ids) == num_sequences
        assert all(0 <= token_id < self._predecessors.shape[0] for token_id in bonus_token_ids)
        out = np.empty((num_sequences, horizon, num_candidates, num_candidates), np.float32)
        codebooks = self._predecessors.data_ptr(), self._successors.data_ptr()
        self._transitions(
            self._projection, *codebooks, hidden.data_ptr(), marginals, token_ids, list(bonus_token_ids), out, torch.get_num_threads()
        )
        return out


def order_transitions(log_probs: NDArray[np.float32], token_ids: NDArray[np.int64]) -> Ordered:
    """The candidates behind each predecessor, best first: log_probs and token_ids `[L, K, K]`, and places int32, the candidate of
    `token_ids [L, K]` that each is. Equal ones keep their order. Row 0 of the first depth stands for all its rows.

    Raises `InvalidInput` for NaN and for log-probabilities above 0.
    """
    shape = log_probs.shape
    ordered = np.empty(shape, np.float32), np.empty(shape, np.int64), np.empty(shape, np.int32)
    if not _native.order_transitions(np.ascontiguousarray(log_probs), np.ascontiguousarray(token_ids), *ordered):
        raise broken_transitions()
    return ordered


def broken_transitions() -> InvalidInput:
    """What is raised where transitions are no log-probabilities."""
    return InvalidInput("The transitions hold NaN or log-probabilities above 0; check the drafter's weights, or load it in a wider dtype.")


def gather_rows(table: Tensor, rows: Sequence[int]) -> Tensor:
    """`table[rows]` of `[N, width]` on the CPU: what `torch.nn.functional.embedding` gives, without its dispatch."""
    assert table.is_cpu
    assert table.is_contiguous()
    num_rows, width = table.shape
    out = torch.empty((len(rows), width), dtype=table.dtype)
    _native.gather_rows(table.data_ptr(), num_rows, width * table.element_size(), rows, out.data_ptr())
    return out


def _draft_layer(layer: LayerTensors, is_causal: bool, window: int | None) -> _native.DraftLayer:
    parts: list[Any] = [_floats(part) for part in (layer.input_norm, layer.head_norm, layer.post_norm) if part is not None]
    parts += [make_matrix(*pair) for pair in (layer.qkv, layer.output, layer.gate_up, layer.down) if pair is not None]
    make: Any = _native.DraftLayer
    layer_of_parts: _native.DraftLayer = make(*parts, is_causal, window or 0)
    return layer_of_parts


def _floats(tensor: Tensor) -> Any:
    return to_bits(tensor.float()).flatten().numpy()
