"""What the trainer relies on: many anchors in one pass equal one block at a time, gradients reach every parameter, autocast works."""

from __future__ import annotations

import pytest
import torch
from drafting.drafter_models import CONFIG, VARIANTS, VOCAB, BorrowedParts, plain_block_hidden, random_model, random_taps
from torch import Tensor

from hoarfrost.drafting import DFlashConfig, DFlashDrafter, DFlashModel

ANCHORS = (0, 4, 5, 17)


def anchor_batch(config: DFlashConfig, num_context: int) -> tuple[Tensor, Tensor]:
    """Block positions `[N]` and visibility `[N, T + N]` of blocks that start at ANCHORS."""
    size = config.block_size
    anchors = torch.tensor(ANCHORS)
    positions = (anchors[:, None] + torch.arange(size)).flatten()
    block_of_row = torch.arange(len(ANCHORS)).repeat_interleave(size)
    context = torch.arange(num_context) < anchors[block_of_row][:, None]
    return positions, torch.cat((context, block_of_row[:, None] == block_of_row), dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("batched", [False, True])
@torch.no_grad()
def test_many_anchors_in_one_pass_equal_one_block_at_a_time(variant: str, batched: bool) -> None:
    config = VARIANTS[variant]
    model, num_context = random_model(config), 20
    taps = random_taps(num_context, config)
    blocks = torch.randn(len(ANCHORS), config.block_size, config.hidden_size)
    positions, visible = anchor_batch(config, num_context)
    embeddings, context = blocks.flatten(0, 1), model.context_features(taps)
    context_positions = torch.arange(num_context)
    if batched:  # a second sequence beside the first must not matter
        embeddings, context = torch.stack((embeddings, embeddings.flip(0))), torch.stack((context, context.flip(0)))
        positions, context_positions = positions.expand(2, -1), context_positions.expand(2, -1)
    hidden = model.block_hidden(embeddings, positions, context, context_positions, visible)
    hidden = hidden[0] if batched else hidden
    for index, anchor in enumerate(ANCHORS):
        expected = plain_block_hidden(model, taps[:anchor], blocks[index])
        torch.testing.assert_close(hidden.view(len(ANCHORS), config.block_size, -1)[index], expected, rtol=1e-5, atol=1e-5)


def loss_of(model: DFlashModel, target: BorrowedParts) -> Tensor:
    taps = random_taps(20)
    positions, visible = anchor_batch(CONFIG, 20)
    ids = torch.randint(VOCAB, positions.shape)
    embeddings = model.scale_embeddings(target.embed(ids)).detach()
    hidden = model.block_hidden(embeddings, positions, model.context_features(taps), torch.arange(20), visible)
    return torch.nn.functional.cross_entropy(model.logits(hidden, target.head).float(), ids)


def test_gradients_reach_every_parameter() -> None:
    model = random_model(CONFIG)
    loss_of(model, BorrowedParts()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


def test_autocast_follows_full_precision() -> None:
    model, target = random_model(CONFIG), BorrowedParts()
    torch.manual_seed(3)
    exact = loss_of(model, target)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss_of(model, target)
    mixed.backward()
    assert mixed.item() == pytest.approx(exact.item(), rel=0.03)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_a_drafter_is_built_from_a_model_in_training() -> None:
    model = DFlashModel(CONFIG).train()
    drafter = DFlashDrafter(model, BorrowedParts())
    state = drafter.new_state()
    drafter.extend([state], [random_taps(3)])
    assert not drafter.propose([state], [1])[0].logits.requires_grad
