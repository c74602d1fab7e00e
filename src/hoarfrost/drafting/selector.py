"""The candidate selector of DFlash 2: which of a slot's few best tokens follows which of the slot before.

The drafter's slots guess side by side, each blind to what the others take. The selector weighs the K best tokens b of slot t once the
token a before them is known,

    S_t(a -> b) = U_t(b) + <A[a] * (W h_t), B[b]>,

with U_t the slot's logits, h_t its final hidden state, A and B low-rank codebooks over the vocabulary. Released drafters walk it greedily
from the bonus token. Here all K x K transitions of all slots are one batched product, so that a tree can follow several paths at once.

Among themselves the candidates share the probability that the marginals give to them all: what the selector says nothing about stays as
the drafter left it. On a CPU one native call does it all but for the choice of the candidates.

Shapes: S sequences, L slots, K candidates, P predecessors, r rank, H hidden size, V vocabulary; `...` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hoarfrost.native.drafter import NativeSelector
from hoarfrost.native.linear import MakeProduct, Product, can_multiply, fastest_product
from hoarfrost.native.top_k import top_log_probs
from hoarfrost.tree.marginals import Marginals, top_rows
from hoarfrost.tree.transitions import Transitions

ProposeTransitions = Callable[[Tensor, Tensor, Sequence[int]], list[Transitions]]
"""(final states `[S, L, H]`, logits `[S, L, V]`, S bonus tokens) -> the transitions of each sequence."""


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


def new_proposer(selector: CandidateSelector) -> ProposeTransitions:
    """The fastest way to propose transitions with these weights: a snapshot of them, for inference."""
    projection = selector.hidden_projection.weight
    if can_multiply(projection):
        native = NativeSelector(selector.predecessor_codebook, selector.successor_codebook, projection)
        return partial(_propose_natively, native, selector.top_k)
    return partial(propose_transitions, selector.weights(fastest_product))


def propose_transitions(weights: SelectorWeights, hidden: Tensor, logits: Tensor, bonus_token_ids: Sequence[int]) -> list[Transitions]:
    """`ProposeTransitions` in torch, on any device, with one hand-off to the host."""
    num_sequences, horizon = logits.shape[:2]
    marginal, candidates = (part.view(num_sequences, horizon, -1) for part in top_rows(logits.flatten(0, 1), weights.num_candidates))
    bonus = torch.tensor(bonus_token_ids, device=logits.device)[:, None, None].expand_as(candidates[:, :1])
    predecessors = torch.cat((bonus, candidates[:, :-1]), dim=1)
    scores = transition_scores(weights, marginal, hidden, predecessors, candidates)
    log_probs = candidate_log_probs(scores, marginal)
    packed = torch.cat((log_probs.view(torch.int32).flatten(), candidates.to(torch.int32).flatten())).cpu().numpy()
    table, token_ids = packed[: log_probs.numel()].view(np.float32), packed[log_probs.numel() :].astype(np.int64)
    return _by_sequence(token_ids.reshape(num_sequences, horizon, -1), table.reshape(log_probs.shape), logits)


def _propose_natively(
    selector: NativeSelector, num_candidates: int, hidden: Tensor, logits: Tensor, bonus_token_ids: Sequence[int]
) -> list[Transitions]:
    shape = (*logits.shape[:2], num_candidates)
    marginals, token_ids = (part.reshape(shape) for part in top_log_probs(logits.flatten(0, 1), num_candidates))
    return _by_sequence(token_ids, selector.log_probs(hidden, marginals, token_ids, bonus_token_ids), logits)


def _by_sequence(token_ids: NDArray[np.int64], log_probs: NDArray[np.float32], logits: Tensor) -> list[Transitions]:
    return [Transitions(ids, table, Marginals(rows)) for ids, table, rows in zip(token_ids, log_probs, logits.unbind(), strict=True)]
