"""What experience says of a drafter: how often guesses of a claimed probability came true, learnt from every verification, for free.

A drafter's probabilities are off in two ways that matter to a tree: its confidence at a depth is too high or too low, and below a node that
is not on the greedy spine it guesses for a past that did not happen. So there is one logistic regression per depth, on the spine and off it
(Platt 1999):

    P(accepted) = sigmoid(slope * logit(p) + intercept)

They start at the identity and are updated by one Newton step per walk, older observations counting less and less (native/tree/learning.hpp;
plain twin: `hoarfrost.tree.plain.judge_walk_plain`). Calibrated probabilities order the search (across depths and branches, not among
siblings) and say what a tree is worth; no token depends on them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hoarfrost import kernels
from hoarfrost.kernels import Verdict
from hoarfrost.tree.candidates import Candidates

NUM_OBSERVED = 4
"""Candidates per visited row that are observed, best first: in the tree or not, so that what the tree selects does not bias what is
learnt."""

PRIOR_WEIGHT = 4.0
"""How many observations' worth of information speak for the identity."""


class Calibration:
    """Slopes and intercepts for `num_depths` depths, as `kernels.TreeHints` takes them: `parameters` float32 [2, 2, num_depths]."""

    def __init__(self, num_depths: int) -> None:
        self.parameters = np.zeros((2, 2, num_depths), np.float32)
        self.parameters[0] = 1.0
        self.information = np.zeros((2, 2, 2, num_depths))
        self.information[0, 0] = self.information[1, 1] = PRIOR_WEIGHT

    def observe(self, candidates: Candidates, chosen: NDArray[np.int64]) -> Verdict:
        """Learns from the tokens `chosen` int64 [m] at the rows of a walk, and says how the guesses fared by what was believed before."""
        return kernels.judge_walk(
            candidates.log_probs, candidates.token_ids, candidates.places, chosen, NUM_OBSERVED, self.parameters, self.information
        )


def judge(candidates: Candidates, chosen: NDArray[np.int64]) -> Verdict:
    """How guesses that are believed as they are fared."""
    return kernels.judge_walk(candidates.log_probs, candidates.token_ids, candidates.places, chosen, NUM_OBSERVED)
