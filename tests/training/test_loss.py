"""The loss equals a loop written straight from the formula, however the rows are cut; the weights are the paper's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hoarfrost.training import loss
from hoarfrost.training.loss import QualitySums, gamma_for, judge, loss_and_gradient, slot_weights


@pytest.mark.parametrize(("block_size", "gamma"), [(16, 7.0), (10, 5.0), (8, 4.0), (4, 4.0), (13, 6.0), (32, 7.0)])
def test_gamma_follows_the_block_size(block_size: int, gamma: float) -> None:
    assert gamma_for(block_size) == pytest.approx(gamma)


@pytest.mark.parametrize("rows_at_once", [1, 3, 1000])
def test_loss_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr(loss, "LOGITS_AT_ONCE", rows_at_once * 11)
    torch.manual_seed(0)
    head, hidden = nn.Linear(6, 11, bias=False).requires_grad_(False), torch.randn(4, 3, 6, requires_grad=True)
    labels, has_label = torch.randint(0, 11, (4, 3)), torch.rand(4, 3) > 0.3
    gamma = 2.0

    naive, total = torch.zeros(()), 0.0
    for block in range(4):
        for k in (1, 2, 3):
            if has_label[block, k - 1]:
                weight = math.exp(-(k - 1) / gamma)
                naive = naive - weight * torch.log_softmax(head(hidden[block, k - 1]), dim=0)[labels[block, k - 1]]
                total += weight
    naive = naive / total
    (expected,) = torch.autograd.grad(naive, hidden)

    weights = slot_weights(4, gamma).expand(4, 3)[has_label]
    value, gradient = loss_and_gradient(hidden.detach()[has_label], labels[has_label], weights / weights.sum(), head)
    torch.testing.assert_close(value, naive.detach())
    torch.testing.assert_close(gradient, expected[has_label])
    assert not expected[~has_label].any()


def test_quality_counts_leading_right_guesses_and_the_token_after_them() -> None:
    sums = QualitySums(4, gamma=2.0)
    hits = torch.tensor([[True, True, False], [False, True, True], [True, True, True], [True, True, True]])
    has_label = torch.tensor([[True, True, True], [True, True, True], [True, True, True], [True, False, False]])
    sums.add(torch.ones(4, 3), hits, has_label)
    quality = sums.quality()
    assert quality.expected_tokens_per_round == pytest.approx((3 + 1 + 4) / 3)  # the block that reaches past the end is not judged
    assert quality.accuracy_per_slot == pytest.approx((3 / 4, 1.0, 2 / 3))
    assert quality.loss == pytest.approx(1.0)


def test_judging_finds_losses_and_hits() -> None:
    torch.manual_seed(0)
    head, hidden, labels = nn.Linear(6, 11), torch.randn(9, 6), torch.randint(0, 11, (9,))
    losses, hits = judge(hidden, labels, head)
    torch.testing.assert_close(losses, torch.nn.functional.cross_entropy(head(hidden), labels, reduction="none").detach())
    assert hits.tolist() == (head(hidden).argmax(dim=-1) == labels).tolist()
