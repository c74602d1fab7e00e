"""The best candidates per depth: every dtype, layout and device gives the same ids, and log-probabilities to float32 accuracy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from devices import DEVICES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hoarfrost.errors import InvalidInput
from hoarfrost.tree import Marginals, marginals, top_of

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def assert_top(logits: Tensor, k: int) -> None:
    log_probs, token_ids = Marginals(logits).top(k)
    reference = torch.log_softmax(logits.cpu().float().double(), dim=1)
    order = torch.sort(logits.cpu().float(), dim=1, descending=True, stable=True).indices[:, :k]
    assert (log_probs.dtype, token_ids.dtype) == (np.float32, np.int64)
    assert log_probs.shape == token_ids.shape == (logits.shape[0], min(k, logits.shape[1]))
    np.testing.assert_array_equal(token_ids, order.numpy())
    np.testing.assert_allclose(log_probs, reference.gather(1, order).numpy(), rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab_size", [1, 7, 64, 1001])
def test_equals_sorting(vocab_size: int, dtype: torch.dtype, device: str) -> None:
    if device == "mps" and dtype == torch.float64:
        pytest.skip("no float64 there")
    generator = torch.Generator().manual_seed(vocab_size)
    for scale in (0.0, 1.0, 6.0):
        logits = (torch.randn(5, vocab_size, generator=generator) * scale).to(dtype).to(device)
        for k in (1, 5, 32, 2000):
            assert_top(logits, k)


@settings(max_examples=50)
@given(st.data(), st.sampled_from(DTYPES), st.integers(1, 30), st.integers(1, 40))
def test_ties_and_impossible_tokens(data: st.DataObject, dtype: torch.dtype, vocab_size: int, k: int) -> None:
    values = st.lists(st.sampled_from([-torch.inf, -2.0, -0.0, 0.0, 1.0]), min_size=vocab_size, max_size=vocab_size)
    logits = torch.tensor([data.draw(values) for _ in range(2)], dtype=dtype)
    logits[:, data.draw(st.integers(0, vocab_size - 1))] = 1.0
    assert_top(logits, k)


def test_a_row_without_possible_tokens() -> None:
    for dtype in DTYPES:
        log_probs, token_ids = Marginals(torch.full((1, 9), -torch.inf, dtype=dtype)).top(3)
        assert (log_probs.tolist(), token_ids.tolist()) == ([[-np.inf] * 3], [[0, 1, 2]])


def test_pieces_of_the_vocabulary_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marginals, "MAX_PIECE_ELEMENTS", 300)
    assert_top(torch.randn(3, 1003, generator=torch.Generator().manual_seed(0)).double() * 4, 17)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layout_does_not_matter(dtype: torch.dtype) -> None:
    wide = torch.randn(40, 90, generator=torch.Generator().manual_seed(0)).to(dtype)
    for logits in (wide[:, :70], wide[::3], wide.T, wide[5:20, 10::2]):
        assert_top(logits, 12)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_is_its_sequences(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = [Marginals(torch.randn(horizon, 200, generator=generator).to(dtype)) for horizon in (4, 2, 0, 4)]
    log_probs, token_ids = top_of(batch, 6)
    assert log_probs.shape == token_ids.shape == (4, 4, 6)
    for index, one in enumerate(batch):
        expected_log_probs, expected_ids = one.top(6)
        np.testing.assert_array_equal(token_ids[index, : one.horizon], expected_ids)
        np.testing.assert_array_equal(log_probs[index, : one.horizon], expected_log_probs)
        assert (log_probs[index, one.horizon :] == -np.inf).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_broken_logits_are_an_error(dtype: torch.dtype, bad: float) -> None:
    logits = torch.zeros(2, 50, dtype=dtype)
    logits[1, 3] = bad
    with pytest.raises(InvalidInput, match="NaN"):
        Marginals(logits).top(4)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InvalidInput, match="int64"):
        Marginals(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(InvalidInput, match=r"\(1, 2, 3\)"):
        Marginals(torch.zeros(1, 2, 3))
    with pytest.raises(InvalidInput, match="k is 0"):
        Marginals(torch.zeros(2, 3)).top(0)
    with pytest.raises(InvalidInput, match=r"\[3, 4\]"):
        top_of([Marginals(torch.zeros(2, 3)), Marginals(torch.zeros(2, 4))], 1)
