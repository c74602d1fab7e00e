"""Every way of attending equals the plain twin: softmax over an explicit mask in float64."""

from __future__ import annotations

import pytest
import torch
from devices import DEVICES
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import plain_attention as plain
from torch import Tensor

from hoarfrost.cache import attention
from hoarfrost.kernels.decoder import attend_dense

pytestmark = pytest.mark.usefixtures("each_instruction_set")

ACCELERATED = 5
"""How much larger errors may be elsewhere: float32 is made of three products of tensor cores, and sums run in blocks."""


def random_case(
    num_heads: int, num_kv_heads: int, num_rows: int, num_past: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(num_heads * 1000 + num_rows * 10 + num_past)
    queries = torch.randn(num_heads, num_rows, 16).to(dtype)
    keys, values = (torch.randn(num_kv_heads, num_past + num_rows, 16).to(dtype) for _ in range(2))
    square = torch.rand(num_rows, num_rows) < 0.4
    square.fill_diagonal_(True)
    return queries, keys, values, square


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@settings(max_examples=25, deadline=None)
@given(heads=st.sampled_from([(4, 2), (6, 2), (3, 3), (4, 1)]), num_rows=st.integers(2, 9), num_past=st.integers(0, 40))
def test_tail_equals_plain(dtype: torch.dtype, tolerance: float, device: str, heads: tuple[int, int], num_rows: int, num_past: int) -> None:
    tolerance *= 1 if device == "cpu" else ACCELERATED
    queries, keys, values, square = (one.to(device) for one in random_case(*heads, num_rows, num_past, dtype))
    mask = torch.cat([torch.ones(num_rows, num_past, dtype=torch.bool, device=device), square], 1)
    expected = plain(queries, keys, values, mask, 0.3)
    torch.testing.assert_close(
        attention.attend_tail(queries, keys, values, ~square, 0.3).double(), expected, atol=tolerance, rtol=tolerance
    )
    torch.testing.assert_close(
        attention.attend_with_mask(queries, keys, values, mask, 0.3).double(), expected, atol=tolerance, rtol=tolerance
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_rows", [1, 5])
def test_unmasked_and_causal_equal_plain(num_rows: int, device: str) -> None:
    tolerance = 1e-6 * (1 if device == "cpu" else ACCELERATED)
    queries, keys, values, _ = (one.to(device) for one in random_case(6, 2, num_rows, 12, torch.float32))
    everything = torch.ones(num_rows, 12 + num_rows, dtype=torch.bool, device=device)
    torch.testing.assert_close(
        attention.attend_all(queries, keys, values, 0.3).double(),
        plain(queries, keys, values, everything, 0.3),
        atol=tolerance,
        rtol=tolerance,
    )
    queries, keys, values, _ = (one.to(device) for one in random_case(6, 2, num_rows, 0, torch.float32))
    causal = torch.ones(num_rows, num_rows, dtype=torch.bool, device=device).tril()
    torch.testing.assert_close(
        attention.attend_causal(queries, keys, values, 0.3).double(),
        plain(queries, keys, values, causal, 0.3),
        atol=tolerance,
        rtol=tolerance,
    )


def test_the_caller_keeps_its_queries() -> None:
    queries, keys, values, square = random_case(4, 2, 5, 7, torch.float32)
    before = queries.clone()
    attention.attend_tail(queries, keys, values, ~square, 0.5)
    assert torch.equal(queries, before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
@settings(max_examples=40, deadline=None)
@given(
    heads=st.sampled_from([(4, 2), (6, 2), (3, 3), (8, 1)]),
    head_dim=st.sampled_from([8, 16, 40, 64]),
    num_rows=st.one_of(st.integers(1, 20), st.sampled_from([64, 65, 100])),
    num_past=st.integers(0, 300),
    kind=st.sampled_from(["all", "causal", "mask"]),
)
def test_native_equals_plain(
    dtype: torch.dtype, tolerance: float, heads: tuple[int, int], head_dim: int, num_rows: int, num_past: int, kind: str
) -> None:
    torch.manual_seed(num_rows * 1000 + num_past)
    queries = torch.randn(num_rows, heads[0], head_dim).to(dtype).transpose(0, 1)
    keys, values = (torch.randn(heads[1], num_past + num_rows + 5, head_dim).to(dtype)[:, : num_past + num_rows] for _ in range(2))
    square = torch.ones(num_rows, num_rows, dtype=torch.bool)
    if kind != "all":
        square = square.tril() if kind == "causal" else (torch.rand(num_rows, num_rows) < 0.4).fill_diagonal_(True)
    got = attend_dense(queries, keys, values, square if kind == "mask" else kind, 0.3)
    mask = torch.cat([torch.ones(num_rows, num_past, dtype=torch.bool), square], 1)
    torch.testing.assert_close(got.double(), plain(queries, keys, values, mask, 0.3), atol=tolerance, rtol=tolerance)


def test_native_survives_large_scores_and_long_pasts() -> None:
    """Scores of several hundred, and more keys than the scores of all rows at once have room for."""
    torch.manual_seed(0)
    queries, keys, values = torch.randn(6, 9, 16) * 30, torch.randn(2, 5009, 16) * 10, torch.randn(2, 5009, 16)
    got = attend_dense(queries, keys, values, "causal", 1.0)
    mask = torch.ones(9, 5009, dtype=torch.bool).tril(5000)
    torch.testing.assert_close(got.double(), plain(queries, keys, values, mask, 1.0), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tree_row_has_the_bits_of_its_path(dtype: torch.dtype) -> None:
    """Hidden rows between the visible ones change nothing: the same keys in the same order give the same bits."""
    torch.manual_seed(0)
    queries, keys, values = torch.randn(6, 9, 32).to(dtype), torch.randn(2, 109, 32).to(dtype), torch.randn(2, 109, 32).to(dtype)
    square = (torch.rand(9, 9) < 0.5).tril().fill_diagonal_(True)
    together = attend_dense(queries, keys, values, square, 0.2)
    for row in range(9):
        seen = torch.cat([torch.arange(100), 100 + square[row].nonzero()[:, 0]])
        alone = attend_dense(queries[:, row : row + 1], keys[:, seen], values[:, seen], "all", 0.2)
        assert torch.equal(alone[0], together[row])
