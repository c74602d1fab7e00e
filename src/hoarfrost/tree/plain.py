"""The plain twins of the native kernels for trees: the same rules in a few lines of Python, for tests and for reading.

The builders want every candidate that can matter at once: the best `budget` of each depth suffice, since a node of rank r follows r
siblings (DDTree, arXiv 2604.12989, lemma 1).
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hoarfrost.kernels import Verdict, gumbel_noise
from hoarfrost.tree.calibration import NUM_OBSERVED
from hoarfrost.tree.candidates import Candidates
from hoarfrost.tree.draft_tree import DraftTree

NUM_BEST = 4  # candidates whose probability counts as the drafter's opinion
FIRST_EXTRA_RANK = 1 << 20
MEMORY = 0.999  # of an observation, a round later
MIN_SLOPE, MAX_SLOPE = 0.2, 5.0
MAX_LOGIT = 12.0
SAME_SCORE = 1e-9  # products of the same shares in another order are equal, but for the rounding of their logarithms' sums


@dataclass(frozen=True, eq=False)
class PlainHints:
    """What `native.TreeHints` says for one tree."""

    calibration: NDArray[np.float32] | None = None
    path: list[int] = field(default_factory=list)
    path_shares: list[float] = field(default_factory=list)
    successors: NDArray[np.int32] | None = None
    grades: NDArray[np.uint8] | None = None
    grade_shares: list[float] = field(default_factory=list)
    max_depth: int = 0
    noise: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Row:
    """A row of the tree in the making; `predecessor` is -1 where the drafter has nothing to say below it."""

    log_prob: float
    raw_log_prob: float
    predecessor: int
    on_spine: bool
    on_path: bool


_Proposal = tuple[float, int, int, int, int, _Row]
"""A row that may come next, in heap order: negative score, depth, parent, rank; then its token and what is known of it."""


def build_tree_plain(log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], bonus_token_id: int, budget: int) -> DraftTree:
    """The `budget` likeliest prefixes, likeliest first; ties: shallower depth, lower parent row, better rank.

    Args:
        log_probs: [L, K], each row falling; -inf is never a node. K at least `budget`, or the whole vocabulary.
        token_ids: [L, K], the tokens of `log_probs`.
    """
    tokens, parents, scores = [bonus_token_id], [-1], [0.0]
    heap: list[tuple[float, int, int, int]] = []

    def propose(score_above: float, depth: int, parent: int, rank: int) -> None:
        """A candidate; those of worse rank below the same row follow when it is taken."""
        if depth <= len(log_probs) and rank < log_probs.shape[1] and log_probs[depth - 1, rank] > -math.inf:
            heapq.heappush(heap, (-(score_above + float(log_probs[depth - 1, rank])), depth, parent, rank))

    propose(0.0, 1, 0, 0)
    while heap and len(tokens) <= budget:
        score, depth, parent, rank = heapq.heappop(heap)
        tokens.append(int(token_ids[depth - 1, rank]))
        parents.append(parent)
        scores.append(-score)
        propose(scores[parent], depth, parent, rank + 1)
        propose(-score, depth + 1, len(tokens) - 1, 0)
    return DraftTree.from_parents(tokens, parents)


def grow_tree_plain(
    candidates: Candidates, bonus_token_id: int, budget: int, hints: PlainHints | None = None, like: DraftTree | None = None
) -> tuple[DraftTree, list[float]]:
    """The tree that `tree.grow_trees` builds, and the log-probabilities of its rows.

    Where rounding alone decides which of several nodes comes next, it is the one that the tree `like` has there, if any.
    """
    given = hints or PlainHints()
    tokens, parents, depths = [bonus_token_id], [-1], [0]
    rows = [_Row(0.0, 0.0, 0, True, True)]
    heap: list[_Proposal] = []

    def propose_children(parent: int) -> None:
        for token_id, rank, row in _children(candidates, given, rows[parent], tokens[parent], depths[parent]):
            score = max(row.log_prob, row.raw_log_prob) if row.on_spine else row.log_prob
            heapq.heappush(heap, (-score, depths[parent] + 1, parent, rank, token_id, row))

    propose_children(0)
    while heap and len(tokens) <= budget:
        _, depth, parent, _, token_id, row = _pop(heap, like, len(tokens))
        tokens.append(token_id)
        parents.append(parent)
        depths.append(depth)
        rows.append(row)
        propose_children(len(tokens) - 1)
    return DraftTree.from_parents(tokens, parents), [row.log_prob for row in rows]


def _pop(heap: list[_Proposal], like: DraftTree | None, next_row: int) -> _Proposal:
    """Takes the best proposal; among those as good, the next row of `like`."""
    if like is not None and next_row < like.num_rows:
        wanted = int(like.parents[next_row]), int(like.token_ids[next_row])
        same = [one for one in heap if one[0] <= heap[0][0] + SAME_SCORE and (one[2], one[4]) == wanted]
        if same and same[0] is not heap[0]:
            heap.remove(same[0])
            heapq.heapify(heap)
            return same[0]
    return heapq.heappop(heap)


def _children(candidates: Candidates, hints: PlainHints, above: _Row, token_id: int, depth: int) -> list[tuple[int, int, _Row]]:
    """Everything that may follow a row: token, rank and the row it would be."""
    log_probs, token_ids, places = _ranked(candidates, above, depth)
    believed = [calibrated(log_prob, hints.calibration, depth, above.on_spine) for log_prob in log_probs]
    extras = _extras(hints, above, token_id, depth)
    left_over = max(0.0, 1.0 - sum(math.exp(one) for one in believed[:NUM_BEST]))
    children = []
    for rank, candidate in enumerate(token_ids):
        if candidate not in extras and believed[rank] > -math.inf:
            children.append((candidate, rank, believed[rank], rank, places[rank]))
    for place, (extra, share) in enumerate(extras.items()):
        known = token_ids.index(extra) if extra in token_ids else -1
        probability = left_over * share + (math.exp(believed[known]) if known >= 0 else 0.0)
        predecessor = places[known] if known >= 0 else (0 if token_ids and candidates.places is None else -1)
        if probability > 0:
            is_best = known == 0 and above.on_spine
            children.append((extra, 0 if is_best else FIRST_EXTRA_RANK + place, math.log(min(probability, 1.0)), known, predecessor))
    result = []
    for child, order, log_prob, rank, predecessor in children:
        on_spine = above.on_spine and rank == 0
        raw = above.raw_log_prob + log_probs[0] if on_spine else above.log_prob + log_prob
        on_path = above.on_path and hints.path[depth : depth + 1] == [child]
        result.append((child, order, _Row(above.log_prob + log_prob, raw, predecessor, on_spine, on_path)))
    return result


def _ranked(candidates: Candidates, above: _Row, depth: int) -> tuple[list[float], list[int], list[int]]:
    """Log-probabilities, tokens and places of the candidates below a row, best first."""
    if depth >= candidates.horizon or above.predecessor < 0:
        return [], [], []
    log_probs, token_ids = candidates.log_probs[depth, above.predecessor], candidates.token_ids[depth, above.predecessor]
    places = [0] * len(token_ids) if candidates.places is None else candidates.places[depth, above.predecessor].tolist()
    return [float(one) for one in log_probs], token_ids.tolist(), places


def calibrated(log_prob: float, calibration: NDArray[np.float32] | None, depth: int, on_spine: bool) -> float:
    """What a candidate below a row of `depth` is believed to have."""
    if calibration is None or log_prob == -math.inf:
        return log_prob
    slope, intercept = (float(one) for one in calibration[:, 0 if on_spine else 1, depth])
    certain = min(log_prob, -1e-7)
    return -math.log1p(math.exp(-(slope * (certain - math.log(-math.expm1(certain))) + intercept)))


def _extras(hints: PlainHints, above: _Row, token_id: int, depth: int) -> dict[int, float]:
    """Tokens that other sources put below a row, with their shares of the left-over probability."""
    extras: dict[int, float] = {}
    if depth >= hints.max_depth:
        return extras
    if above.on_path and depth < len(hints.path):
        extras[hints.path[depth]] = hints.path_shares[depth]
    if hints.successors is not None and hints.grades is not None and 0 <= token_id < len(hints.successors):
        for successor, grade in zip(hints.successors[token_id].tolist(), hints.grades[token_id].tolist(), strict=True):
            if successor < 0:
                break
            share = hints.grade_shares[grade]
            extras[successor] = min(1.0, extras[successor] + share) if successor in extras else share
    if hints.noise is None:
        return extras
    seed, first_position = hints.noise
    noise = gumbel_noise(seed, first_position + depth, np.array(list(extras), np.int64)).tolist()
    return {token_id: share_given(share, one) for (token_id, share), one in zip(extras.items(), noise, strict=True)}


def share_given(share: float, noise: float) -> float:
    """How likely the token is that wins with probability `share`, given its own noise."""
    return math.exp((1 - 1 / share) * math.exp(-noise)) if share > 0 else 0.0


def allocate_plain(log_probs: list[NDArray[np.float32]], row_ms: NDArray[np.float64], fixed_ms: float) -> tuple[list[int], float, float]:
    """The nodes of each tree that `tree.grow_worthwhile` keeps, the tokens it expects, and the time.

    Args:
        log_probs: per tree float32 [R_i], of as many rows as can matter, in the order of growth, the root first (0).
        row_ms, fixed_ms: as there.
    """
    num_trees = len(log_probs)
    # A node ranks no better than the nodes before it in its tree, so that what is taken of a tree is always a prefix.
    ranked = [np.minimum.accumulate(one[1:]) for one in log_probs]
    owners = np.repeat(np.arange(num_trees), [len(one) for one in ranked])
    order = np.argsort(-np.concatenate(ranked), kind="stable")[: len(row_ms) - num_trees]
    gains = np.exp(np.concatenate([one[1:] for one in log_probs])[order].astype(np.float64))
    expected = num_trees + np.concatenate(([0.0], np.cumsum(gains)))
    milliseconds = fixed_ms + row_ms[num_trees - 1 : num_trees - 1 + len(expected)]
    best = int((expected / milliseconds).argmax())
    return np.bincount(owners[order[:best]], minlength=num_trees).tolist(), float(expected[best]), float(milliseconds[best])


def judge_walk_plain(
    candidates: Candidates, chosen: NDArray[np.int64], parameters: NDArray[np.float32], information: NDArray[np.float64]
) -> Verdict:
    """What `tree.Calibration.observe` says and learns; both arrays are written to."""
    log_probs, token_ids, off_spine = _along(candidates, chosen)
    num_rows = len(log_probs)
    depths = np.arange(num_rows)
    hits = token_ids == chosen[:num_rows, None]
    logits = np.clip(log_probs.astype(np.float64), -MAX_LOGIT, -np.exp(-MAX_LOGIT))
    logits -= np.log(-np.expm1(logits))
    slopes, intercepts = parameters[:, off_spine, depths, None]
    believed = 1 / (1 + np.exp(-(slopes * logits + intercepts)))

    valid = np.isfinite(log_probs)
    residuals = np.where(valid, hits - believed, 0.0)
    weights = np.where(valid, believed * (1 - believed), 0.0)
    seen = np.stack(((weights * logits**2).sum(1), (weights * logits).sum(1), (weights * logits).sum(1), weights.sum(1)))
    at = (slice(None), slice(None), off_spine, depths)
    information[at] = information[at] * MEMORY + seen.reshape(2, 2, num_rows)
    (a, b), (_, d) = information[at]
    gradient = np.stack(((residuals * logits).sum(1), residuals.sum(1)))
    updated = parameters[:, off_spine, depths] + np.stack((d * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0])) / (
        a * d - b * b
    )
    updated[0] = np.clip(updated[0], MIN_SLOPE, MAX_SLOPE)
    parameters[:, off_spine, depths] = updated

    left_over, is_open = np.ones(len(chosen)), np.ones(len(chosen), np.bool_)
    left_over[:num_rows] -= np.minimum(believed.sum(1), 1.0)
    is_open[:num_rows] = ~hits.any(1)
    return Verdict(np.exp(log_probs.astype(np.float64)), believed, hits, off_spine, left_over, is_open)


def _along(candidates: Candidates, chosen: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The best candidates below the root and below each row of a path, as deep as both reach: log_probs, token_ids `[r, NUM_OBSERVED]`, and
    int64 [r]: 0 while the path is the drafter's best, 1 from where it is not."""
    log_probs, token_ids, off_spine = [], [], []
    predecessor, on_spine = 0, True
    for depth in range(min(candidates.horizon, len(chosen))):
        log_probs.append(candidates.log_probs[depth, predecessor, :NUM_OBSERVED])
        token_ids.append(candidates.token_ids[depth, predecessor, :NUM_OBSERVED])
        off_spine.append(0 if on_spine else 1)
        row = candidates.token_ids[depth, predecessor].tolist()
        on_spine = on_spine and row[0] == chosen[depth]
        if candidates.places is not None:
            if chosen[depth] not in row:
                break
            predecessor = int(candidates.places[depth, predecessor, row.index(chosen[depth])])
    width = min(NUM_OBSERVED, candidates.token_ids.shape[2])
    return (
        np.array(log_probs, np.float32).reshape(-1, width),
        np.array(token_ids, np.int64).reshape(-1, width),
        np.array(off_spine, np.int64),
    )
