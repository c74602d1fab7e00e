"""Drafters that guess among a part of the vocabulary: the same numbers for that part, no other token in a tree, output token for token that
of plain decoding, and tables that are none refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from devices import DEVICES
from drafting.drafter_models import CONFIG, HIDDEN, VOCAB, BorrowedParts, random_model, random_taps
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.drafting import DFlashConfig, DFlashDrafter, DFlashModel, load_drafter, read_config, save_drafter
from hoarfrost.drafting.config import SLIDING
from hoarfrost.drafting.vocabulary import offsets_of, part_of_head, token_ids_of
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.linear import NativeLinear, plain_product
from hoarfrost.sampling.coupling import couple
from hoarfrost.tree import Conditionals, Marginals, build_trees, top_of

TOKEN_IDS = torch.tensor([0, 3, 4, 9, 20, 21, 22, 37, 40, 55, 59, 60])  # with the mask token, 60, which is guessed all the same by nobody
REDUCED = replace(CONFIG, draft_vocab_size=len(TOKEN_IDS))


def with_table(model: DFlashModel, token_ids: Tensor = TOKEN_IDS) -> DFlashModel:
    assert model.d2t is not None
    model.d2t.copy_(offsets_of(token_ids))
    return model


def guesses_of(model: DFlashModel, target: BorrowedParts, taps: Tensor) -> Marginals:
    drafter = DFlashDrafter(model, target)
    state = drafter.new_state()
    drafter.extend([state], [taps])
    guess = drafter.propose([state], [2])[0]
    return guess.marginals if isinstance(guess, Conditionals) else guess


@pytest.fixture
def target() -> BorrowedParts:
    torch.manual_seed(1)
    return BorrowedParts()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_drafter(with_table(random_model(REDUCED)), tmp_path, dtype=torch.float32)
    return tmp_path


@pytest.mark.parametrize(
    "changes", [{}, {"output_multiplier": 0.5, "final_logit_softcapping": 2.0}, {"conv_kernel_size": 2, "conv_group_size": 8}]
)
def test_the_logits_are_those_of_the_whole_vocabulary(target: BorrowedParts, changes: dict[str, Any]) -> None:
    taps = random_taps(7)
    whole = guesses_of(random_model(replace(CONFIG, **changes)), target, taps)
    part = guesses_of(with_table(random_model(replace(REDUCED, **changes))), target, taps)
    assert part.token_ids is not None
    assert part.token_ids.tolist() == TOKEN_IDS.tolist()
    torch.testing.assert_close(part.logits, whole.logits[:, TOKEN_IDS], rtol=1e-5, atol=1e-5)
    assert (part.logits[:, -1] == -torch.inf).all(), "the mask token"


def test_candidates_and_trees_speak_of_token_ids(target: BorrowedParts) -> None:
    part = guesses_of(with_table(random_model(REDUCED)), target, random_taps(7))
    spread = Marginals(part.by_token_id())
    assert spread.vocab_size == 61
    (log_probs, token_ids), (expected_log_probs, expected_ids) = top_of([part], 5), top_of([spread], 5)
    np.testing.assert_array_equal(token_ids, expected_ids)
    np.testing.assert_allclose(log_probs, expected_log_probs, rtol=1e-6)
    ours, expected = (build_trees([one], [2], 16)[0] for one in (part, spread))
    assert ours.token_ids.tolist() == expected.token_ids.tolist()
    assert ours.parents.tolist() == expected.parents.tolist()
    narrow = Marginals(part.logits.double(), part.token_ids)  # no kernel reads these
    assert build_trees([narrow], [2], 16)[0].token_ids.tolist() == expected.token_ids.tolist()
    assert part.within(2).horizon == 2
    assert part.within(2).token_ids is part.token_ids


@pytest.mark.parametrize("params", [SamplingParams(temperature=0.8, seed=3), SamplingParams(temperature=0.8, top_k=4, seed=3)])
def test_noise_is_that_of_the_tokens(target: BorrowedParts, params: SamplingParams) -> None:
    part = guesses_of(with_table(random_model(REDUCED)), target, random_taps(7))
    ours, expected = (couple([one], [params], [11], 4)[0] for one in (part, Marginals(part.by_token_id())))
    np.testing.assert_array_equal(ours.token_ids, expected.token_ids)
    np.testing.assert_allclose(ours.log_probs, expected.log_probs, rtol=1e-5)


def test_parts_of_different_vocabularies_are_kept_apart(target: BorrowedParts) -> None:
    part = guesses_of(with_table(random_model(REDUCED)), target, random_taps(7))
    with pytest.raises(InvalidInput, match="different parts of the vocabulary"):
        top_of([part, Marginals(part.logits)], 3)
    with pytest.raises(InvalidInput, match="There are 3 token ids for 12 columns"):
        Marginals(part.logits, np.arange(3))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_a_packed_head_are_its_own(bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN, VOCAB, bias=bias, dtype=dtype)
    packed = NativeLinear(head.weight, head.bias)
    hidden = torch.randn(4, HIDDEN, dtype=dtype)
    plain, ours = (part_of_head(one, TOKEN_IDS, HIDDEN, dtype, plain_product)(hidden) for one in (head, packed))
    if bias:
        torch.testing.assert_close(
            ours, plain, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=1e-5 if dtype == torch.float32 else 2e-2
        )
    else:
        assert torch.equal(ours, plain)


def test_round_trip(folder: Path, target: BorrowedParts) -> None:
    taps = random_taps(9)
    tensors = load_file(folder / "model.safetensors")
    assert tensors["d2t"].dtype == torch.int64
    assert token_ids_of(tensors["d2t"]).tolist() == TOKEN_IDS.tolist()
    assert read_config(folder) == REDUCED
    drafter = load_drafter(folder, target)
    state = drafter.new_state()
    drafter.extend([state], [taps])
    loaded, made = drafter.propose([state], [2])[0], guesses_of(with_table(random_model(REDUCED)), target, taps)
    assert torch.equal(loaded.logits, made.logits)
    assert loaded.token_ids.tolist() == TOKEN_IDS.tolist()


def change_table(folder: Path, table: Tensor | None) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["d2t"]
    save_file({**tensors, **({} if table is None else {"d2t": table})}, folder / "model.safetensors")


def test_a_table_in_another_order_stands_for_the_same_tokens(folder: Path, target: BorrowedParts) -> None:
    order = torch.randperm(len(TOKEN_IDS), generator=torch.Generator().manual_seed(0))
    change_table(folder, (TOKEN_IDS[order] - torch.arange(len(TOKEN_IDS))).int())
    assert load_drafter(folder, target).token_ids.tolist() == TOKEN_IDS.tolist()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (None, "draft_vocab_size of 12 .* it has none"),
        (torch.zeros(11, dtype=torch.int64), r"draft_vocab_size of 12 .* one of shape \[11\]"),
        (torch.zeros(3, 4, dtype=torch.int64), r"one of shape \[3, 4\]"),
        (torch.zeros(62, dtype=torch.int64), r"one of shape \[62\]; the two must agree, with at most 61 tokens"),
        (TOKEN_IDS.clone(), "leads to token 64, outside the vocabulary of 61; an entry is a token id less its own place"),
        (-torch.ones(12, dtype=torch.int64), "leads to token -1, outside"),
        (-torch.arange(12), "leads to token 0 twice"),
        (torch.zeros(12), "d2t of type torch.float32; it must hold whole numbers"),
    ],
)
def test_wrong_tables_are_refused(folder: Path, target: BorrowedParts, table: Tensor | None, said: str) -> None:
    change_table(folder, table)
    with pytest.raises(InvalidInput, match=said):
        load_drafter(folder, target)


SELECTOR = {"selector_rank": 8, "selector_top_k": 6}
WINDOW = {"layer_types": (SLIDING,), "sliding_window": 9, "is_causal": False}
PARTS: dict[str, dict[str, Any]] = {
    "marginals": {},
    "selector": SELECTOR,
    "convolutions in a window": {**SELECTOR, **WINDOW, "conv_kernel_size": 2, "conv_group_size": 8},
}


def test_a_vocabulary_larger_than_the_targets_is_refused() -> None:
    with pytest.raises(InvalidInput, match="draft_vocab_size is 62; its target has only 61 tokens"):
        replace(CONFIG, draft_vocab_size=62)
    with pytest.raises(InvalidInput, match="selector_top_k is 12; its vocabulary has 11 tokens"):
        replace(REDUCED, selector_rank=4, selector_top_k=12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("params", [{}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.0}], ids=["greedy", "top-p", "sampled"])
def test_decoding_stays_exact(
    model_folder: Callable[[str], str], tmp_path: Path, parts: dict[str, Any], params: dict[str, float], device: str
) -> None:
    engine = Engine.load(model_folder("llama"), dtype="float32", device=device)
    config = DFlashConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=8, vocab_size=260,
        mask_token_id=3, target_layer_ids=(0, 2), num_target_layers=4, block_size=6, draft_vocab_size=40, **parts,
    )  # fmt: skip
    allowed = torch.arange(40) * 6 + 2
    save_drafter(with_table(random_model(config), allowed), tmp_path, dtype=torch.float32)
    engine.drafter = load_drafter(tmp_path, engine.target)
    prompts, chosen = [[10, 50, 90, 130], [77], list(range(60, 100))], SamplingParams(max_new_tokens=20, ignore_eos=True, seed=5, **params)
    expected = [one.token_ids for one in engine.generate(prompts, chosen, tree=TreeConfig.autoregressive())]
    for tree in (TreeConfig(), TreeConfig(12), TreeConfig.chain(), TreeConfig.published(8), TreeConfig(12, retrieval=False)):
        assert [one.token_ids for one in engine.generate(prompts, chosen, tree=tree)] == expected, tree
