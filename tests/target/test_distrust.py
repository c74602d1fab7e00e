"""Loading trusts nothing: no code of a folder is run, no weight is made up, and a damaged file is a sentence that names it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VOCAB_SIZE, save_random_model, tiny_config
from drafting.drafter_models import CONFIG, BorrowedParts, random_model
from safetensors.torch import load_file, save_file

from hoarfrost import Engine
from hoarfrost.drafting import load_drafter, save_drafter
from hoarfrost.drafting.checkpoint import load_network
from hoarfrost.errors import InvalidInput
from hoarfrost.models import SHIPPED
from hoarfrost.target import Target
from hoarfrost.target.loading import load_config, load_tokenizer, locate
from hoarfrost.training.features import load_frozen_target

UP = "model.layers.1.mlp.up_proj.weight"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


@pytest.fixture
def folder(model_folder: Callable[[str], str], tmp_path: Path) -> Path:
    """A copy of a random model, to be damaged."""
    return Path(shutil.copytree(model_folder("qwen3"), tmp_path / "model"))


def load(folder: Path) -> Target:
    return Target.load(str(folder), dtype="float32", device="cpu")


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def plant_code(folder: Path) -> Path:
    """Python files under every name that the tests' `auto_map` entries use; each leaves a proof that it was run."""
    proof = folder / "WAS_RUN"
    code = (
        f"open({str(proof)!r}, 'w').close()\nfrom transformers import PretrainedConfig\nclass Own(PretrainedConfig): model_type = 'own'\n"
    )
    (folder / "custom_generate").mkdir()
    for name in ("own.py", "custom_generate/generate.py"):
        (folder / name).write_text(code)
    return proof


OWN = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", None]}


@pytest.mark.parametrize("read", [load, lambda folder: load_frozen_target(str(folder), dtype="float32", device="cpu")])
@pytest.mark.parametrize("model_type", ["qwen3", "own"])
def test_code_of_a_folder_is_never_run(model_type: str, read: Callable[[Path], Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = plant_code(folder)
    change_json(folder / "config.json", auto_map=OWN, model_type=model_type)
    change_json(folder / "tokenizer_config.json", auto_map=OWN, tokenizer_class="Own")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    if model_type == "own":
        with pytest.raises(InvalidInput, match="code of its own"):
            read(folder)
    else:
        assert read(folder).tokenizer("abc")["input_ids"], "what transformers itself knows is loaded without the folder's code"
    with pytest.raises(InvalidInput, match=r"not the DFlash drafter|cannot be read|lacks"):
        load_drafter(folder, load(Path(SHIPPED["tiny"].target)))
    assert not proof.exists()


def drop_all(tensors: dict[str, torch.Tensor], part: str) -> None:
    for name in [name for name in tensors if part in name]:
        del tensors[name]


def rename_all(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        tensors["x." + name] = tensors.pop(name)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda tensors: tensors.pop(UP), f"missing: {UP}"),
        (lambda tensors: drop_all(tensors, ".layers.2."), r"missing: model\.layers\.2\..* and \d+ more"),
        (lambda tensors: tensors.pop("lm_head.weight"), r"missing: lm_head\.weight"),
        (lambda tensors: tensors.pop("model.norm.weight"), r"missing: model\.norm\.weight"),
        (lambda tensors: tensors.update({UP: torch.zeros(47, 32)}), rf"of the wrong shape: {UP} \[47, 32\] instead of \[48, 32\]"),
        (rename_all, "missing: lm_head"),
        (lambda tensors: tensors.update({UP.replace("weight", "bias"): torch.zeros(48)}), "without a place: .*up_proj.bias"),
        (lambda tensors: tensors.update({"model.layers.4.mlp.up_proj.weight": torch.zeros(48, 32)}), r"without a place: model\.layers\.4"),
        (lambda tensors: tensors.update({"lm_head.bias": torch.zeros(260)}), r"without a place: lm_head\.bias"),
    ],
)
def test_weights_that_the_configuration_does_not_describe_are_refused(edit: Any, said: str, folder: Path) -> None:
    change_tensors(folder, edit)
    with pytest.raises(InvalidInput, match=said):
        load(folder)
    with pytest.raises(InvalidInput, match=said):
        load_frozen_target(str(folder), dtype="float32", device="cpu")


def test_harmless_extras_and_a_tied_head_are_fine(folder: Path, tmp_path: Path) -> None:
    extras = ("model.layers.0.self_attn.rotary_emb.inv_freq", "value_head.weight", "model.layers.0.self_attn.k_scale")
    change_tensors(folder, lambda tensors: tensors.update({name: torch.zeros(8) for name in extras}))
    assert load(folder).num_layers == 4
    tied = Path(save_random_model(tmp_path / "tied", tiny_config("llama", tie_word_embeddings=True)))
    change_tensors(tied, lambda tensors: tensors.pop("lm_head.weight", None))
    assert load(tied).num_layers == 4


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: cut(folder / "model.safetensors", 50_000), r"model\.safetensors is not a whole safetensors file"),
        (lambda folder: cut(folder / "model.safetensors", 0), r"model\.safetensors is not a whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no file named model\.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_text(POINTER), "model.safetensors is a pointer of git-lfs.*git lfs pull"),
        (lambda folder: (folder / "config.json").write_text(POINTER), "config.json is a pointer of git-lfs"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds no JSON object"),
        (lambda folder: (folder / "config.json").write_bytes(b'{"model_type": "caf\xe9"}'), "config.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text('{"a":' * 100_000), "config.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").unlink(), r"holds no config\.json"),
        (lambda folder: (folder / "generation_config.json").write_text("{"), "generation_config.json cannot be read as JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json cannot be read as JSON"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer of .* cannot be used"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "tokenizer_config.json cannot be read as JSON"),
        (lambda folder: [path.unlink() for path in folder.glob("tokenizer*")], r"has no tokenizer \(tokenizer\.json\)"),
        (lambda folder: change_json(folder / "config.json", hidden_size="wide"), "configuration of .* cannot be used"),
        (lambda folder: change_json(folder / "config.json", num_attention_heads=0), "weights of .* cannot be used"),
        (lambda folder: change_json(folder / "config.json", layer_types=[[]]), "configuration of .* cannot be used"),
    ],
)
def test_a_damaged_file_is_a_sentence_that_names_it(damage: Any, said: str, folder: Path) -> None:
    damage(folder)
    with pytest.raises(InvalidInput, match=said):
        load(folder)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "index.json cannot be read as JSON"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "has no weight_map"),
        (lambda folder: sorted(folder.glob("model-*"))[-1].unlink(), "lacks model-.*which model.safetensors.index.json names"),
        (lambda folder: cut(sorted(folder.glob("model-*"))[-1], 100), r"model-.* is not a whole safetensors file"),
    ],
)
def test_damaged_shards_are_named(damage: Any, said: str, folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, weight_map = sorted(tensors), {}
    for number, part in enumerate((names[:10], names[10:]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, shard))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert load(folder).num_layers == 4
    damage(folder)
    with pytest.raises(InvalidInput, match=said):
        load(folder)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}, "gptq"),
        ({"quantization_config": {"quant_method": "unheard-of"}}, "'unheard-of'.*not supported"),
        ({"quantization_config": {"load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization": {"bits": 4, "group_size": 64}}, "'mlx'.*not supported"),
        ({"quantization_config": {"format": "?"}}, "a scheme without a name"),
    ],
)
def test_quantised_weights_that_cannot_be_read_are_refused_by_name(entry: dict[str, Any], said: str, folder: Path) -> None:
    change_json(folder / "config.json", **entry)
    with pytest.raises(InvalidInput, match=said):
        load(folder)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [2, 0, 77]}, {}, {2, 0, 77}),
        ({"eos_token_id": 77}, {}, {77}),
        ({"eos_token_id": [77, 77]}, {}, {77}),
        (None, {"eos_token_id": [5, 6]}, {5, 6}),
        ({"eos_token_id": None}, {"eos_token_id": 5}, {5}),
        (None, {"eos_token_id": None}, {2}),
        ({"eos_token_id": 0}, {}, {0, 2}),
    ],
)
def test_end_tokens(generation: dict[str, Any] | None, config: dict[str, Any], expected: set[int], folder: Path) -> None:
    """The last: only the base text's end is named, and the chat template closes turns with the tokenizer's end token (2)."""
    change_json(folder / "config.json", **config)
    if generation is None:
        (folder / "generation_config.json").unlink()
    else:
        change_json(folder / "generation_config.json", **generation)
    ends = load(folder).eos_token_ids
    assert (set(ends), len(ends)) == (expected, len(expected))


def test_an_end_token_that_no_template_writes_is_not_added(folder: Path) -> None:
    change_json(folder / "generation_config.json", eos_token_id=0)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    assert load(folder).eos_token_ids == (0,)


@pytest.mark.parametrize("value", [[["2"]], ["2"], "2", [], [2.5], -1, [2, 260], True, {"a": 2}])
def test_end_tokens_that_make_no_sense_are_refused(value: Any, folder: Path) -> None:
    change_json(folder / "generation_config.json", eos_token_id=value)
    with pytest.raises(InvalidInput, match=r"eos_token_id|cannot be used"):
        load(folder)


def test_an_alias_means_the_shipped_model_whatever_lies_around(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tiny").mkdir()
    monkeypatch.chdir(folder)
    assert locate("tiny").path == SHIPPED["tiny"].target
    assert load_config(locate("tiny")).model_type
    with pytest.raises(InvalidInput, match=r"holds no config\.json"):
        load_config(locate("./tiny"))


RAISING = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m['role'] + m['content'] }}{% endfor %}"
)
HELLO = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("template", "messages", "said"),
    [
        (RAISING, [{"role": "system", "content": "Be brief."}, HELLO], "System role not supported"),
        (RAISING, [{"role": "user"}], "UndefinedError"),
        ("{% for m in messages %}{{ m.x.y }}", [HELLO], "TemplateSyntaxError"),
        ("{% for i in range(10**12) %}{{ i }}{% endfor %}", [HELLO], "OverflowError"),
        ("{{ 1 / 0 }}", [HELLO], "ZeroDivisionError"),
        (RAISING, [], "list of messages"),
        (RAISING, [{"content": "no role"}], "list of messages"),
        (RAISING, [{"role": "user", "content": "caf\udce9"}], "no valid Unicode"),
    ],
)
def test_a_template_that_does_not_take_a_conversation_is_a_sentence(template: str, messages: Any, said: str, folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(template)
    engine = Engine.load(str(folder), dtype="float32", device="cpu")
    with pytest.raises(InvalidInput, match=said):
        engine.chat(messages)


@pytest.mark.parametrize("prompt", ["caf\udce9", [1.5, 2.0], [[1]], {"role": "user", "content": "hi"}, 5.0, ["1"]])
def test_a_prompt_that_is_neither_text_nor_ids_is_a_sentence(prompt: Any, model_folder: Callable[[str], str]) -> None:
    engine = Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")
    with pytest.raises(InvalidInput, match=r"valid Unicode|whole numbers|token ids"):
        engine.generate([prompt])


def test_a_drafter_kept_in_eight_bits_is_that_of_the_widened_numbers(tmp_path: Path) -> None:
    target = load(Path(SHIPPED["tiny"].target))
    narrow, wide = (Path(shutil.copytree(SHIPPED["tiny"].drafter, tmp_path / name)) for name in ("narrow", "wide"))
    name = "layers.0.mlp.up_proj.weight"
    change_tensors(narrow, lambda tensors: tensors.update({name: tensors[name].to(torch.float8_e4m3fn)}))
    change_tensors(wide, lambda tensors: tensors.update({name: tensors[name].to(torch.float8_e4m3fn).float()}))
    models = [load_network(folder, target).state_dict() for folder in (narrow, wide)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


def test_a_drafter_of_another_kind_of_numbers_is_refused(tmp_path: Path) -> None:
    target = load(Path(SHIPPED["tiny"].target))
    drafter = Path(shutil.copytree(SHIPPED["tiny"].drafter, tmp_path / "drafter"))
    change_tensors(drafter, lambda tensors: tensors.update({"layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}))
    assert load_drafter(drafter, target).horizon > 0
    change_tensors(drafter, lambda tensors: tensors.update({"norm.weight": tensors["norm.weight"].to(torch.int8)}))
    with pytest.raises(InvalidInput, match=r"norm\.weight in another type than F32"):
        load_drafter(drafter, target)
    change_json(drafter / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(InvalidInput, match=r"quantised.*gptq"):
        load_drafter(drafter, target)
    (drafter / "config.json").write_text("{}")
    (drafter / "model.safetensors").write_text(POINTER)
    with pytest.raises(InvalidInput, match="pointer of git-lfs"):
        load_drafter(drafter, target)


@pytest.mark.parametrize(
    "changes",
    [
        {"dflash_config": 5},
        {"architectures": 5},
        {"rope_scaling": "x"},
        {"rope_parameters": [1]},
        {"rope_theta": "x"},
        {"layer_types": 5},
        {"num_attention_heads": 0},
        {"use_sliding_window": True, "layer_types": ["sliding_attention"] * 3, "sliding_window": "x"},
    ],
)
def test_a_drafter_configuration_that_makes_no_sense_is_a_sentence(changes: dict[str, Any], tmp_path: Path) -> None:
    save_drafter(random_model(CONFIG), tmp_path, dtype=torch.float32)
    change_json(tmp_path / "config.json", **changes)
    try:
        load_drafter(tmp_path, BorrowedParts())
    except InvalidInput:
        return
    assert changes.keys() == {"architectures"}, "this one alone says nothing about the network"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_drafter_may_carry_the_targets_own_parts(tied: bool, dtype: str, tmp_path: Path) -> None:
    """The head of a loaded target is packed: it no longer holds the matrix that the drafter's is compared with."""
    folder = save_random_model(tmp_path / "target", tiny_config("qwen3", tie_word_embeddings=tied))
    target = Target.load(folder, dtype=dtype, device="cpu")
    path = tmp_path / "drafter"
    save_drafter(random_model(replace(CONFIG, vocab_size=VOCAB_SIZE, num_target_layers=4, target_layer_ids=(0, 2))), path)
    weights = load_file(Path(folder) / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"]
    head = embedding if tied else weights["lm_head.weight"]
    change_tensors(path, lambda tensors: tensors.update({"embed_tokens.weight": embedding, "lm_head.weight": head.clone()}))
    load_drafter(path, target)
    for name, other in (("lm_head.weight", torch.randn_like(head)), ("embed_tokens.weight", embedding.flip(0))):
        right = load_file(path / "model.safetensors")[name]
        change_tensors(path, lambda tensors, name=name, other=other: tensors.update({name: other}))
        with pytest.raises(InvalidInput, match=f"its own {name}"):
            load_drafter(path, target)
        change_tensors(path, lambda tensors, name=name, right=right: tensors.update({name: right}))


def test_a_tokenizer_without_words_is_refused(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = {}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InvalidInput, match="without words"):
        load_tokenizer(locate(str(folder)))
