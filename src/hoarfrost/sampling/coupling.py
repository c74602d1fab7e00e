"""What the noise of the positions to come makes of a drafter's guesses.

The token for position t will be `argmax_v(log p(v) + g(seed, t, v))`, and g is known beforehand (`sampling.noise`). So a drafter's
candidates are ranked by `log q(v) / temperature + g(seed, t, v)`, and the softmax of these scores stands for the probability that v wins:
were q equal to p, the best score would win for certain; how much it really says is for calibration to find out. Verification asks whether
the target's own choice is in the tree, so nothing that is done here can change a token (accept-iff-equal; for the test u < p/q it would be
wrong).

Filters (top_k, top_p, min_p) are applied to q as they will be to p. Only candidates at hand take part: what lies outside the best hundred
or so of q wins too seldom to matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hoarfrost import native
from hoarfrost.sampling.params import SamplingParams

NUM_COUPLED = 128
"""Candidates per depth that take part."""

Candidates = tuple[NDArray[np.float32], NDArray[np.int64]]


def couple(log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], params: SamplingParams, first_position: int) -> Candidates:
    """The candidates as the noise ranks them, best first.

    Args:
        log_probs: float32 [L, P, M], the drafter's, best first; row d is for `first_position + d`; P predecessors (1 for marginals).
        token_ids: int64 of the same shape.
        params: of the request; its temperature is above 0.

    Returns:
        Log-probabilities to win and token ids, both [L, P, M]; -inf where a filter drops a token.
    """
    horizon, num_predecessors, num_candidates = log_probs.shape
    rows = token_ids.reshape(horizon, num_predecessors * num_candidates)
    noise = native.gumbel_noise_rows(params.seed, first_position, rows).reshape(log_probs.shape)
    scores = _filtered(log_probs / np.float32(params.temperature), params) + noise
    order = np.argsort(-scores, axis=-1, kind="stable")
    scores, ids = np.take_along_axis(scores, order, -1), np.take_along_axis(token_ids, order, -1)
    scores -= scores[..., :1]
    scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return scores, np.ascontiguousarray(ids)


def _filtered(scaled: NDArray[np.float32], params: SamplingParams) -> NDArray[np.float32]:
    """Tempered log-probabilities, -inf where a filter drops the token. Rows fall, so every filter keeps a prefix."""
    if params.keeps_all:
        return scaled
    weights = np.exp(scaled - scaled[..., :1])
    if params.top_k is not None:
        weights[..., params.top_k :] = 0  # top_p takes its share of what top_k has left
    dropped = (weights < params.min_p) | (weights == 0)
    if params.top_p < 1:
        before = np.cumsum(weights, axis=-1) - weights
        dropped |= before >= params.top_p * weights.sum(axis=-1, keepdims=True)
    dropped[..., 0] = False
    return np.where(dropped, np.float32(-np.inf), scaled)
