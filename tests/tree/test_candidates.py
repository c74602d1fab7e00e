from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hoarfrost.tree import Candidates, Conditionals, Marginals, Transitions, candidates_of, weighed

IDS = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])


def some_transitions(seed: int = 0) -> Transitions:
    random = np.random.default_rng(seed)
    return Transitions(IDS, np.log(random.dirichlet(np.ones(4), (3, 3))[..., :3]).astype(np.float32))


def test_marginals_have_one_row_a_depth() -> None:
    logits = torch.randn(4, 50)
    [candidates] = candidates_of([Marginals(logits)], 5)
    assert candidates.log_probs.shape == candidates.token_ids.shape == (4, 1, 5)
    assert candidates.token_ids[2, 0].tolist() == logits[2].topk(5).indices.tolist()


def test_transitions_are_sorted_behind_each_predecessor() -> None:
    transitions = some_transitions()
    candidates = Candidates.from_transitions(transitions)
    assert candidates.places is not None
    for depth in range(3):
        for before in range(3 if depth else 1):
            places = candidates.places[depth, before]
            assert candidates.token_ids[depth, before].tolist() == IDS[depth, places].tolist()
            assert candidates.log_probs[depth, before].tolist() == sorted(transitions.log_probs[depth, before], reverse=True)


class RankedSelector:
    """Gives every candidate the probability of its token id's share, whatever comes before; says what it was asked."""

    num_candidates = 3

    def weigh(
        self, rows: Sequence[int], log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], temperatures: Sequence[float]
    ) -> NDArray[np.float32]:
        self.asked = list(rows), token_ids.tolist(), list(temperatures)
        shares = np.log((token_ids + 1) / (token_ids + 1).sum(-1, keepdims=True)).astype(np.float32)
        return np.repeat(shares[:, :, None], self.num_candidates, axis=2)


def test_a_selector_weighs_the_best_of_the_sequences_asked_for() -> None:
    selector, logits = RankedSelector(), torch.randn(2, 4, 50)
    guesses = [Conditionals(Marginals(rows), selector, row) for rows, row in zip(logits, (2, 0), strict=True)]
    tops = candidates_of([one.marginals for one in guesses], 7)
    found = weighed(guesses, tops, [1.0, 0.5])
    best = logits.topk(3).indices
    assert selector.asked == ([2, 0], best.tolist(), [1.0, 0.5])
    for candidates, ids in zip(found, best, strict=True):
        assert candidates.places is not None
        assert candidates.token_ids[1, 2].tolist() == ids[1].sort(descending=True).values.tolist(), "by what the selector says"
        assert ids[1][candidates.places[1, 2]].tolist() == candidates.token_ids[1, 2].tolist()


def test_within_limits_depth_and_width() -> None:
    candidates = Candidates.from_transitions(some_transitions()).within(2, 1)
    assert candidates.log_probs.shape == (2, 3, 1)
    assert candidates.within(-1, None).horizon == 0
