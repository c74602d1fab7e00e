"""The DFlash loss: cross entropy of every guess, weighted so that early slots count most, for the later ones matter only if these hold.

w_k = exp(-(k - 1) / gamma) for slot k = 1 ... b-1, and the weighted sum is divided by the sum of the weights (arXiv 2602.06036, section
4). The head is frozen and its logits dwarf everything else, so they are made for a few rows at a time and turned into the gradient with
respect to the hidden states at once; the whole `[rows, V]` never exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

LOGITS_AT_ONCE, LOGITS_AT_ONCE_ELSEWHERE = 4_000_000, 128_000_000  # 16 MB in float32: what a CPU's last cache holds
BLOCK_SIZES, GAMMAS = (8, 10, 16), (4.0, 5.0, 7.0)


def gamma_for(block_size: int) -> float:
    """The paper's gamma for its block sizes, interpolated between them."""
    return float(np.interp(block_size, BLOCK_SIZES, GAMMAS))


def slot_weights(block_size: int, gamma: float) -> Tensor:
    """Weights float32 `[b-1]` of slots 1 to b-1."""
    return torch.exp(-torch.arange(block_size - 1, dtype=torch.float32) / gamma)


def loss_and_gradient(hidden: Tensor, labels: Tensor, weights: Tensor, logits_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Weighted sum of the cross entropies of `hidden [M, H]` against `labels [M]`, and its gradient with respect to `hidden`."""
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    gradient = torch.empty_like(hidden)
    for rows in row_chunks(hidden, logits_of):
        part = hidden[rows].detach().requires_grad_()
        losses = functional.cross_entropy(logits_of(part).float(), labels[rows], reduction="none")
        weighted = (losses * weights[rows]).sum()
        (gradient[rows],) = torch.autograd.grad(weighted, part)
        total += weighted.detach()
    return total, gradient


def row_chunks(hidden: Tensor, logits_of: Callable[[Tensor], Tensor]) -> Iterator[slice]:
    with torch.no_grad():
        vocab_size = logits_of(hidden[:1]).shape[-1]
    at_once = max(1, (LOGITS_AT_ONCE if hidden.device.type == "cpu" else LOGITS_AT_ONCE_ELSEWHERE) // vocab_size)
    return (slice(start, start + at_once) for start in range(0, len(hidden), at_once))


@dataclass(frozen=True)
class GuessQuality:
    """How well a drafter guesses held-out text. Slot k of a block is entry k - 1; a round of the greedy chain emits its right guesses up to
    the first wrong one and one token more."""

    loss: float
    loss_per_slot: tuple[float, ...]
    accuracy_per_slot: tuple[float, ...]
    expected_tokens_per_round: float

    def record(self) -> dict[str, Any]:
        return {
            "loss": round(self.loss, 5),
            "loss_per_slot": [round(value, 4) for value in self.loss_per_slot],
            "accuracy_per_slot": [round(value, 4) for value in self.accuracy_per_slot],
            "expected_tokens_per_round": round(self.expected_tokens_per_round, 4),
        }

    def summary(self) -> dict[str, str]:
        return {
            "held-out loss": f"{self.loss:.3f}",
            "right guesses by slot": percentages(self.accuracy_per_slot),
            "tokens per round (greedy chain)": f"{self.expected_tokens_per_round:.2f}",
        }


def percentages(shares: Iterable[float]) -> str:
    return " ".join(f"{share:.0%}" for share in shares)


class QualitySums:
    """Adds up guesses of many blocks; `quality` gives the means."""

    def __init__(self, block_size: int, gamma: float) -> None:
        self.weights = slot_weights(block_size, gamma).double()
        self.losses, self.loss_counts, self.hits, self.counts = (torch.zeros(block_size - 1, dtype=torch.float64) for _ in range(4))
        self.emitted, self.num_whole_blocks = 0.0, 0

    def add(self, losses: Tensor, hits: Tensor, has_label: Tensor, has_loss: Tensor | None = None) -> None:
        """`losses`, `hits`, `has_label`, `has_loss`, each `[B, b-1]`; a label that cannot be guessed has no loss and is no hit. The chain
        is judged on blocks that do not reach past the end."""
        losses, hits, has_label = losses.cpu().double(), hits.cpu(), has_label.cpu()
        has_loss = has_label if has_loss is None else has_loss.cpu()
        self.losses += (losses * has_loss).sum(dim=0)
        self.loss_counts += has_loss.sum(dim=0)
        self.hits += (hits & has_label).sum(dim=0)
        self.counts += has_label.sum(dim=0)
        whole = has_label.all(dim=1)
        self.emitted += float(hits[whole].long().cumprod(dim=1).sum() + whole.sum())
        self.num_whole_blocks += int(whole.sum())

    def quality(self) -> GuessQuality:
        counts = self.counts.clamp(min=1)
        return GuessQuality(
            loss=float((self.weights * self.losses).sum() / (self.weights * self.loss_counts).sum().clamp(min=1e-9)),
            loss_per_slot=tuple((self.losses / self.loss_counts.clamp(min=1)).tolist()),
            accuracy_per_slot=tuple((self.hits / counts).tolist()),
            expected_tokens_per_round=self.emitted / max(1, self.num_whole_blocks),
        )


@torch.no_grad()
def judge(hidden: Tensor, labels: Tensor, logits_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Cross entropies and whether the likeliest token is right, each `[M]`, of `hidden [M, H]` against `labels [M]`."""
    losses, hits = [], []
    for rows in row_chunks(hidden, logits_of):
        logits = logits_of(hidden[rows]).float()
        losses.append(functional.cross_entropy(logits, labels[rows], reduction="none"))
        hits.append(logits.argmax(dim=-1) == labels[rows])
    return torch.cat(losses), torch.cat(hits)
