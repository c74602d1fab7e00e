"""DFlash 2: transitions against scores computed pair by pair, the convolutions' causality, checkpoints and what they refuse.

The convolved network itself is held to its plain twin with all other variants (test_dflash_drafter, test_dflash_training_view).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drafting.drafter_models import (
    CONFIG,
    VARIANTS,
    BorrowedParts,
    plain_block_hidden,
    plain_logits,
    proposed_transitions,
    random_model,
    random_taps,
)
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hoarfrost.drafting import DFlashConfig, DFlashDrafter, DFlashModel, load_drafter, read_config, save_drafter
from hoarfrost.drafting.convolution import Convolution, convolve_around
from hoarfrost.drafting.selector import CandidateSelector, candidate_log_probs, transition_scores
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.linear import plain_product
from hoarfrost.tree import Conditionals

SELECTOR = {"selector_rank": 7, "selector_top_k": 5}
SELECTING = {
    "selector alone": replace(CONFIG, **SELECTOR),
    "as released": replace(VARIANTS["wide convolutions"], conv_kernel_size=2, conv_group_size=16, **SELECTOR),
    "window within the block": replace(VARIANTS["window within the block"], conv_kernel_size=2, conv_group_size=16, **SELECTOR),
    "scaled": replace(VARIANTS["scaled"], **SELECTOR),
    "every candidate": replace(CONFIG, selector_rank=3, selector_top_k=60),
}


def plain_transitions(model: DFlashModel, target: BorrowedParts, taps: Tensor, bonus_token_id: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Token ids and log-probabilities, one pair of tokens at a time."""
    config = model.config
    assert model.candidate_selector is not None
    assert config.selector_top_k is not None
    logits = plain_logits(model, target, taps, bonus_token_id)
    logits[:, config.mask_token_id] = -torch.inf
    block = target.embed(torch.tensor([bonus_token_id] + [config.mask_token_id] * (config.block_size - 1))) * config.input_embedding_scale
    hidden = plain_block_hidden(model, taps, block)[1:]
    p = dict(model.candidate_selector.named_parameters())
    num_candidates = config.selector_top_k
    ids, table = [], torch.zeros(len(logits), num_candidates, num_candidates)
    before = [bonus_token_id] * num_candidates
    for slot, row in enumerate(logits):
        candidates = sorted(range(config.vocab_size), key=lambda token: (-float(row[token]), token))[:num_candidates]
        mass = row.softmax(-1)[candidates].sum().log()
        for i, a in enumerate(before):
            projected = p["hidden_projection.weight"] @ hidden[slot]
            scores = [row[b] + (p["predecessor_codebook"][a] * projected * p["successor_codebook"][b]).sum() for b in candidates]
            table[slot, i] = torch.stack(scores).log_softmax(-1) + mass
        ids.append(candidates)
        before = candidates
    return np.array(ids), table.numpy()


def assert_close(transitions: Any, ids: NDArray[Any], table: NDArray[Any]) -> None:
    np.testing.assert_array_equal(transitions.token_ids, ids)
    np.testing.assert_allclose(transitions.log_probs[0, 0], table[0, 0], rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(transitions.log_probs[1:], table[1:], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("variant", SELECTING)
@torch.no_grad()
def test_transitions_over_rounds_equal_scores_pair_by_pair(variant: str) -> None:
    config = SELECTING[variant]
    model, target = random_model(config), BorrowedParts()
    drafter, taps = DFlashDrafter(model, target), random_taps(0, config)
    state = drafter.new_state()
    for bonus, num_rows in enumerate((1, 17, 3)):
        new = random_taps(num_rows, config)
        taps = torch.cat((taps, new))
        drafter.extend([state], [new])
        [transitions] = proposed_transitions(drafter, [state], [bonus])
        assert_close(transitions, *plain_transitions(model, target, taps, bonus))


@torch.no_grad()
def test_a_batch_is_its_sequences() -> None:
    config = SELECTING["as released"]
    drafter = DFlashDrafter(random_model(config), BorrowedParts())
    lengths, bonus = (1, 30, 7), [5, 6, 7]
    parts = [random_taps(length, config) for length in lengths]
    together = [drafter.new_state() for _ in lengths]
    drafter.extend(together, parts)
    for part, token_id, transitions in zip(parts, bonus, proposed_transitions(drafter, together, bonus), strict=True):
        alone = drafter.new_state()
        drafter.extend([alone], [part])
        [expected] = proposed_transitions(drafter, [alone], [token_id])
        assert_close(transitions, expected.token_ids, expected.log_probs)


@torch.no_grad()
def test_half_precision_is_close() -> None:
    config = SELECTING["as released"]
    model, target = random_model(config), BorrowedParts()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        target = BorrowedParts(target.embed.to(dtype), target.head.to(dtype), dtype=dtype)
        drafter = DFlashDrafter(model.to(dtype), target)
        torch.manual_seed(1)
        state = drafter.new_state()
        drafter.extend([state], [random_taps(20).to(dtype)])
        [transitions] = proposed_transitions(drafter, [state], [1])
        found.append(transitions)
    exact, half = ({int(token) for token in one.token_ids[0]} for one in found)
    assert len(exact & half) >= 4


def test_a_new_selector_leaves_the_marginals_as_they_are() -> None:
    selector = CandidateSelector(vocab_size=61, hidden_size=32, rank=7, top_k=5)
    log_probs, candidates = torch.randn(4, 61).log_softmax(-1).topk(5)
    predecessors = torch.randint(61, (4, 3))
    scores = transition_scores(selector.weights(plain_product), log_probs, torch.randn(4, 32), predecessors, candidates)
    torch.testing.assert_close(candidate_log_probs(scores, log_probs), log_probs[:, None].expand(4, 3, 5))


def test_gradients_reach_every_parameter() -> None:
    model, target, taps = random_model(SELECTING["as released"]), BorrowedParts(), random_taps(9)
    embeddings = target.embed(torch.randint(61, (12,))).detach()  # two blocks
    hidden = model.block_hidden(embeddings, torch.arange(9, 21), model.context_features(taps), torch.arange(9))
    unary, candidates = model.logits(hidden, target.head).topk(5)
    selector = model.weights().selector
    assert selector is not None
    transition_scores(selector, unary, hidden, torch.arange(24).view(12, 2), candidates).log_softmax(-1)[..., 0].sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


def random_convolution(kernel_size: int) -> Convolution:
    torch.manual_seed(0)
    convolution = Convolution(hidden_size=8, kernel_size=kernel_size, group_size=4)
    for parameter in convolution.parameters():
        nn.init.normal_(parameter)
    return convolution


def convolved(convolution: Convolution) -> Callable[[Tensor], Tensor]:
    """Both convolutions, one after the other, over blocks of 4 slots."""

    def run(normed: Tensor) -> Tensor:
        read, leave = convolve_around(convolution.weights(plain_product), normed, block_size=4)
        return leave(read)

    return run


@pytest.mark.parametrize("kernel_size", [1, 2, 4])
def test_a_slot_depends_on_its_block_up_to_itself(kernel_size: int) -> None:
    """The Jacobian says which rows a row sees: none after it, none of another block, and no more than the taps of both reach."""
    jacobian = torch.autograd.functional.jacobian(convolved(random_convolution(kernel_size)), torch.randn(12, 8))
    seen = jacobian.abs().amax(dim=(1, 3)) > 0
    rows = torch.arange(12)
    back = rows[:, None] - rows
    same_block = rows[:, None] // 4 == rows // 4
    assert torch.equal(seen, same_block & (back >= 0) & (back <= 2 * (kernel_size - 1)))


def test_a_new_convolution_is_the_identity() -> None:
    rows = torch.randn(2, 12, 8)
    torch.testing.assert_close(convolved(Convolution(8, 2, 4))(rows), rows, rtol=0, atol=0)
    torch.manual_seed(0)
    stock = DFlashModel(CONFIG)
    extended = DFlashModel(replace(CONFIG, conv_kernel_size=2, conv_group_size=8, **SELECTOR))
    extended.load_state_dict(stock.state_dict(), strict=False)
    block, taps, positions = torch.randn(6, 32), random_taps(5), torch.arange(11)
    hidden = [one.block_hidden(block, positions[5:], one.context_features(taps), positions[:5]) for one in (stock, extended)]
    torch.testing.assert_close(hidden[0], hidden[1], rtol=0, atol=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_drafter(random_model(SELECTING["as released"]), tmp_path, dtype=torch.float32)
    return tmp_path


def test_round_trip_in_the_released_layout(folder: Path) -> None:
    config, target, taps = SELECTING["as released"], BorrowedParts(), random_taps(9)
    found = []
    for drafter in (DFlashDrafter(random_model(config), target), load_drafter(folder, target)):
        state = drafter.new_state()
        drafter.extend([state], [taps])
        found += proposed_transitions(drafter, [state], [2])
    np.testing.assert_array_equal(found[0].log_probs, found[1].log_probs)
    assert read_config(folder) == config
    written = json.loads((folder / "config.json").read_text())
    assert written["architectures"] == ["DFlash2DraftModel"]
    assert written["dflash_config"] == {
        **{"mask_token_id": 60, "target_layer_ids": [1, 3, 4]},
        **{"conv_kernel_size": 2, "conv_group_size": 16, **SELECTOR},
    }
    shapes = {name: list(tensor.shape) for name, tensor in load_file(folder / "model.safetensors").items()}
    new = {name: shape for name, shape in shapes.items() if "selector" in name or ("conv" in name and "layers.0" in name)}
    assert new == {
        "candidate_selector.predecessor_codebook": [61, 7],
        "candidate_selector.successor_codebook": [61, 7],
        "candidate_selector.hidden_projection.weight": [7, 32],
        **{f"layers.0.{part}_conv.base_kernel": [2, 2, 32] for part in ("attention", "mlp")},
        **{f"layers.0.{part}_conv.kernel_projection.weight": [8, 32] for part in ("attention", "mlp")},
    }


def test_a_stock_drafter_with_a_selector_stays_a_stock_drafter_to_other_readers(tmp_path: Path) -> None:
    save_drafter(random_model(SELECTING["selector alone"]), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["DFlashDraftModel"]
    drafter = load_drafter(tmp_path, BorrowedParts())
    assert isinstance(drafter.propose([drafter.new_state()], [1])[0], Conditionals)


NESTED: dict[str, Any] = {"mask_token_id": 60, "target_layer_ids": [1, 3, 4], "conv_kernel_size": 2, "conv_group_size": 16, **SELECTOR}


@pytest.mark.parametrize("key", ["conv_kernel_size", "conv_group_size", *SELECTOR])
def test_keys_may_stand_at_the_top(key: str) -> None:
    values = SELECTING["as released"].to_json()
    at_top = {**values, key: NESTED[key], "dflash_config": {name: value for name, value in NESTED.items() if name != key}}
    assert DFlashConfig.from_json(at_top) == SELECTING["as released"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"selector_rank": None}, "names DFlash2DraftModel but lacks selector_rank"),
        ({"conv_group_size": None, "selector_top_k": None}, "lacks conv_group_size, selector_top_k"),
        ({"selector_rank": 0}, "selector_rank is 0"),
        ({"conv_kernel_size": "two"}, "conv_kernel_size is 'two'"),
        ({"conv_kernel_size": 7}, "conv_kernel_size is 7; its blocks have only 6 slots"),
        ({"conv_group_size": 5}, "conv_group_size is 5; it must divide the hidden size, 32"),
        ({"selector_top_k": 61}, "selector_top_k is 61; its vocabulary has 60 tokens"),
    ],
)
def test_configurations_that_cannot_be_served_are_named(changes: dict[str, Any], said: str) -> None:
    values = {**SELECTING["as released"].to_json(), "dflash_config": {**NESTED, **changes}}
    with pytest.raises(InvalidInput) as caught:
        DFlashConfig.from_json(values)
    assert said in str(caught.value)


def test_half_a_part_is_refused_under_any_architecture() -> None:
    with pytest.raises(InvalidInput, match="selector_rank is 7 and its selector_top_k None; give both or neither"):
        replace(CONFIG, selector_rank=7)


@pytest.mark.parametrize(
    ("remove", "added", "said"),
    [
        ("candidate_selector.successor_codebook", {}, "missing: candidate_selector.successor_codebook"),
        ("layers.1.mlp_conv.base_kernel", {}, "missing: layers.1.mlp_conv.base_kernel"),
        (
            None,
            {"candidate_selector.predecessor_codebook": torch.zeros(61, 8)},
            r"wrong shape: candidate_selector.predecessor_codebook \[61, 8\] instead of \[61, 7\]",
        ),
        (None, {"candidate_selector.hidden_projection.weight": torch.zeros(8, 32)}, r"\[8, 32\] instead of \[7, 32\]"),
        (None, {"layers.0.attention_conv.base_kernel": torch.zeros(2, 3, 32)}, r"\[2, 3, 32\] instead of \[2, 2, 32\]"),
    ],
)
def test_malformed_checkpoints_are_refused(folder: Path, remove: str | None, added: dict[str, Tensor], said: str) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in {**load_file(path), **added}.items() if name != remove}, path)
    with pytest.raises(InvalidInput, match=said):
        load_drafter(folder, BorrowedParts())


def test_parts_that_the_configuration_does_not_mention_are_refused(folder: Path) -> None:
    path = folder / "config.json"
    stock = {**json.loads(path.read_text()), "architectures": ["DFlashDraftModel"], "dflash_config": {"mask_token_id": 60}}
    path.write_text(json.dumps({**stock, "target_layer_ids": [1, 3, 4]}))
    with pytest.raises(InvalidInput, match=r"unexpected: candidate_selector\.hidden_projection\.weight"):
        load_drafter(folder, BorrowedParts())


def test_broken_weights_are_an_error() -> None:
    model = random_model(SELECTING["selector alone"])
    assert model.candidate_selector is not None
    nn.init.constant_(model.candidate_selector.hidden_projection.weight, torch.nan)
    drafter = DFlashDrafter(model, BorrowedParts())
    with pytest.raises(InvalidInput, match="NaN"):
        proposed_transitions(drafter, [drafter.new_state()], [1])
