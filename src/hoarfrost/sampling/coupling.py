"""What the noise of the positions to come makes of a drafter's guesses.

The token for position t will be `argmax_v(log p(v) + g(seed, t, v))`, and g is known beforehand (`sampling.noise`). So a drafter's
candidates are ranked by `log q(v) / temperature + g(seed, t, v)`, and the softmax of these scores stands for the probability that v wins:
were q equal to p, the best score would win for certain; how much it really says is for calibration to find out. Verification asks whether
the target's own choice is in the tree, so nothing that is done here can change a token (accept-iff-equal; for the test u < p/q it would be
wrong).

On the CPU the whole vocabulary takes part (a flat distribution's winner often comes from far down). Elsewhere, and where filters (top_k,
top_p, min_p) cut the tail off as they will cut p's, the best `NUM_COUPLED` of q do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hoarfrost import kernels
from hoarfrost.sampling.params import SamplingParams
from hoarfrost.tree.candidates import Candidates, candidates_of
from hoarfrost.tree.marginals import Marginals

NUM_COUPLED = 128


def couple(
    marginals: Sequence[Marginals], params: Sequence[SamplingParams], first_positions: Sequence[int], num_candidates: int
) -> list[Candidates]:
    """The best candidates as the noise ranks them.

    Args:
        marginals: S of them; row d of number i is for position `first_positions[i] + d`.
        params: of S requests; their temperatures are above 0.
        num_candidates: wanted per depth.

    Returns:
        Per sequence log-probabilities to win and token ids, `[L, 1, min(num_candidates, V)]`; -inf where a filter drops a token.
    """
    whole = [one.keeps_all and kernels.can_read(part.logits) for one, part in zip(params, marginals, strict=True)]
    pools = iter(candidates_of([part for part, is_whole in zip(marginals, whole, strict=True) if not is_whole], NUM_COUPLED))
    result = []
    for part, one, position, is_whole in zip(marginals, params, first_positions, whole, strict=True):
        if is_whole:
            wanted = min(num_candidates, part.vocab_size)
            scores, token_ids = kernels.best_with_noise(part.by_token_id(), one.temperature, one.seed, position, wanted)
        else:
            scores, token_ids = _ranked(next(pools), one, position)
        scores -= scores[:, :1]
        scores -= np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        result.append(Candidates(scores[:, None, :num_candidates], token_ids[:, None, :num_candidates]))
    return result


def _ranked(pool: Candidates, params: SamplingParams, first_position: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores and ids `[L, M]` of a pool, best first."""
    log_probs, token_ids = pool.log_probs[:, 0], pool.token_ids[:, 0]
    scores = _filtered(log_probs / np.float32(params.temperature), params)
    scores = scores + kernels.gumbel_noise_rows(params.seed, first_position, token_ids)
    order = np.argsort(-scores, axis=-1, kind="stable")
    return np.take_along_axis(scores, order, -1), np.take_along_axis(token_ids, order, -1)


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
