"""The packed products against plain ones over float32 copies, on both sides of every block size, and the bits of a row among others."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from hoarfrost.errors import InvalidInput
from hoarfrost.kernels import instruction_sets
from hoarfrost.kernels.linear import NativeLinear, can_multiply, fastest_product, make_matrix, multiply, pack_linears, read_rows

pytestmark = pytest.mark.usefixtures("each_instruction_set")

ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-8}


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_native_equals_plain(instruction_set: str, dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    for num_outputs, num_inputs in ((1, 1), (16, 8), (56, 24), (131, 67), (64, 300)):
        weight = torch.randn(num_outputs, num_inputs).to(dtype)
        offset = torch.randn(num_outputs).to(dtype) if bias else None
        layer = NativeLinear(weight, offset, instruction_set)
        for num_rows in (1, 2, 3, 4, 5, 6, 7, 12, 13, 48, 49, 100):
            rows = torch.randn(num_rows, num_inputs).to(dtype)
            expected = functional.linear(rows.double(), weight.double(), None if offset is None else offset.double())
            error = (layer(rows).double() - expected).abs()
            allowed = ROUNDING[dtype] * expected.abs() + 1e-6 * num_inputs
            assert (error <= allowed).all(), (num_outputs, num_inputs, num_rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_has_the_same_bits_in_any_company(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    layer = NativeLinear(torch.randn(150, 90).to(dtype))
    rows = torch.randn(101, 90).to(dtype)
    together = layer(rows)
    for start, stop in ((0, 1), (5, 7), (9, 12), (20, 37), (40, 101)):
        assert torch.equal(layer(rows[start:stop]), together[start:stop])


@pytest.mark.parametrize("instruction_set", instruction_sets())
def test_float32_rows_meet_bfloat16_weights(instruction_set: str) -> None:
    """As they are, or rounded to bfloat16 where the processor multiplies such numbers; never anything coarser."""
    torch.manual_seed(2)
    weight, rows = torch.randn(70, 131).to(torch.bfloat16), torch.randn(13, 131)
    met = rows.to(torch.bfloat16) if instruction_set == "avx512_bf16" else rows
    got = multiply(make_matrix(weight, None, instruction_set), rows, torch.float32)
    expected = met.double() @ weight.double().T
    assert ((got.double() - expected).abs() <= 2.0**-23 * 131 * (met.double().abs() @ weight.double().abs().T)).all()


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_can_be_read_back(dtype: torch.dtype, instruction_set: str) -> None:
    weight = torch.randn(70, 131).to(dtype)
    assert torch.equal(read_rows(make_matrix(weight, None, instruction_set), [69, 0, 33]), weight[[69, 0, 33]].float())


@pytest.mark.parametrize("shape", [(24,), (1, 24), (1, 1, 24), (2, 24), (1, 7, 24), (0, 24)])
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(56, 24), torch.randn(shape)
    got = NativeLinear(weight)(rows)
    assert got.shape == (*shape[:-1], 56)
    torch.testing.assert_close(got, functional.linear(rows, weight), atol=1e-5, rtol=1e-5)


def test_strided_rows_and_threads() -> None:
    torch.manual_seed(0)
    weight, rows = torch.randn(640, 384), torch.randn(384, 17).T
    before = torch.get_num_threads()
    layer = NativeLinear(weight)
    try:
        torch.set_num_threads(1)
        alone = layer(rows)
        torch.set_num_threads(3)
        assert torch.equal(layer(rows), alone)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(alone, functional.linear(rows, weight), atol=1e-4, rtol=1e-4)


def test_rows_of_another_kind_are_refused() -> None:
    layer = NativeLinear(torch.randn(4, 8))
    for rows in (torch.randn(2, 7), torch.randn(2, 8).double()):
        with pytest.raises(InvalidInput, match="this layer takes"):
            layer(rows)


def test_a_whole_model_is_packed_and_gives_the_same() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.ReLU(), nn.Linear(16, 4, bias=False)))
    rows = torch.randn(3, 8)
    expected = model(rows)
    pack_linears(model)
    assert type(model[0]) is type(model[1][1]) is NativeLinear
    torch.testing.assert_close(model(rows), expected, atol=1e-6, rtol=1e-6)


def test_other_places_keep_the_plain_product() -> None:
    for weight in (torch.empty(2, 2, dtype=torch.float64), torch.empty(2, 2, device="meta"), torch.empty(2, 2, dtype=torch.float16)):
        assert not can_multiply(weight)
    assert fastest_product(torch.eye(2, dtype=torch.float64))(torch.ones(1, 2, dtype=torch.float64)).tolist() == [[1.0, 1.0]]
