"""Products over quantised matrices against the blocks taken apart by the `gguf` package, and the bits of a row among others."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hoarfrost.kernels import instruction_sets
from hoarfrost.kernels.linear import NativeLinear, make_matrix, stacked_weights
from hoarfrost.kernels.quantized import QuantizedWeight

KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
NUM_GROUPED = {"Q6_K": 16}
EPSILON = 2.0**-23


def random_weight(kind: str, num_outputs: int, num_inputs: int, seed: int = 0) -> QuantizedWeight:
    """Blocks of random bits, whose scales are float16 numbers of either sign between 2^-7 and 2^-6."""
    rng = np.random.default_rng(seed)
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (num_outputs, num_inputs // block_size, block_bytes), dtype=np.uint8)
    places = {"Q6_K": (208,), "Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2)}.get(kind, (0,))
    for place in places:
        scales = rng.uniform(2**-7, 2**-6, blocks.shape[:2]) * rng.choice([-1, 1], blocks.shape[:2])
        blocks[..., place : place + 2] = scales.astype(np.float16)[..., None].view(np.uint8)
    return QuantizedWeight(kind, blocks.reshape(num_outputs, -1), num_inputs)


def taken_apart(weight: QuantizedWeight) -> NDArray[np.float32]:
    return np.array(gguf.dequantize(weight.blocks, gguf.GGMLQuantizationType[weight.kind]))


def largest_of_group(values: NDArray[np.float64], group_size: int) -> NDArray[np.float64]:
    groups = np.abs(values).reshape(*values.shape[:-1], -1, group_size).max(axis=-1)
    return np.repeat(groups, group_size, axis=-1)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers_are_multiplied_exactly(kind: str, instruction_set: str) -> None:
    """Rows that 8 bits hold without loss: what is left is the rounding of float32 sums, one for each group and its offset."""
    rng, group_size = np.random.default_rng(1), NUM_GROUPED.get(kind, 32)
    for num_outputs, num_inputs in ((1, 256), (16, 512), (75, 768)):
        weight = random_weight(kind, num_outputs, num_inputs)
        bias = torch.from_numpy(rng.standard_normal(num_outputs).astype(np.float32))
        layer, plain = NativeLinear(weight, bias, instruction_set), taken_apart(weight).astype(np.float64)
        for num_rows in (1, 2, 3, 4, 5, 6, 7, 12, 13, 48, 49):
            rows = rng.integers(-127, 128, (num_rows, num_inputs)).astype(np.float32)
            rows[:, ::group_size] = 127
            expected = rows.astype(np.float64) @ plain.T + bias.numpy()
            sums = np.abs(rows).astype(np.float64) @ largest_of_group(2 * plain, group_size).T  # no term of an affine group is larger
            allowed = EPSILON * (num_inputs / group_size + 8) * (sums + np.abs(bias.numpy()))
            assert (np.abs(layer(torch.from_numpy(rows)).numpy() - expected) <= allowed).all(), (num_outputs, num_inputs, num_rows)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_lose_no_more_than_half_a_step(kind: str, instruction_set: str, dtype: torch.dtype) -> None:
    rng, group_size = np.random.default_rng(2), NUM_GROUPED.get(kind, 32)
    weight = random_weight(kind, 40, 512)
    rows = torch.from_numpy(rng.standard_normal((9, 512)).astype(np.float32)).to(dtype)
    plain, exact = taken_apart(weight).astype(np.float64), rows.double().numpy()
    got = NativeLinear(weight, None, instruction_set)(rows)
    assert got.dtype == torch.float32
    step = largest_of_group(exact, group_size) / 127
    allowed = 0.501 * step @ np.abs(plain).T + EPSILON * 40 * (np.abs(exact) @ largest_of_group(2 * plain, group_size).T)
    assert (np.abs(got.numpy() - exact @ plain.T) <= allowed).all()


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_in_any_company(kind: str, instruction_set: str) -> None:
    torch.manual_seed(1)
    layer = NativeLinear(random_weight(kind, 150, 256), None, instruction_set)
    rows = torch.randn(101, 256)
    together = layer(rows)
    for start, stop in ((0, 1), (3, 5), (5, 8), (9, 13), (20, 37), (40, 101)):
        assert torch.equal(layer(rows[start:stop]), together[start:stop])
    before = torch.get_num_threads()
    try:
        for num_threads in (1, 3):
            torch.set_num_threads(num_threads)
            assert torch.equal(layer(rows), together)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("instruction_set", instruction_sets())
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_seen_in_its_row_alone(broken: float, instruction_set: str) -> None:
    torch.manual_seed(0)
    layer, rows = NativeLinear(random_weight("Q4_1", 24, 128), None, instruction_set), torch.randn(5, 128)
    expected = layer(rows)
    rows[3, 77] = broken
    got = layer(rows)
    assert got[3].isnan().all()
    assert torch.equal(got[[0, 1, 2, 4]], expected[[0, 1, 2, 4]])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_can_be_read_back(kind: str) -> None:
    weight = random_weight(kind, 20, 256)
    matrix, rows = make_matrix(weight), torch.empty(3, 256)
    matrix.read_rows([19, 0, 7], rows.data_ptr())
    torch.testing.assert_close(rows.numpy(), taken_apart(weight)[[19, 0, 7]], rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match="outside"):
        matrix.read_rows([20], rows.data_ptr())


def test_matrices_of_several_kinds_are_one() -> None:
    torch.manual_seed(0)
    parts = [random_weight("Q4_K", 40, 256), random_weight("Q6_K", 8, 256), torch.randn(5, 256)]
    bias, rows = torch.randn(53), torch.randn(7, 256)
    whole = NativeLinear(stacked_weights(parts), bias)(rows)
    split = torch.split(bias, [40, 8, 5])
    assert torch.equal(whole, torch.cat([NativeLinear(part, own)(rows) for part, own in zip(parts, split, strict=True)], dim=1))
    same = stacked_weights([random_weight("Q8_0", 3, 64, seed) for seed in range(3)])
    assert isinstance(same, QuantizedWeight)
    assert same.shape == (9, 64)


def test_wrong_blocks_are_refused() -> None:
    weight = random_weight("Q8_0", 4, 64)
    with pytest.raises(ValueError, match="Q3_K"):
        make_matrix(QuantizedWeight("Q3_K", weight.blocks, 64))
    with pytest.raises(ValueError, match="whole blocks"):
        make_matrix(QuantizedWeight("Q8_0", weight.blocks, 63))
    with pytest.raises(ValueError, match="whole blocks"):
        make_matrix(QuantizedWeight("Q8_0", weight.blocks[:, :-1], 64))
