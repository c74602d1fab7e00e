"""The one-pass top-k kernel against a float64 log-softmax and a full sort, on every instruction set of this machine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native, kernels
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.top_k import source_of

# Sizes around the lanes (16) and tiles (512) of the kernel.
VOCAB_SIZES = (1, 2, 15, 16, 17, 511, 512, 513, 1500, 9000)


def top_by_sorting(logits: Tensor, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    log_probs, order = torch.log_softmax(logits.double(), dim=1).sort(dim=1, descending=True, stable=True)
    return log_probs[:, :k].numpy(), order[:, :k].numpy()


def top_with(logits: Tensor, k: int, instruction_set: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return _native.top_log_probs(source_of(logits), k, 2, instruction_set)


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_equals_sorting(vocab_size: int, dtype: torch.dtype, instruction_set: str) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    for scale in (0.0, 1.0, 8.0):  # 0: all equal, so that ties alone decide
        logits = (torch.randn(3, vocab_size, generator=generator) * scale).to(dtype)
        for k in {1, min(7, vocab_size), min(64, vocab_size), min(1024, vocab_size), vocab_size}:
            expected_log_probs, expected_ids = top_by_sorting(logits, k)
            log_probs, token_ids = top_with(logits, k, instruction_set)
            np.testing.assert_array_equal(token_ids, expected_ids)
            np.testing.assert_allclose(log_probs, expected_log_probs, rtol=1e-6, atol=1e-6)
            assert (log_probs <= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_instruction_sets_agree_bit_by_bit(dtype: torch.dtype) -> None:
    logits = (torch.randn(4, 3000, generator=torch.Generator().manual_seed(0)) * 5).to(dtype)
    log_probs, token_ids = kernels.top_log_probs(logits, 50)
    for name in kernels.instruction_sets():
        other_log_probs, other_ids = top_with(logits, 50, name)
        np.testing.assert_array_equal(other_log_probs, log_probs)
        np.testing.assert_array_equal(other_ids, token_ids)


def test_the_normaliser_does_not_drift() -> None:
    num_tokens = 300_000
    flat = torch.full((1, num_tokens), 3.0)
    rising = torch.linspace(-30, 30, num_tokens)[None]  # the running maximum changes with every tile
    for logits in (flat, rising):
        expected, _ = top_by_sorting(logits, 1)
        np.testing.assert_allclose(kernels.top_log_probs(logits, 1)[0], expected, atol=2e-6)


def test_extreme_logits() -> None:
    logits = torch.full((4, 700), -torch.inf)
    logits[0, [5, 600]] = torch.tensor([2.0, 2.0])  # two possible tokens, the rest impossible
    logits[1] = torch.finfo(torch.float32).min
    logits[2, :2] = torch.tensor([3e38, -3e38])
    log_probs, token_ids = kernels.top_log_probs(logits, 4)
    np.testing.assert_array_equal(token_ids[0], [5, 600, 0, 1])
    np.testing.assert_allclose(log_probs[0], [np.log(0.5), np.log(0.5), -np.inf, -np.inf], rtol=1e-6)
    np.testing.assert_allclose(log_probs[1], -np.log(700), rtol=1e-6)
    np.testing.assert_array_equal(token_ids[2], [0, 1, 2, 3])
    assert log_probs[2, 0] == 0
    np.testing.assert_array_equal(token_ids[3], [0, 1, 2, 3])
    np.testing.assert_array_equal(log_probs[3], -np.inf)


def test_zeros_of_both_signs_are_equal() -> None:
    logits = torch.tensor([[-0.0, 0.0, -0.0, 0.0, -1.0]])
    np.testing.assert_array_equal(kernels.top_log_probs(logits, 4)[1], [[0, 1, 2, 3]])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_row_is_marked(bad: float, dtype: torch.dtype) -> None:
    logits = torch.zeros(3, 600, dtype=dtype)
    logits[1, 555] = bad
    log_probs, _ = kernels.top_log_probs(logits, 2)
    assert np.isnan(log_probs).tolist() == [[False, False], [True, True], [False, False]]


def test_rows_may_lie_apart() -> None:
    wide = torch.randn(6, 900, generator=torch.Generator().manual_seed(1))
    for logits in (wide[:, :700], wide[::2], wide[1:, 100:]):
        np.testing.assert_array_equal(kernels.top_log_probs(logits, 9)[1], top_by_sorting(logits, 9)[1])


def test_gradients_do_not_matter() -> None:
    assert kernels.top_log_probs(torch.zeros(1, 3, requires_grad=True), 1)[1].item() == 0


@pytest.mark.parametrize(
    "logits",
    [torch.zeros(4, 5, dtype=torch.float64), torch.zeros(4, 5).T, torch.zeros(5), torch.zeros(4, 5, device="meta")],
    ids=["dtype", "stride", "shape", "device"],
)
def test_other_tensors_are_refused(logits: Tensor) -> None:
    assert not kernels.can_read(logits)
    with pytest.raises(InvalidInput, match="float32 or bfloat16"):
        kernels.top_log_probs(logits, 1)


@pytest.mark.parametrize("k", [0, 6])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(InvalidInput, match=rf"k is {k}; it must lie in 1\.\.5"):
        kernels.top_log_probs(torch.zeros(2, 5), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [1, 5, 700, 1500, 8192])
def test_the_best_token_is_the_first_of_the_largest_logits(dtype: torch.dtype, vocab_size: int) -> None:
    logits = torch.randn(7, vocab_size, generator=torch.Generator().manual_seed(vocab_size)).mul(3).round().to(dtype)
    logits[3, : vocab_size // 2] = -torch.inf
    for instruction_set in _native.instruction_sets():
        for num_threads in (1, 3):
            assert (
                _native.best_tokens(source_of(logits), num_threads, instruction_set).tolist()
                == kernels.top_log_probs(logits, 1)[1][:, 0].tolist()
            )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 511, 512, 599])
def test_rows_that_cannot_be_ranked_have_no_best_token(bad: float, place: int) -> None:
    logits = torch.zeros(3, 600)
    logits[1, place] = bad
    logits[2] = -torch.inf
    assert kernels.best_tokens(logits).tolist() == [0, -1, -1]
