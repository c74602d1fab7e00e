"""Coupling: candidates ranked by the noise that will choose the token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hoarfrost.sampling import Chooser, SamplingParams, probabilities
from hoarfrost.sampling.coupling import couple
from hoarfrost.tree import Candidates, Marginals

VOCAB_SIZE = 40


def random_logits(horizon: int, seed: int, vocab_size: int = VOCAB_SIZE) -> torch.Tensor:
    return torch.randn(horizon, vocab_size, generator=torch.Generator().manual_seed(seed)) * 2


def coupled(logits: torch.Tensor, params: SamplingParams, first_position: int, num_candidates: int = VOCAB_SIZE) -> Candidates:
    [candidates] = couple([Marginals(logits)], [params], [first_position], num_candidates)
    return candidates


@pytest.mark.parametrize(
    "options",
    [{}, {"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.1}, {"top_k": 8, "top_p": 0.7, "min_p": 0.02}],
    ids=["all", "top-p", "top-k", "min-p", "mixed"],
)
@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.6])
def test_a_drafter_that_knows_the_target_knows_its_choice(temperature: float, options: dict[str, float]) -> None:
    logits = random_logits(12, 1)
    params = SamplingParams(temperature=temperature, seed=7, **options)  # type: ignore[arg-type]
    candidates = coupled(logits, params, 30)
    chooser = Chooser(params)
    for depth, row in enumerate(logits):
        assert candidates.token_ids[depth, 0, 0] == chooser.choose(row, 30 + depth, 0)
        allowed = probabilities(row, params) > 0
        assert (np.isfinite(candidates.log_probs[depth, 0]) == allowed.numpy()[candidates.token_ids[depth, 0]]).all()


def test_scores_are_a_distribution_in_falling_order() -> None:
    candidates = coupled(random_logits(3, 2), SamplingParams(temperature=1.0, seed=3), 5)
    assert np.exp(candidates.log_probs).sum(-1) == pytest.approx(1, abs=1e-5)
    assert (np.diff(candidates.log_probs, axis=-1) <= 0).all()
    assert (np.sort(candidates.token_ids, axis=-1) == np.arange(VOCAB_SIZE)).all()


def test_the_whole_vocabulary_and_a_pool_of_it_agree_on_what_both_hold() -> None:
    """float64 logits are ranked from a pool; where that is all there is, it makes no difference."""
    logits, params = random_logits(4, 6), SamplingParams(temperature=0.9, seed=11)
    whole, pool = coupled(logits, params, 17, 9), coupled(logits.double(), params, 17, 9)
    assert (whole.token_ids == pool.token_ids).all()
    assert whole.log_probs.shape == (4, 1, 9)


def test_winners_from_far_down_are_found() -> None:
    """Of a nearly flat distribution over many tokens, most winners are not among the best hundred."""
    logits, params = random_logits(20, 8, vocab_size=5000) * 0.05, SamplingParams(temperature=1.0, seed=2)
    chooser = Chooser(params)
    candidates = coupled(logits, params, 3, 2)
    assert candidates.token_ids[:, 0, 0].tolist() == [chooser.choose(row, 3 + depth, 0) for depth, row in enumerate(logits)]


def test_sequences_of_a_batch_have_their_own_noise() -> None:
    parts, params = [random_logits(2, seed) for seed in (1, 2, 3)], [SamplingParams(temperature=1.0, seed=seed) for seed in (4, 5, 6)]
    params[1] = SamplingParams(temperature=0.7, seed=5, top_p=0.9)
    together = couple([Marginals(part) for part in parts], params, [9, 3, 5], 6)
    for part, one, position, candidates in zip(parts, params, (9, 3, 5), together, strict=True):
        alone = coupled(part, one, position, 6)
        assert (candidates.token_ids == alone.token_ids).all()
        np.testing.assert_array_equal(candidates.log_probs, alone.log_probs)
