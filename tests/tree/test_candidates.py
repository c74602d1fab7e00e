from __future__ import annotations

import numpy as np
import torch

from hoarfrost.tree import Candidates, Marginals, Transitions, candidates_of

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
    [candidates] = candidates_of([transitions], 5)
    assert candidates.places is not None
    for depth in range(3):
        for before in range(3 if depth else 1):
            places = candidates.places[depth, before]
            assert candidates.token_ids[depth, before].tolist() == IDS[depth, places].tolist()
            assert candidates.log_probs[depth, before].tolist() == sorted(transitions.log_probs[depth, before], reverse=True)


def test_reranking_keeps_track_of_places() -> None:
    candidates = Candidates.from_transitions(some_transitions())
    again = candidates.reranked(candidates.log_probs[..., ::-1].copy(), candidates.token_ids[..., ::-1].copy())
    assert again.places is not None
    for depth in range(3):
        assert (IDS[depth][again.places[depth]] == again.token_ids[depth]).all()


def test_within_limits_depth_and_width() -> None:
    candidates = Candidates.from_transitions(some_transitions()).within(2, 1)
    assert candidates.log_probs.shape == (2, 3, 1)
    assert candidates.within(-1, None).horizon == 0
