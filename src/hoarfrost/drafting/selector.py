"""The candidate selector of DFlash 2: which of a slot's few best tokens follows which of the slot before.

The drafter's slots guess side by side, each blind to what the others take. The selector weighs the K best tokens b of slot t once the
token a before them is known,

    S_t(a -> b) = U_t(b) + <A[a] * (W h_t), B[b]>,

with U_t the slot's logits, h_t its final hidden state, A and B low-rank codebooks over the vocabulary. Released drafters walk it greedily
from the bonus token. Here all K x K transitions of all slots are one batched product, so that a tree can follow several paths at once; and
the candidates may be any, so that above temperature 0 they are those that the noise favours.

Among themselves the candidates share the probability that the marginals give to them all: what the selector says nothing about stays as
the drafter left it. On a CPU one native call does it all.

Shapes: S sequences, L slots, K candidates, P predecessors, r rank, H hidden size, V vocabulary; `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.kernels.drafter import NativeSelector
from hoarfrost.kernels.linear import MakeProduct, Product, can_multiply, fastest_product

Weigh = Callable[[Tensor, NDArray[np.float32], NDArray[np.int64], Sequence[int]], NDArray[np.float32]]
"""(final states `[S, L, H]`, log-probabilities and token ids of candidates `[S, L, K]`, S bonus tokens) -> log-probabilities of the
candidates after each other, float32 `[S, L, K, K]`."""


@dataclass(frozen=True)
class SelectorWeights:
    """Codebooks A and B `[V, r]`, the product with W `[r, H]`, and how many candidates a slot has."""

    predecessors: Tensor
    successors: Tensor
    project: Product
    num_candidates: int


class CandidateSelector(nn.Module):
    """Holds the parameters under their released names. A new selector changes nothing: its successors are zero."""

    def __init__(self, vocab_size: int, hidden_size: int, rank: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.predecessor_codebook = nn.Parameter(torch.empty(vocab_size, rank))
        self.successor_codebook = nn.Parameter(torch.empty(vocab_size, rank))
        self.hidden_projection = nn.Linear(hidden_size, rank, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.predecessor_codebook)
        nn.init.zeros_(self.successor_codebook)
        nn.init.normal_(self.hidden_projection.weight, std=self.hidden_projection.in_features**-0.5)

    def weights(self, product: MakeProduct) -> SelectorWeights:
        projection = product(self.hidden_projection.weight, None)
        return SelectorWeights(self.predecessor_codebook, self.successor_codebook, projection, self.top_k)


def transition_scores(weights: SelectorWeights, unary: Tensor, hidden: Tensor, predecessors: Tensor, candidates: Tensor) -> Tensor:
    """S `[..., P, K]`, float32 and differentiable: candidates `[..., K]` with logits `unary [..., K]` after `predecessors [..., P]`.

    `hidden [..., H]` is the slot's state after the final norm. A constant on all of `unary` is one on all of S.
    """
    projected = weights.project(hidden).float().unsqueeze(-2)
    before = functional.embedding(predecessors, weights.predecessors).float() * projected
    after = functional.embedding(candidates, weights.successors).float()
    return unary.float().unsqueeze(-2) + before @ after.transpose(-1, -2)


def candidate_log_probs(scores: Tensor, marginal_log_probs: Tensor) -> Tensor:
    """Log-probabilities `[..., P, K]` of candidates with scores `[..., P, K]`, together as likely as by their marginals `[..., K]`."""
    share = marginal_log_probs.logsumexp(-1)[..., None, None]
    return (scores.log_softmax(-1) + share).clamp(max=0.0)  # rounding may put a share above 1


class Weigher(NamedTuple):
    """A selector's weights in their fastest form, and how many candidates per slot it weighs."""

    weigh: Weigh
    num_candidates: int


def new_weigher(selector: CandidateSelector) -> Weigher:
    """The fastest way to weigh candidates with these weights: a snapshot of them, for inference."""
    projection = selector.hidden_projection.weight
    if can_multiply(projection):
        native = NativeSelector(selector.predecessor_codebook, selector.successor_codebook, projection)
        return Weigher(native.log_probs, selector.top_k)
    return Weigher(partial(weigh_plainly, selector.weights(fastest_product)), selector.top_k)


def weigh_plainly(
    weights: SelectorWeights, hidden: Tensor, log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], bonus_token_ids: Sequence[int]
) -> NDArray[np.float32]:
    """`Weigh` in torch, on any device."""
    unary, candidates = torch.from_numpy(log_probs).to(hidden.device), torch.from_numpy(token_ids).to(hidden.device)
    bonus = torch.tensor(bonus_token_ids, device=hidden.device)[:, None, None].expand_as(candidates[:, :1])
    predecessors = torch.cat((bonus, candidates[:, :-1]), dim=1)
    scores = transition_scores(weights, unary, hidden, predecessors, candidates)
    return candidate_log_probs(scores, unary).cpu().numpy()


class SelectorPass:
    """Implements `tree.Selector` for the sequences of one pass: `hidden [S, L, H]` their slots' final states.

    What the selector adds to a logit is linear in the state, so dividing states by a temperature divides what it adds.
    """

    def __init__(self, weigher: Weigher, hidden: Tensor, bonus_token_ids: Sequence[int]) -> None:
        self._weigher, self._hidden, self._bonus_token_ids = weigher, hidden, bonus_token_ids

    @property
    def num_candidates(self) -> int:
        return self._weigher.num_candidates

    @torch.inference_mode()
    def weigh(
        self, rows: Sequence[int], log_probs: NDArray[np.float32], token_ids: NDArray[np.int64], temperatures: Sequence[float]
    ) -> NDArray[np.float32]:
        hidden = self._hidden if len(rows) == len(self._hidden) else self._hidden[list(rows)]
        if any(temperature != 1.0 for temperature in temperatures):
            hidden = hidden / torch.tensor(temperatures, dtype=hidden.dtype, device=hidden.device)[:, None, None]
        return self._weigher.weigh(hidden, log_probs, token_ids, [self._bonus_token_ids[row] for row in rows])
