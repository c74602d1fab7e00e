"""The packed pass equals the masked whole and the decoder's own pass, and a block sees nothing at or after its anchor but its own slots."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from training.training_models import MASK, TAPS, drafter, sequence, target

from hoarfrost.drafting import DFlashDrafter, DFlashModel
from hoarfrost.target import Target
from hoarfrost.training import block_attention
from hoarfrost.training.anchors import PackedBlocks, pack_blocks
from hoarfrost.training.block_attention import one_group, packed_hidden
from hoarfrost.training.data import TrainingSequence
from hoarfrost.training.features import tapped_features

BLOCK_SIZE = 5
VARIANTS = {
    "full": {},
    "causal": {"is_causal": True},
    "sliding": {"layer_types": ("sliding_attention", "full_attention"), "sliding_window": 4},
    "sliding both ways": {"layer_types": ("full_attention", "sliding_attention"), "sliding_window": 3, "is_causal": False},
}


@pytest.fixture(scope="module")
def frozen() -> Target:
    return target()


def features_of(frozen: Target, *sequences: TrainingSequence) -> list[Tensor]:
    return tapped_features(frozen, [one.token_ids for one in sequences], TAPS)


def packed(model: DFlashModel, frozen: Target, sequences: list[TrainingSequence], blocks: PackedBlocks, features: list[Tensor]) -> Tensor:
    rows = torch.cat([one[:length] for one, length in zip(features, blocks.context_lengths, strict=True)])
    return packed_hidden(model, frozen.embed(blocks.token_ids), rows, blocks)


def masked_whole(model: DFlashModel, frozen: Target, one: TrainingSequence, starts: tuple[int, ...], features: Tensor) -> Tensor:
    """The plain twin: all blocks of one sequence in one attention under one mask."""
    blocks = pack_blocks([one], [starts], BLOCK_SIZE, MASK)
    anchors = torch.tensor(starts).repeat_interleave(BLOCK_SIZE)
    owner = torch.arange(len(starts)).repeat_interleave(BLOCK_SIZE)
    positions = torch.arange(len(features))
    visible = torch.cat((positions < anchors[:, None], owner[:, None] == owner), dim=1)
    embeddings = model.scale_embeddings(frozen.embed(blocks.token_ids.flatten()))
    hidden = model.block_hidden(embeddings, blocks.positions.flatten(), model.context_features(features), positions, visible)
    return hidden.view(len(starts), BLOCK_SIZE, -1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("per_group", [1, 2, 16, None])
@pytest.mark.parametrize("anchors", [[(3, 8, 9, 15, 18), (5, 12)], [(4, 19), (6, 12)]], ids=["uneven", "even"])
def test_packed_blocks_equal_the_masked_whole(
    frozen: Target, monkeypatch: pytest.MonkeyPatch, variant: str, per_group: int | None, anchors: list[tuple[int, ...]]
) -> None:
    if per_group is None:  # all in one, as on an accelerator
        monkeypatch.setattr(block_attention, "small_groups", lambda blocks: [one_group(blocks, torch.device("cpu"))])
    else:
        monkeypatch.setattr(block_attention, "BLOCKS_PER_GROUP", per_group)
    model = drafter(BLOCK_SIZE, **VARIANTS[variant])
    sequences = [sequence(20, 3, seed=1), sequence(14, 5, seed=2)]
    features = features_of(frozen, *sequences)
    blocks = pack_blocks(sequences, anchors, BLOCK_SIZE, MASK)
    fast = packed(model, frozen, sequences, blocks, features)
    plain = torch.cat([masked_whole(model, frozen, *args) for args in zip(sequences, anchors, features, strict=True)])
    torch.testing.assert_close(fast, plain, atol=2e-5, rtol=1e-5)
    weights = torch.randn_like(fast)
    fast_gradients = torch.autograd.grad((fast * weights).sum(), list(model.parameters()))
    plain_gradients = torch.autograd.grad((plain * weights).sum(), list(model.parameters()))
    for name, ours, theirs in zip(dict(model.named_parameters()), fast_gradients, plain_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3 * theirs.abs().max().item(), rtol=1e-3, msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_block_in_training_equals_a_proposal_in_decoding(frozen: Target, variant: str) -> None:
    model = drafter(BLOCK_SIZE, **VARIANTS[variant])
    one, anchor = sequence(20, 3), 11
    (features,) = features_of(frozen, one)
    blocks = pack_blocks([one], [(6, anchor, 17)], BLOCK_SIZE, MASK)
    trained = model.logits(packed(model, frozen, [one], blocks, [features])[1, 1:], frozen.head)
    decoder = DFlashDrafter(model, frozen)
    state = decoder.new_state()
    decoder.extend([state], [features[:anchor]])
    (proposed,) = decoder.propose([state], [one.token_ids[anchor]])
    real = torch.arange(trained.shape[1]) != MASK  # the mask itself is never proposed
    torch.testing.assert_close(trained[:, real], proposed.logits[:, real], atol=2e-5, rtol=1e-5)


def test_a_block_sees_nothing_from_its_anchor_on_but_itself(frozen: Target) -> None:
    model = drafter(BLOCK_SIZE)
    one, starts = sequence(20, 3), (5, 9, 16)
    (features,) = features_of(frozen, one)
    hidden = packed(model, frozen, [one], pack_blocks([one], [starts], BLOCK_SIZE, MASK), [features])
    for row, anchor in enumerate(starts):
        others = tuple((token + 17) % 60 + 4 for token in one.token_ids)
        changed = TrainingSequence(one.token_ids[: anchor + 1] + others[anchor + 1 :], one.num_prompt_tokens)
        noisy = torch.cat((features[:anchor], torch.randn_like(features[anchor:])))
        again = packed(model, frozen, [changed], pack_blocks([changed], [starts], BLOCK_SIZE, MASK), [noisy])
        torch.testing.assert_close(again[row], hidden[row], atol=1e-6, rtol=1e-6)
        if row:
            nearer = torch.cat((features[: anchor - 1], torch.randn_like(features[anchor - 1 :])))
            seen = packed(model, frozen, [one], pack_blocks([one], [starts], BLOCK_SIZE, MASK), [nearer])
            assert (seen[row] - hidden[row]).abs().max() > 1e-3  # the last token before the anchor does matter


def test_features_are_the_hidden_states_of_transformers(frozen: Target) -> None:
    sequences = [sequence(15, 3), sequence(9, 2, seed=5), sequence(12, 3, seed=6)]
    for one, features in zip(sequences, features_of(frozen, *sequences), strict=True):
        outputs = frozen.model(torch.tensor([one.token_ids]), output_hidden_states=True)
        expected = torch.cat([outputs.hidden_states[tap + 1][0] for tap in TAPS], dim=-1)
        torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
