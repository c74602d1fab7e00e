"""Checkpoints: written and read back, refused by name when foreign, with both numbers when they do not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from drafting.drafter_models import CONFIG, HIDDEN, VOCAB, BorrowedParts, random_model, random_taps
from safetensors.torch import load_file, save_file
from torch import Tensor

from hoarfrost.drafting import DFlashDrafter, load_drafter, read_config, save_drafter
from hoarfrost.errors import InvalidInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_drafter(random_model(CONFIG), tmp_path, dtype=torch.float32)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, remove: str | None = None, **added: Tensor) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in {**load_file(path), **added}.items() if name != remove}, path)


def test_round_trip(folder: Path) -> None:
    model, target, taps = random_model(CONFIG), BorrowedParts(), random_taps(9)
    logits = []
    for drafter in (DFlashDrafter(model, target), load_drafter(folder, target)):
        state = drafter.new_state()
        drafter.extend([state], [taps])
        logits.append(drafter.propose([state], [2])[0].logits)
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0)
    assert read_config(folder) == CONFIG


def test_the_released_layout_is_written(tmp_path: Path) -> None:
    save_drafter(random_model(replace(CONFIG, num_hidden_layers=5, layer_types=())), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert len(tensors) == 58
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert {name for name in tensors if "layers." not in name} == {"fc.weight", "hidden_norm.weight", "norm.weight"}
    assert {name.removeprefix("layers.4.") for name in tensors if name.startswith("layers.4.")} == {
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
        *(f"self_attn.{part}.weight" for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")),
        *(f"mlp.{part}.weight" for part in ("gate_proj", "up_proj", "down_proj")),
    }
    written = json.loads((tmp_path / "config.json").read_text())
    assert (written["architectures"], written["dtype"], written["block_size"]) == (["DFlashDraftModel"], "bfloat16", 6)
    assert written["dflash_config"] == {"mask_token_id": 60, "target_layer_ids": [1, 3, 4]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"], "no temporary file is left"


def test_a_checkpoint_takes_the_targets_dtype(folder: Path) -> None:
    target = BorrowedParts(torch.nn.Embedding(VOCAB, HIDDEN).bfloat16(), torch.nn.Linear(HIDDEN, VOCAB).bfloat16(), dtype=torch.bfloat16)
    drafter = load_drafter(folder, target)
    state = drafter.new_state()
    drafter.extend([state], [random_taps(3).bfloat16()])
    assert drafter.propose([state], [2])[0].logits.dtype == torch.bfloat16
    assert drafter.name == str(folder)


def test_shards_are_read_together(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:10], names[10:])):
        save_file({name: tensors[name] for name in part}, folder / f"model-0000{number + 1}-of-00002.safetensors")
    assert load_drafter(folder, BorrowedParts()).horizon == 5


ODD = torch.zeros(2)
FOREIGN: list[tuple[str, dict[str, Any], dict[str, Tensor]]] = [
    ("Domino", {"architectures": ["DominoDraftModel"]}, {}),
    ("Domino", {"dflash_config": {"mask_token_id": 60, "shift_label": True}}, {}),
    ("Domino", {"dflash_config": {"mask_token_id": 60, "projector_type": "domino"}}, {}),
    ("Domino", {}, {"prefix_gru.weight_ih_l0": ODD}),
    ("DSpark", {"architectures": ["Qwen3DSparkModel"], "markov_rank": 256, "num_anchors": 512}, {}),
    ("DSpark", {"dflash_config": {"mask_token_id": 60, "projector_type": "dspark"}}, {}),
    ("DSpark", {}, {"markov_head.markov_w1.weight": ODD}),
    ("DSpark", {}, {"confidence_head.proj.weight": ODD}),
    ("DeepSpec", {"architectures": ["Qwen3DSparkModel"], "markov_rank": 0, "num_anchors": 512, "block_size": 7}, {}),
    ("DeepSpec", {"markov_rank": 0}, {}),
    ("DeepSpec", {"sample_from_anchor": True}, {}),
    ("speculators", {"speculators_model_type": "dflash", "architectures": ["DFlashSpeculator"]}, {}),
    ("speculators", {"aux_hidden_state_layer_ids": [2, 4, 5]}, {}),
    ("speculators", {}, {"t2d": ODD}),
    ("EAGLE", {"architectures": ["LlamaForCausalLMEagle3"]}, {}),
    ("EAGLE", {}, {"midlayer.self_attn.q_proj.weight": ODD}),
    ("Muse Glimmer", {"model_type": "muse_glimmer_assistant"}, {}),
]


@pytest.mark.parametrize(("name", "config", "tensors"), FOREIGN)
def test_other_conventions_are_refused_by_name(folder: Path, name: str, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    change_config(folder, **config)
    change_tensors(folder, **tensors)
    with pytest.raises(InvalidInput, match=f"is a drafter of the {name}.*released layouts of DFlash"):
        load_drafter(folder, BorrowedParts())


def test_a_speculators_configuration_is_named_although_it_lacks_every_key(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"speculators_model_type": "eagle3", "transformer_layer_config": {"hidden_size": 32}}))
    with pytest.raises(InvalidInput, match="speculators"):
        read_config(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 64}, "a hidden size of 32, and the target's is 64"),
        ({"num_layers": 28}, "a target of this many layers: 6, and the target's is 28"),
        ({"vocab_size": 50}, "a vocabulary of 61, and the target's is 50"),
    ],
)
def test_a_drafter_for_another_target_is_refused_with_both_numbers(folder: Path, changes: dict[str, int], said: str) -> None:
    with pytest.raises(InvalidInput, match=f"does not fit the test target: it was made for {said}"):
        load_drafter(folder, BorrowedParts(**changes))


def test_taps_beyond_the_target_are_refused(folder: Path) -> None:
    change_config(folder, num_target_layers=None, dflash_config={"mask_token_id": 60, "target_layer_ids": [1, 3, 6]})
    with pytest.raises(InvalidInput, match=r"reads layer 6 .* 6 layers"):
        load_drafter(folder, BorrowedParts())


@pytest.mark.parametrize(
    ("remove", "added", "said"),
    [
        ("norm.weight", {}, "missing: norm.weight"),
        (None, {"layers.9.extra.weight": ODD}, "unexpected: layers.9.extra.weight"),
        (None, {"fc.weight": torch.zeros(32, 64)}, r"of the wrong shape: fc.weight \[32, 64\] instead of \[32, 96\]"),
    ],
)
def test_tensors_that_do_not_match_are_named(folder: Path, remove: str | None, added: dict[str, Tensor], said: str) -> None:
    change_tensors(folder, remove, **added)
    with pytest.raises(InvalidInput, match=said):
        load_drafter(folder, BorrowedParts())


def test_an_embedding_and_head_of_its_own_must_be_the_targets(folder: Path) -> None:
    target = BorrowedParts()
    own = {"embed_tokens.weight": target.embed.weight.detach().clone(), "lm_head.weight": torch.clone(target.head.weight.detach())}
    change_tensors(folder, **own)
    load_drafter(folder, target)
    change_tensors(folder, **{"lm_head.weight": own["lm_head.weight"] + 1})
    with pytest.raises(InvalidInput, match=r"its own lm_head\.weight, which is not the test target's"):
        load_drafter(folder, target)


class HeadInBlocks(torch.nn.Module):
    """A head whose weights were rounded to a few bits and are no longer there as a matrix."""

    def __init__(self, head: torch.nn.Linear, num_bits: int) -> None:
        super().__init__()
        scale = head.weight.detach().abs().amax(-1, keepdim=True) / (2 ** (num_bits - 1) - 1)
        self.rounded = (head.weight.detach() / scale).round() * scale

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.rounded.T


@pytest.mark.parametrize("num_bits", [4, 8])
def test_a_head_of_its_own_is_compared_with_one_in_blocks_of_few_bits(num_bits: int, folder: Path) -> None:
    head = torch.nn.Linear(HIDDEN, VOCAB, bias=False)
    target = BorrowedParts(head=HeadInBlocks(head, num_bits))
    change_tensors(folder, **{"lm_head.weight": head.weight.detach().clone()})
    load_drafter(folder, target)
    change_tensors(folder, **{"lm_head.weight": head.weight.detach().roll(1, 0).clone()})
    with pytest.raises(InvalidInput, match=r"its own lm_head\.weight"):
        load_drafter(folder, target)


def test_damaged_and_missing_files_are_sentences(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    target = BorrowedParts()
    with pytest.raises(InvalidInput, match="give the folder"):
        load_drafter(folder / "config.json", target)
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(InvalidInput, match="not a whole safetensors file"):
        load_drafter(folder, target)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"no \.safetensors file"):
        load_drafter(folder, target)
    (folder / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match="cannot be read as JSON"):
        load_drafter(folder, target)
    with pytest.raises(InvalidInput, match=r"holds no config\.json"):
        load_drafter(tmp_path_factory.mktemp("empty"), target)


@pytest.mark.parametrize("source", ["no-such/drafter", "/no/such/folder", "not a name"])
def test_unknown_names_are_sentences(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidInput, match=r"No drafter .*: it is no folder, and "):
        load_drafter(source, BorrowedParts())
