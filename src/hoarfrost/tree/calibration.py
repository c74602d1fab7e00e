"""What experience says of a drafter: how often guesses of a claimed probability came true, learnt from every verification, for free.

A drafter's probabilities are off in two ways that matter to a tree: its confidence at a depth is too high or too low, and below a node that
is not on the greedy spine it guesses for a past that did not happen. So there is one logistic regression per depth, on the spine and off it
(Platt 1999):

    P(accepted) = sigmoid(slope * logit(p) + intercept)

They start at the identity and are updated by one Newton step per observation batch, older observations counting less and less. Calibrated
probabilities order the search (across depths and branches, not among siblings) and say what a tree is worth; no token depends on them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_OBSERVED = 4
"""Candidates per visited row that are observed, best first: in the tree or not, so that what the tree selects does not bias what is
learnt."""

_MEMORY = 0.999  # of an observation, a round later
_PRIOR_WEIGHT = 4.0  # how many observations' worth of information speak for the identity
_MIN_SLOPE, _MAX_SLOPE = 0.2, 5.0
_MAX_LOGIT = 12.0


class Calibration:
    """Slopes and intercepts for `num_depths` depths, as `native.TreeHints` takes them: `parameters` float32 [2, 2, num_depths]."""

    def __init__(self, num_depths: int) -> None:
        self.parameters = np.zeros((2, 2, num_depths), np.float32)
        self.parameters[0] = 1.0
        self._information = np.zeros((2, 2, 2, num_depths))
        self._information[0, 0] = self._information[1, 1] = _PRIOR_WEIGHT

    def apply(self, log_probs: NDArray[np.float32], depths: NDArray[np.intp], off_spine: NDArray[np.intp]) -> NDArray[np.float64]:
        """Calibrated probabilities `[m, k]` of candidates `log_probs [m, k]` below rows of `depths [m]` (0 is the root)."""
        slopes, intercepts = self.parameters[:, off_spine, depths, None]
        return _sigmoid(slopes * _logit(log_probs) + intercepts)

    def observe(
        self, log_probs: NDArray[np.float32], hits: NDArray[np.bool_], depths: NDArray[np.intp], off_spine: NDArray[np.intp]
    ) -> NDArray[np.float64]:
        """Learns from m visited rows. Returns what was believed of the candidates before, as `apply` gives it.

        Args:
            log_probs: float32 [m, k], the best candidates below each row, uncalibrated; -inf: no candidate.
            hits: bool [m, k], which of them the target chose.
            depths, off_spine: int [m]: the rows' depths, each once; 0 where all rows down to it are the drafter's best, else 1.
        """
        valid = np.isfinite(log_probs)
        logits = _logit(log_probs)
        slopes, intercepts = self.parameters[:, off_spine, depths, None]
        predicted = _sigmoid(slopes * logits + intercepts)
        residuals = np.where(valid, hits - predicted, 0.0)
        weights = np.where(valid, predicted * (1 - predicted), 0.0)
        gradient = np.stack(((residuals * logits).sum(1), residuals.sum(1)))
        at = (slice(None), slice(None), off_spine, depths)
        information = self._information[at] * _MEMORY
        information[0, 0] += (weights * logits**2).sum(1)
        information[0, 1] += (weights * logits).sum(1)
        information[1, 0] = information[0, 1]
        information[1, 1] += weights.sum(1)
        self._information[at] = information
        (a, b), (_, d) = information
        steps = np.stack((d * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0])) / (a * d - b * b)
        updated = self.parameters[:, off_spine, depths] + steps
        updated[0] = np.clip(updated[0], _MIN_SLOPE, _MAX_SLOPE)
        self.parameters[:, off_spine, depths] = updated
        return predicted


def _logit(log_probs: NDArray[np.float32]) -> NDArray[np.float64]:
    bounded = np.clip(log_probs.astype(np.float64), -_MAX_LOGIT, -np.exp(-_MAX_LOGIT))
    logits: NDArray[np.float64] = bounded - np.log(-np.expm1(bounded))
    return logits


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return probabilities
