"""The fused stacks against transformers' own layers: chunks, single rows, trees and packed batches, features and logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES, save_random_model, tiny_config
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM

from hoarfrost.cache import DenseStore, Store
from hoarfrost.kernels.decoder import NativeLayer
from hoarfrost.target import PackedRows, Target
from hoarfrost.target.blocks import FusedStack, NativeStack, StockStack
from hoarfrost.target.loading import load_config, load_tokenizer, locate
from hoarfrost.target.packed import ATTENTION_NAME, packed_attention
from hoarfrost.tree import DraftTree

pytestmark = pytest.mark.usefixtures("each_instruction_set")

TAPS = (2, 0)
TREE = DraftTree.from_parents([11, 12, 13, 14, 15, 16, 17], [-1, 0, 0, 1, 1, 2, 5])
CHAIN = DraftTree.from_parents([31, 32, 33, 34], [-1, 0, 1, 2])


def stock_target(folder: str, dtype: torch.dtype = torch.float32) -> Target:
    """Transformers' layers, norms and products as they are, with our attention function alone."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=ATTENTION_NAME)
    return Target(model.eval().requires_grad_(False), load_tokenizer(locate(folder)), folder)


@torch.inference_mode()
def outputs(target: Target) -> list[Tensor]:
    """Hidden states, features and logits of a history with every kind of packed row."""
    stores = [target.new_store(capacity=4) for _ in range(3)]
    found: list[Tensor] = []

    def run(rows: PackedRows) -> None:
        hidden, features = target.forward(rows, TAPS)
        assert features is not None
        found.extend((hidden.float(), features.float(), target.logits(hidden).float()))

    for store, num_tokens in zip(stores, (150, 9, 1), strict=True):
        run(PackedRows.from_chunk(store, [(7 * i) % 250 for i in range(num_tokens)], target.device))
        store.commit(range(num_tokens))
    run(PackedRows.from_trees(stores[:1], [TREE], target.device))
    stores[0].commit([0, 2, 5])
    run(PackedRows.from_trees(stores[:1], [DraftTree.single(21)], target.device))
    stores[0].commit([])
    run(PackedRows.from_trees(stores, [TREE, CHAIN, DraftTree.single(21)], target.device))
    return found


def load(folder: str, monkeypatch: pytest.MonkeyPatch, *, native: bool, dtype: str = "float32") -> Target:
    if not native:
        monkeypatch.setattr(NativeLayer, "can_run", lambda *_: False)
    target = Target.load(folder, dtype=dtype, device="cpu")
    assert isinstance(target._stack, NativeStack if native else FusedStack)
    return target


def architectures_and_more(architecture: str, model_folder: Callable[[str], str], tmp_path: Any) -> str:
    if architecture != "llama-biases":
        return model_folder(architecture)
    scaled = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 128}
    config = tiny_config("llama", attention_bias=True, mlp_bias=True, rope_parameters=scaled)
    folder = save_random_model(tmp_path, config)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "llama-biases"])
def test_fused_layers_equal_stock(
    architecture: str, native: bool, model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    folder = architectures_and_more(architecture, model_folder, tmp_path)
    expected = outputs(stock_target(folder))
    for got, wanted in zip(outputs(load(folder, monkeypatch, native=native)), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)


def test_bfloat16_is_closer_to_float32_than_stock(model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder("qwen3")
    exact = stock_target(folder, torch.bfloat16)
    exact.model.float()
    exact = Target(exact.model, exact.tokenizer, folder)
    wanted, stock = outputs(exact), outputs(stock_target(folder, torch.bfloat16))
    ours = outputs(load(folder, monkeypatch, native=True, dtype="bfloat16"))
    for got, theirs, best in zip(ours, stock, wanted, strict=True):
        assert (got - best).norm() <= 1.1 * (theirs - best).norm()
        assert (got - best).norm() <= 0.02 * best.norm()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_has_the_same_bits_in_any_tree(dtype: str, model_folder: Callable[[str], str]) -> None:
    """What makes trees exact in bfloat16 too: a node's logits equal, bit for bit, those of its path run token by token."""
    target = Target.load(model_folder("qwen3"), dtype=dtype, device="cpu")
    assert isinstance(target._stack, NativeStack)
    prompt = [(11 * i) % 250 for i in range(40)]
    tree_store, path_store = target.new_store(), target.new_store()
    for store in (tree_store, path_store):
        target.forward(PackedRows.from_chunk(store, prompt, target.device))
        store.commit(range(len(prompt)))
    hidden, features = target.forward(PackedRows.from_trees([tree_store, path_store], [TREE, CHAIN], target.device), TAPS)
    path_store.commit([])
    assert features is not None
    for row in (0, 2, 5, 6):
        alone, alone_features = target.forward(
            PackedRows.from_trees([path_store], [DraftTree.single(int(TREE.token_ids[row]))], target.device), TAPS
        )
        path_store.commit([0])
        assert torch.equal(alone[0], hidden[row])
        assert torch.equal(alone_features[0], features[row])
        assert torch.equal(target.logits(alone)[0], target.logits(hidden)[row])


class Elsewhere:
    """A dense store that cannot be told for one: what is asked of it goes through the protocol."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


BUSH = DraftTree.from_parents(list(range(70)), [(row - 1) // 3 if row else -1 for row in range(70)])


@torch.inference_mode()
def decode(target: Target, wrap: Callable[[Store], Any]) -> list[Tensor]:
    """Hidden states, features and stored rows of prompts and trees, some in one packed row; only the first store goes through `wrap`."""
    found: list[Tensor] = []
    dense = [target.new_store(capacity=3) for _ in range(2)]
    stores = [wrap(dense[0]), dense[1]]

    def run(rows: PackedRows) -> None:
        found.extend(part for part in target.forward(rows, (3, 0, 3)) if part is not None)

    for store, num_tokens in zip(stores, (40, 127), strict=True):
        run(PackedRows.from_chunk(store, [(7 * i) % 250 for i in range(num_tokens)], target.device))
        store.commit(range(num_tokens))
    run(PackedRows.from_trees(stores, [TREE, CHAIN], target.device))
    for store, rows in zip(stores, ([0, 2, 5], [0, 1]), strict=True):
        store.commit(rows)
    run(PackedRows.from_trees(stores[:1], [BUSH], target.device))
    stores[0].commit([0, 1, 4, 66])
    run(PackedRows.from_trees(stores, [DraftTree.single(21), BUSH.first(65)], target.device))
    for store in stores:
        store.commit([0])
    for store in dense:
        assert isinstance(store, DenseStore)
        found.append(store.buffer[:, :, :, : store.length])
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_one_call_has_the_bits_of_layer_by_layer(dtype: str, num_threads: int, model_folder: Callable[[str], str]) -> None:
    """So a sequence goes on the same whatever stores stand beside its own, and however many threads there are."""
    target = Target.load(model_folder("qwen3"), dtype=dtype, device="cpu")
    assert isinstance(target._stack, NativeStack)
    by_layer = decode(target, Elsewhere)
    assert len(by_layer) == 12
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        together = decode(target, lambda store: store)
    finally:
        torch.set_num_threads(before)
    for got, wanted in zip(together, by_layer, strict=True):
        assert torch.equal(got, wanted)


def test_dense_stores_take_one_call(model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """All but long prompt chunks and packed rows with other stores among them."""
    target = Target.load(model_folder("qwen3"), dtype="float32", device="cpu")
    by_layer: list[int] = []
    run_layers = NativeStack._run_layers

    def watched(stack: NativeStack, *arguments: Any) -> Any:
        by_layer.append(arguments[0].host.shape[1])
        return run_layers(stack, *arguments)

    monkeypatch.setattr(NativeStack, "_run_layers", watched)
    decode(target, lambda store: store)
    assert by_layer == []
    target.forward(PackedRows.from_chunk(target.new_store(), [1] * 128, target.device))
    assert by_layer == [128]
    decode(target, Elsewhere)
    assert by_layer == [128, 40, 11, 70, 66]


def test_the_model_gives_its_layers_away(model_folder: Callable[[str], str]) -> None:
    target = Target.load(model_folder("llama"), dtype="float32", device="cpu")
    assert not any("layers." in name for name, _ in target.model.named_parameters())


@pytest.mark.parametrize(("architecture", "changes"), [("llama", {"hidden_act": "gelu"}), ("qwen3_moe", {"hidden_act": "gelu"})])
def test_unknown_parts_keep_stock_layers(architecture: str, changes: dict[str, object], tmp_path: Any) -> None:
    config = tiny_config(architecture, **changes)
    if architecture == "qwen3_moe":
        config.mlp_only_layers = [1]  # a plain feed-forward network between the experts, with the unknown activation
    folder = save_random_model(tmp_path, config)
    target = Target.load(folder, dtype="float32", device="cpu")
    assert isinstance(target._stack, StockStack)
    for got, wanted in zip(outputs(target), outputs(stock_target(folder)), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-5)
    assert load_config(locate(folder)).hidden_act == "gelu"


def test_what_no_table_holds_is_refused(model_folder: Callable[[str], str]) -> None:
    target = Target.load(model_folder("llama"), dtype="float32", device="cpu")
    assert isinstance(target._stack, NativeStack)
    for foreign in (-1, target.vocab_size):
        with pytest.raises(ValueError, match="outside the vocabulary"):
            target.forward(PackedRows.from_chunk(target.new_store(), [3, foreign], target.device))
