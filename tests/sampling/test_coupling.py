"""Coupling: candidates ranked by the noise that will choose the token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hoarfrost.sampling import Chooser, SamplingParams, probabilities
from hoarfrost.sampling.coupling import couple

VOCAB_SIZE = 40


def all_candidates(logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Every token of each row `[L, V]`, best first, as candidates `[L, 1, V]`."""
    log_probs, token_ids = logits.log_softmax(-1).sort(dim=-1, descending=True, stable=True)
    return log_probs[:, None].numpy(), token_ids[:, None].numpy()


@pytest.mark.parametrize(
    "options",
    [{}, {"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.1}, {"top_k": 8, "top_p": 0.7, "min_p": 0.02}],
    ids=["all", "top-p", "top-k", "min-p", "mixed"],
)
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.6])
def test_a_drafter_that_knows_the_target_knows_its_choice(temperature: float, options: dict[str, float]) -> None:
    logits = torch.randn(12, VOCAB_SIZE, generator=torch.Generator().manual_seed(1)) * 2
    params = SamplingParams(temperature=temperature, seed=7, **options)  # type: ignore[arg-type]
    log_probs, token_ids = couple(*all_candidates(logits), params, first_position=30)
    chooser = Chooser(params)
    for depth, row in enumerate(logits):
        assert token_ids[depth, 0, 0] == chooser.choose(row, 30 + depth, 0)
        allowed = probabilities(row, params) > 0
        assert (np.isfinite(log_probs[depth, 0]) == allowed.numpy()[token_ids[depth, 0]]).all()


def test_scores_are_a_distribution_in_falling_order() -> None:
    logits = torch.randn(3, VOCAB_SIZE, generator=torch.Generator().manual_seed(2))
    log_probs, token_ids = couple(*all_candidates(logits), SamplingParams(temperature=1.0, seed=3), first_position=5)
    assert np.exp(log_probs).sum(-1) == pytest.approx(1, abs=1e-5)
    assert (np.diff(log_probs, axis=-1) <= 0).all()
    assert (np.sort(token_ids, axis=-1) == np.arange(VOCAB_SIZE)).all()


def test_each_predecessor_keeps_its_own_row() -> None:
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(4))
    log_probs, token_ids = (x.numpy() for x in logits.log_softmax(-1).sort(dim=-1, descending=True))
    params = SamplingParams(temperature=1.0, seed=5)
    together = couple(log_probs, token_ids, params, 9)
    for before in range(3):
        alone = couple(log_probs[:, before : before + 1], token_ids[:, before : before + 1], params, 9)
        assert (together[1][:, before] == alone[1][:, 0]).all()
        np.testing.assert_allclose(together[0][:, before], alone[0][:, 0])
