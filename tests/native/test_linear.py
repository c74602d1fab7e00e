"""The packed product against the plain one, over row counts on both sides of its special case."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hoarfrost.native.linear import PackedLinear, can_pack, pack_linears


@pytest.mark.skipif(not can_pack(torch.empty(2, 2)), reason="no oneDNN on this CPU: the plain product is used")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 1, 24), (2, 24), (1, 7, 24), (40, 24)])
def test_packed_equals_plain(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, offset = torch.randn(56, 24), torch.randn(56) if bias else None
    rows = torch.randn(shape)
    got = PackedLinear(weight, offset)(rows)
    expected = functional.linear(rows, weight, offset)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_whole_model_is_packed_and_gives_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 4, bias=False)))
    rows = torch.randn(3, 8)
    expected = model(rows)
    pack_linears(model)
    torch.testing.assert_close(model(rows), expected, atol=1e-6, rtol=1e-6)


def test_other_places_keep_the_plain_product() -> None:
    assert not can_pack(torch.empty(2, 2, dtype=torch.float64))
    assert not can_pack(torch.empty(2, 2, device="meta"))
