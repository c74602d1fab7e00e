"""The noise kernels against a transcription into Python integers, and against the law they claim to follow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hoarfrost import _native, kernels
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.top_k import source_of

ALL_BITS = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
TOKEN_OFFSET = 0xD1B54A32D192ED03


def mix(x: int) -> int:
    x &= ALL_BITS
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & ALL_BITS
    x = (x ^ x >> 27) * 0x94D049BB133111EB & ALL_BITS
    return x ^ x >> 31


def bits_in_integers(seed: int, position: int, token_id: int) -> int:
    key = mix(seed ^ mix(position + GOLDEN))
    return mix(key ^ mix(token_id + TOKEN_OFFSET))


def gumbel_in_floats(bits: int) -> float:
    return -math.log(-math.log(((bits >> 11) + 0.5) * 2.0**-53))


def test_the_transcription_is_splitmix64() -> None:
    # The first two outputs of the generator seeded with 1234567, as published with its reference implementation.
    assert mix(1234567 + GOLDEN) == 6457827717110365317
    assert mix(1234567 + 2 * GOLDEN) == 3203168211198807973


@given(
    seed=st.integers(0, ALL_BITS),
    position=st.integers(0, 2**63 - 1),
    token_ids=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
)
def test_bits_and_values_follow_their_definition(seed: int, position: int, token_ids: list[int]) -> None:
    array = np.array(token_ids, np.int64)
    expected = [bits_in_integers(seed, position, token_id) for token_id in token_ids]
    assert kernels.noise_bits(seed, position, array).tolist() == expected
    values = kernels.gumbel_noise(seed, position, array)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [gumbel_in_floats(bits) for bits in expected], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("vocab_size", [0, 1, 255, 256, 257, 8192])
def test_a_range_is_its_ids(vocab_size: int) -> None:
    expected = kernels.gumbel_noise(3, 17, np.arange(vocab_size))
    np.testing.assert_array_equal(kernels.gumbel_noise_range(3, 17, vocab_size), expected)


def test_every_instruction_set_gives_the_same_bits() -> None:
    token_ids = np.arange(1000)
    for name in kernels.instruction_sets():
        np.testing.assert_array_equal(_native.noise_bits(5, 9, token_ids, name), kernels.noise_bits(5, 9, token_ids))
        np.testing.assert_array_equal(_native.gumbel_noise(5, 9, token_ids, name), kernels.gumbel_noise(5, 9, token_ids))
        np.testing.assert_array_equal(_native.gumbel_noise_range(5, 9, 1000, name), kernels.gumbel_noise_range(5, 9, 1000))
    with pytest.raises(ValueError, match="no instruction set 'abacus'"):
        _native.gumbel_noise_range(5, 9, 10, "abacus")


def test_values_are_standard_gumbel() -> None:
    values = np.sort(kernels.gumbel_noise_range(0, 0, 200_000).astype(np.float64))
    distribution = np.exp(-np.exp(-values))
    distance = np.abs(distribution - (np.arange(values.size) + 0.5) / values.size).max()
    assert distance < 1.63 / math.sqrt(values.size)  # Kolmogorov-Smirnov at the 1% level, for a fixed seed
    assert np.isfinite(values).all()


def test_streams_of_neighbouring_seeds_and_positions_are_unrelated() -> None:
    streams = [kernels.gumbel_noise_range(seed, position, 20_000) for seed in (0, 1, 2) for position in (0, 1, 2)]
    correlations = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlations).max() < 4 / math.sqrt(20_000)


def test_seeds_and_positions_count_modulo_2_to_the_64() -> None:
    ids = np.arange(5)
    np.testing.assert_array_equal(kernels.noise_bits(-1, 2**64 + 3, ids), kernels.noise_bits(2**64 - 1, 3, ids))


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(InvalidInput, match="int32"):
        kernels.gumbel_noise(0, 0, np.arange(3, dtype=np.int32))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"shape \(2, 2\)"):
        kernels.noise_bits(0, 0, np.zeros((2, 2), np.int64))
    with pytest.raises(InvalidInput, match="-1"):
        kernels.gumbel_noise_range(0, 0, -1)


@pytest.mark.parametrize("instruction_set", _native.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("vocab_size", "k"), [(1, 1), (97, 1), (97, 97), (256, 5), (3000, 64), (9000, 1), (9000, 64)])
@pytest.mark.parametrize("temperature", [0.01, 1.0, 8.0])
def test_the_best_with_noise_are_those_of_all_noise(
    temperature: float, vocab_size: int, k: int, dtype: torch.dtype, instruction_set: str
) -> None:
    logits = (torch.randn(4, vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * 5).to(dtype)
    logits[1, ::3] = -torch.inf
    logits[1, 0] = 40.0
    logits[2] = 0.0
    values = logits.float().numpy()
    noise = kernels.gumbel_noise_rows(9, 70, np.tile(np.arange(vocab_size), (4, 1)))
    scores = (values - values.max(axis=1, keepdims=True)) / np.float32(temperature) + noise
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    for num_threads in (1, 2, 16):  # rows in parts where there are more threads than rows
        found_scores, found = _native.best_with_noise(source_of(logits), temperature, 9, 70, k, num_threads, instruction_set)
        np.testing.assert_array_equal(found, order)
        np.testing.assert_array_equal(found_scores, np.take_along_axis(scores, order, 1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 40, 96])
def test_rows_that_cannot_be_ranked_have_no_best_with_noise(bad: float, place: int) -> None:
    logits = torch.zeros(3, 97)
    logits[1, place] = bad
    logits[2] = -torch.inf
    _, token_ids = kernels.best_with_noise(logits, 1.0, 3, 4, 2)
    assert (token_ids[0] >= 0).all()
    assert token_ids[1:].tolist() == [[-1, -1], [-1, -1]]
