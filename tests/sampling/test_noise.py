"""The noise is the documented function of (seed, position, token id) on every path, Gumbel distributed, and independent."""

import math

import numpy as np
import pytest
import torch
from devices import DEVICES
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hoarfrost import kernels
from hoarfrost.sampling import gumbel_noise, gumbel_noise_plain, gumbel_noise_range, noise_bits_plain

ALL_BITS = 2**64 - 1
INT64 = st.integers(-(2**63), 2**63 - 1)
COUNTS = st.integers(0, 2**63 - 1)


def mix(x: int) -> int:
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & ALL_BITS
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & ALL_BITS
    return x ^ x >> 31


def unmix(x: int) -> int:
    """The inverse of `mix`: undoing a shift of n bits takes two steps, as 3 n > 64."""
    x ^= x >> 31 ^ x >> 62
    x = x * pow(0x94D049BB133111EB, -1, 2**64) & ALL_BITS
    x ^= x >> 27 ^ x >> 54
    x = x * pow(0xBF58476D1CE4E5B9, -1, 2**64) & ALL_BITS
    return x ^ x >> 30 ^ x >> 60


def key_of(seed: int, position: int) -> int:
    return mix(seed ^ mix(position + 0x9E3779B97F4A7C15 & ALL_BITS))


def bits_of(seed: int, position: int, token_id: int) -> int:
    return mix(key_of(seed, position) ^ mix(token_id + 0xD1B54A32D192ED03 & ALL_BITS))


def gumbel_of(bits: int) -> float:
    return -math.log(-math.log(min((bits >> 11) / 2**53 + 2.0**-54, 1 - 2.0**-53)))


@given(seed=COUNTS, position=COUNTS, token_ids=st.lists(INT64, min_size=1, max_size=20))
def test_every_path_computes_the_documented_function(seed: int, position: int, token_ids: list[int]) -> None:
    ids = torch.tensor(token_ids)
    expected_bits = [bits_of(seed, position, token_id) for token_id in token_ids]
    assert noise_bits_plain(seed, position, ids).numpy().view(np.uint64).tolist() == expected_bits
    assert kernels.noise_bits(seed, position, ids.numpy()).tolist() == expected_bits
    expected = [gumbel_of(bits) for bits in expected_bits]
    for values in (gumbel_noise_plain(seed, position, ids), gumbel_noise(seed, position, ids)):
        assert values.dtype == torch.float32
        np.testing.assert_allclose(values.numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("vocab_size", [1, 7, 8192])
def test_a_range_is_its_tokens_on_every_device(device: str, vocab_size: int) -> None:
    token_ids = torch.arange(vocab_size, device=device)
    whole = gumbel_noise_range(3, 100, vocab_size, torch.device(device))
    assert whole.device.type == gumbel_noise(3, 100, token_ids).device.type == device
    torch.testing.assert_close(whole, gumbel_noise(3, 100, token_ids), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(whole.cpu(), gumbel_noise_plain(3, 100, token_ids.cpu()), rtol=1e-6, atol=1e-6)
    order = torch.randperm(vocab_size)
    assert torch.equal(gumbel_noise(3, 100, order.to(device)).cpu(), whole.cpu()[order])


@pytest.mark.parametrize(("bits", "value"), [(0, -math.log(54 * math.log(2))), (ALL_BITS, 53 * math.log(2))])
def test_the_extremes_are_finite(bits: int, value: float) -> None:
    token_id = (unmix(unmix(bits) ^ key_of(1, 2)) - 0xD1B54A32D192ED03) & ALL_BITS
    assert bits_of(1, 2, token_id) == bits
    ids = torch.from_numpy(np.array([token_id], dtype=np.uint64).view(np.int64))
    assert gumbel_noise_plain(1, 2, ids).item() == pytest.approx(value, rel=1e-6)
    assert gumbel_noise(1, 2, ids).item() == pytest.approx(value, rel=1e-6)


def test_values_are_gumbel_distributed_along_tokens_and_along_positions() -> None:
    along_tokens = gumbel_noise_range(11, 5, 20_000, torch.device("cpu")).numpy()
    token = torch.tensor([42])
    along_positions = np.array([gumbel_noise(11, position, token).item() for position in range(5_000)])
    along_seeds = np.array([gumbel_noise(seed, 5, token).item() for seed in range(5_000)])
    for values in (along_tokens, along_positions, along_seeds):
        assert stats.kstest(values, "gumbel_r").pvalue > 1e-3


def test_noise_is_independent_between_positions_seeds_and_tokens() -> None:
    def uniforms(seed: int, position: int) -> np.ndarray:
        return np.exp(-np.exp(-gumbel_noise_range(seed, position, 20_000, torch.device("cpu")).numpy().astype(np.float64)))

    one = uniforms(0, 64)
    others = [uniforms(0, 65), uniforms(0, 66), uniforms(1, 64), uniforms(1, 65), uniforms(64, 0), uniforms(2**62, 64), np.roll(one, 1)]
    for other in others:
        counts, _, _ = np.histogram2d(one, other, bins=8, range=[[0, 1], [0, 1]])
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4
