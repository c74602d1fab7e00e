"""The target against transformers itself: packed prompts, chunks and trees give the logits and features of stock forward passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import ARCHITECTURES, tiny_config
from transformers import AutoModelForCausalLM

from hoarfrost.errors import InvalidInput
from hoarfrost.target import PackedRows, Target
from hoarfrost.target.loading import FusedRMSNorm, use_fused_norms
from hoarfrost.tree import DraftTree

TAPS = (0, 2)
PROMPTS = ([5, 9, 200, 17, 33, 8], [100, 101, 102], [7] * 11)


def stock_forward(folder: str, token_ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        out = model(torch.tensor([token_ids]), output_hidden_states=True)
    return out.logits[0], torch.cat([out.hidden_states[tap + 1][0] for tap in TAPS], -1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunked_prompt_equals_stock(architecture: str, model_folder: Callable[[str], str]) -> None:
    folder = model_folder(architecture)
    target = Target.load(folder, dtype="float32", device="cpu")
    prompt = PROMPTS[0] + PROMPTS[2]
    expected_logits, expected_features = stock_forward(folder, prompt)
    store = target.new_store(capacity=4)
    hidden, features = [], []
    for start, stop in ((0, 5), (5, 6), (6, len(prompt))):
        rows = PackedRows.from_chunk(store, prompt[start:stop], target.device)
        chunk_hidden, chunk_features = target.forward(rows, TAPS)
        store.commit(range(stop - start))
        hidden.append(chunk_hidden)
        features.append(chunk_features)
    torch.testing.assert_close(target.logits(torch.cat(hidden)), expected_logits, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(torch.cat(features), expected_features, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_trees_equal_their_paths(architecture: str, model_folder: Callable[[str], str]) -> None:
    """Every root-to-node path of every tree, run alone through the stock model, ends in the logits that the packed pass gives its node."""
    folder = model_folder(architecture)
    target = Target.load(folder, dtype="float32", device="cpu")
    trees = [
        DraftTree.from_parents([11, 12, 13, 14, 15, 16, 17], [-1, 0, 0, 1, 1, 2, 5]),
        DraftTree.single(21),
        DraftTree.from_parents([31, 32, 33, 34], [-1, 0, 1, 2]),
    ]
    stores = []
    for prompt in PROMPTS:
        store = target.new_store()
        target.forward(PackedRows.from_chunk(store, prompt, target.device))
        store.commit(range(len(prompt)))
        stores.append(store)
    hidden, features = target.forward(PackedRows.from_trees(stores, trees, target.device), TAPS)
    logits, start = target.logits(hidden), 0
    for prompt, tree in zip(PROMPTS, trees, strict=True):
        visible = tree.visible()
        for row in range(tree.num_rows):
            path = [int(token) for token in tree.token_ids[visible[row]]]
            expected_logits, expected_features = stock_forward(folder, prompt + path)
            torch.testing.assert_close(logits[start + row], expected_logits[-1], atol=5e-5, rtol=5e-5)
            torch.testing.assert_close(features[start + row], expected_features[-1], atol=5e-5, rtol=5e-5)
        start += tree.num_rows


def test_committed_path_continues_like_the_sequence(model_folder: Callable[[str], str]) -> None:
    folder = model_folder("qwen3")
    target = Target.load(folder, dtype="float32", device="cpu")
    store = target.new_store()
    target.forward(PackedRows.from_chunk(store, PROMPTS[0], target.device))
    store.commit(range(len(PROMPTS[0])))
    tree = DraftTree.from_parents([11, 12, 13, 14, 15, 16], [-1, 0, 0, 1, 2, 4])
    target.forward(PackedRows.from_trees([store], [tree], target.device))
    store.commit([0, 2, 4, 5])
    hidden, _ = target.forward(PackedRows.from_trees([store], [DraftTree.single(40)], target.device))
    expected, _ = stock_forward(folder, PROMPTS[0] + [11, 13, 15, 16, 40])
    torch.testing.assert_close(target.logits(hidden)[0], expected[-1], atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize(
    ("architecture", "changes", "words"),
    [
        ("qwen3", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}, "sliding_attention"),
        ("mistral", {"sliding_window": 64}, "sliding_attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}, "dynamic"),
    ],
)
def test_what_cannot_be_served_exactly_is_refused(architecture: str, changes: dict[str, object], words: str, tmp_path) -> None:
    config = tiny_config(architecture)
    for name, value in changes.items():
        setattr(config, name, value)
    if "max_window_layers" in changes:
        config.layer_types = ["full_attention", "sliding_attention", "full_attention", "full_attention"]
    config.save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match=words):
        Target.load(str(tmp_path), device="cpu")


def test_unknown_names_are_named(tmp_path, model_folder: Callable[[str], str]) -> None:
    with pytest.raises(InvalidInput, match="no-such-model"):
        Target.load("no-such-model", device="cpu")
    with pytest.raises(InvalidInput, match="int3"):
        Target.load(model_folder("llama"), dtype="int3", device="cpu")
    with pytest.raises(InvalidInput, match="warp"):
        Target.load(model_folder("llama"), device="warp")


def test_other_architectures_are_refused(tmp_path) -> None:
    from transformers import GPT2Config

    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(InvalidInput, match="gpt2"):
        Target.load(str(tmp_path), device="cpu")


def test_fused_norms_keep_weights_and_results() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config("qwen3"), dtype=torch.float32)
    names = [name for name, _ in model.named_parameters()]
    hidden = torch.randn(3, 32)
    expected = model.model.norm(hidden), model.model.layers[1].self_attn.q_norm(hidden[:, :16])
    use_fused_norms(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert isinstance(model.model.norm, FusedRMSNorm)
    assert isinstance(model.model.layers[1].self_attn.q_norm, FusedRMSNorm)
    torch.testing.assert_close(model.model.norm(hidden), expected[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(model.model.layers[1].self_attn.q_norm(hidden[:, :16]), expected[1], atol=1e-6, rtol=1e-6)
