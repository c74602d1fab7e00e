"""The drafter's cached, batched, fused path against one plain pass from scratch per block."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from devices import DEVICES
from drafting.drafter_models import CONFIG, VARIANTS, BorrowedParts, plain_logits, random_model, random_taps, without_mask_token

from hoarfrost.drafting import DFlashDrafter
from hoarfrost.drafting.dflash import BorrowedTarget, DFlashState

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_rounds_with_growing_context_equal_recomputing_everything(variant: str, device: str) -> None:
    config = VARIANTS[variant]
    model, target = random_model(config), BorrowedParts()
    drafter = DFlashDrafter(copy.deepcopy(model).to(device), copy.deepcopy(target).to(device))
    state = drafter.new_state(capacity=8)
    taps = random_taps(0, config)
    for round_number, num_rows in enumerate((1, 17, 3, 6, 1)):
        new = random_taps(num_rows, config)
        taps = torch.cat((taps, new))
        drafter.extend([state], [new.to(device)])
        assert len(state) == taps.shape[0]
        marginals = drafter.propose([state], [round_number])[0]
        assert len(state) == taps.shape[0], "a proposal leaves no rows behind"
        expected = plain_logits(model, target, taps, round_number)
        torch.testing.assert_close(without_mask_token(marginals.logits.cpu(), config), without_mask_token(expected, config), **TOLERANCE)


@pytest.mark.parametrize("variant", ["full", "sliding"])
@torch.no_grad()
def test_batch_equals_one_by_one(variant: str) -> None:
    config = VARIANTS[variant]
    drafter = DFlashDrafter(random_model(config), BorrowedParts())
    lengths, bonus = (1, 30, 7), [5, 6, 7]
    parts = [random_taps(length, config) for length in lengths]
    together = [drafter.new_state() for _ in lengths]
    drafter.extend(together, parts)
    batched = drafter.propose(together, bonus)
    for part, token_id, marginals in zip(parts, bonus, batched, strict=True):
        alone = drafter.new_state()
        drafter.extend([alone], [part])
        torch.testing.assert_close(drafter.propose([alone], [token_id])[0].logits, marginals.logits, **TOLERANCE)


@torch.no_grad()
def test_context_may_arrive_in_any_pieces() -> None:
    drafter = DFlashDrafter(random_model(CONFIG), BorrowedParts())
    taps = random_taps(23)
    whole, pieces = drafter.new_state(), drafter.new_state()
    drafter.extend([whole], [taps])
    for piece in taps.split([0, 9, 1, 13]):
        drafter.extend([pieces], [piece])
    assert len(pieces) == len(whole) == 23
    torch.testing.assert_close(drafter.propose([pieces], [3])[0].logits, drafter.propose([whole], [3])[0].logits, **TOLERANCE)


@torch.no_grad()
def test_empty_context_is_a_context() -> None:
    model, target = random_model(CONFIG), BorrowedParts()
    drafter = DFlashDrafter(model, target)
    logits = drafter.propose([drafter.new_state()], [4])[0].logits
    expected = plain_logits(model, target, random_taps(0), 4)
    torch.testing.assert_close(without_mask_token(logits, CONFIG), without_mask_token(expected, CONFIG), **TOLERANCE)


def test_mask_token_is_never_guessed() -> None:
    drafter = DFlashDrafter(random_model(CONFIG), BorrowedParts())
    state = drafter.new_state()
    drafter.extend([state], [random_taps(4)])
    logits = drafter.propose([state], [1])[0].logits
    assert logits.shape == (drafter.horizon, CONFIG.vocab_size) == (5, 61)
    assert torch.isneginf(logits[:, CONFIG.mask_token_id]).all()
    assert torch.isfinite(without_mask_token(logits, CONFIG)).all()


def test_proposing_twice_gives_the_same() -> None:
    drafter = DFlashDrafter(random_model(CONFIG), BorrowedParts())
    state = drafter.new_state()
    drafter.extend([state], [random_taps(4)])
    first, second = (drafter.propose([state], [1])[0].logits for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_half_precision_stays_close_and_keeps_its_dtype() -> None:
    config = replace(CONFIG, layer_types=("sliding_attention", "full_attention", "full_attention"), sliding_window=9)
    model, target = random_model(config), BorrowedParts()
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        target = BorrowedParts(target.embed.to(dtype), target.head.to(dtype), dtype=dtype)
        drafter = DFlashDrafter(model.to(dtype), target)
        torch.manual_seed(1)
        state = drafter.new_state()
        drafter.extend([state], [random_taps(20).to(dtype)])
        logits = drafter.propose([state], [1])[0].logits
        assert logits.dtype == dtype
        results.append(without_mask_token(logits.float(), config))
    assert torch.nn.functional.cosine_similarity(results[0], results[1], dim=-1).min() > 0.97


def test_the_protocols_hold() -> None:
    """Checked by mypy; here only that the stand-in target and the state are what the drafter says it takes and gives."""
    target: BorrowedTarget = BorrowedParts()
    drafter = DFlashDrafter(random_model(CONFIG), target, name="a name")
    assert (drafter.name, drafter.horizon, drafter.taps) == ("a name", 5, (1, 3, 4))
    assert isinstance(drafter.new_state(), DFlashState)
