"""GGUF files against transformers models that hold the same values: logits, decoding, rotary settings, tokenizer; and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SPECIAL_TOKENS
from gguf import GGMLQuantizationType
from gguf_files import ARCHITECTURES, KINDS, TOKENS, random_model, write_model
from transformers import PreTrainedModel

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.linear import NativeEmbedding, NativeLinear
from hoarfrost.target import PackedRows, Target, loading
from hoarfrost.target.blocks import NativeStack, StockStack
from hoarfrost.target.gguf import find_gguf, open_gguf
from hoarfrost.target.quantized import QuantizedEmbedding, QuantizedLinear
from hoarfrost.training.features import load_frozen_target, tapped_features

PROMPT = [5, 9, 200, 17, 33, 8, 100, 101, 60, 61]


def stock_logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([PROMPT])).logits[0]


def logits_of(target: Target) -> torch.Tensor:
    store = target.new_store()
    hidden, _ = target.forward(PackedRows.from_chunk(store, PROMPT, target.device))
    return target.logits(hidden)


def assert_same_logits(target: Target, model: PreTrainedModel) -> None:
    torch.testing.assert_close(logits_of(target), stock_logits(model), atol=2e-4, rtol=2e-4)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models keep transformers' layers and the plain twins of quantised ones, whose rows stay float32."""
    monkeypatch.setattr(loading, "make_stack", lambda model, weights: StockStack(model.base_model))


def mixed(name: str) -> str:
    """As "Q4_K_M" files mix."""
    return "Q6_K" if any(part in name for part in ("attn_v", "ffn_down", "token_embd")) else "Q4_K"


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_those_of_the_values_in_the_file(architecture: str, kind: str, tmp_path: Path) -> None:
    model = random_model(architecture)
    path = write_model(tmp_path / "model.gguf", model, lambda _: kind)
    target = Target.load(str(path), dtype="float32", device="cpu")
    assert isinstance(target.head, QuantizedLinear) == (not kind.endswith(("F16", "F32")))
    assert target.weights == (kind if kind[0] == "Q" else "float")
    assert_same_logits(target, model)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "mixed"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_native_layers_differ_by_the_rounding_of_rows_alone(architecture: str, kind: str, tmp_path: Path) -> None:
    """Rows in 8 bits: a step is 1/127 of a group's largest entry, some half a percent of a row in all, once in each of 17 products."""
    model = random_model(architecture)
    target = Target.load(
        str(write_model(tmp_path / "model.gguf", model, mixed if kind == "mixed" else lambda _: kind)), dtype="float32", device="cpu"
    )
    assert isinstance(target._stack, NativeStack)
    found, wanted = logits_of(target), stock_logits(model)
    assert (found - wanted).norm() <= 17 * 0.005 * wanted.norm()
    assert found.dtype == torch.float32


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("weights", ["auto", "float"])
def test_mixed_kinds_and_a_shared_head(weights: str, tmp_path: Path) -> None:
    model = random_model("llama", tie_word_embeddings=True)
    path = write_model(tmp_path / "model.gguf", model, mixed)
    target = Target.load(str(path), dtype="float32", device="cpu", weights=weights)
    assert target.weights == {"auto": "Q4_K+Q6_K", "float": "float"}[weights]
    assert target.embed.weight is target.head.weight if weights != "float" else torch.equal(target.embed.weight, model.lm_head.weight)
    assert_same_logits(target, model)


def test_a_shared_head_is_held_once(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", random_model("llama", tie_word_embeddings=True), mixed)
    target = Target.load(str(path), device="cpu")
    assert isinstance(target.embed, NativeEmbedding)
    assert isinstance(target.head, NativeLinear)
    assert target.embed.matrix is target.head.matrix


@pytest.mark.usefixtures("plain")
def test_attention_biases_of_llama_files(tmp_path: Path) -> None:
    model = random_model("llama", attention_bias=True, mlp_bias=True)
    assert_same_logits(Target.load(str(write_model(tmp_path / "model.gguf", model, mixed)), dtype="float32", device="cpu"), model)


@pytest.mark.usefixtures("plain")
def test_decoding_is_that_of_transformers(tmp_path: Path) -> None:
    model = random_model("qwen3")
    engine = Engine.load(str(write_model(tmp_path / "model.gguf", model, lambda _: "Q8_0")), dtype="float32", device="cpu")
    params = SamplingParams(max_new_tokens=16, ignore_eos=True)
    theirs = model.generate(torch.tensor([PROMPT]), max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0)
    for tree in (TreeConfig.autoregressive(), TreeConfig(8)):
        assert engine.generate([PROMPT], params, tree=tree)[0].token_ids == theirs[0, len(PROMPT) :].tolist()


def test_quantised_weights_go_with_bfloat16_by_default(tmp_path: Path) -> None:
    path = str(write_model(tmp_path / "model.gguf", random_model("llama"), mixed))
    target = Target.load(path, device="cpu")
    assert target.dtype == target.model.base_model.norm.weight.dtype == torch.bfloat16
    assert target.embed(torch.tensor([3])).dtype == torch.bfloat16
    assert target.logits(torch.zeros((1, target.hidden_size), dtype=torch.bfloat16)).dtype == torch.float32


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", random_model("llama"), mixed)
    assert find_gguf(str(tmp_path)) == find_gguf(str(path)) == path
    (tmp_path / "other.gguf").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"holds 2 GGUF files \(model.gguf, other.gguf"):
        find_gguf(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert find_gguf(str(tmp_path)) is None
    with pytest.raises(InvalidInput, match="no file"):
        find_gguf(str(tmp_path / "none.gguf"))


class TestConfig:
    def test_sizes_and_end_tokens(self, tmp_path: Path) -> None:
        model = random_model("qwen3")
        path = write_model(tmp_path / "model.gguf", model, mixed, metadata={"tokenizer.ggml.eot_token_id": 1})
        target = Target.load(str(path), device="cpu")
        assert target.eos_token_ids == (1, 2)
        for name in (
            "hidden_size",
            "intermediate_size",
            "head_dim",
            "vocab_size",
            "rms_norm_eps",
            "rope_parameters",
            "tie_word_embeddings",
        ):
            assert getattr(target.model.config, name) == getattr(model.config, name), name

    @pytest.mark.usefixtures("plain")
    @pytest.mark.parametrize(
        ("rope", "metadata"),
        [
            ({"rope_type": "linear", "factor": 4.0}, {"type": "linear", "factor": 4.0}),
            (
                {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
                {"type": "yarn", "factor": 4.0, "original_context_length": 64},
            ),
        ],
    )
    def test_rotary_scaling(self, rope: dict[str, Any], metadata: dict[str, Any], tmp_path: Path) -> None:
        model = random_model("qwen2", rope_parameters={"rope_theta": 5e4, **rope})
        entries = {f"qwen2.rope.scaling.{name}": value for name, value in metadata.items()}
        path = write_model(tmp_path / "model.gguf", model, mixed, metadata=entries)
        assert_same_logits(Target.load(str(path), dtype="float32", device="cpu"), model)

    @pytest.mark.usefixtures("plain")
    def test_frequencies_of_llama_3(self, tmp_path: Path) -> None:
        rope = {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        }
        model = random_model("llama", rope_parameters={"rope_theta": 5e4, **rope})
        rotary: Any = model.base_model.rotary_emb
        plain, _ = rotary.compute_default_rope_parameters(model.config)
        factors = (plain / rotary.inv_freq).numpy()
        assert factors.max() == 8
        path = write_model(tmp_path / "model.gguf", model, mixed, change=lambda writer: writer.add_tensor("rope_freqs.weight", factors))
        assert_same_logits(Target.load(str(path), dtype="float32", device="cpu"), model)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return open_gguf(write_model(tmp_path_factory.mktemp("gguf") / "model.gguf", random_model("llama"), mixed)).tokenizer()


class TestTokenizer:
    @pytest.mark.parametrize(
        "text", ["Hello, the world!", "  two  spaces\n\tand tabs", "ünïcödé 🙂", "12 + 34 = 46", "<|im_start|>user\nhi<|im_end|>"]
    )
    def test_round_trip(self, tokenizer: Any, text: str) -> None:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

    def test_merges_and_single_digits(self, tokenizer: Any) -> None:
        cut = [TOKENS[token_id] for token_id in tokenizer("do the 12")["input_ids"]]
        assert cut == ["d", "o", "Ġthe", "Ġ", "1", "2"]  # a digit stands alone, though "Ġ1" is a merge

    def test_special_tokens_and_chat(self, tokenizer: Any) -> None:
        ids = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True, return_dict=False)
        assert (ids[0], ids.count(2)) == (1, 1)
        assert tokenizer.decode(ids, skip_special_tokens=True) == "user\nhi\nassistant\n"
        assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
        assert [tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3]

    def test_words_of_llama_3_need_no_merges(self, tmp_path: Path) -> None:
        tokens = [*TOKENS, "Ġwhole"]
        entries = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": [1] * len(tokens), "tokenizer.ggml.pre": "llama-bpe"}
        path = write_model(tmp_path / "model.gguf", random_model("llama"), mixed, metadata=entries)
        assert open_gguf(path).tokenizer()(" whole")["input_ids"] == [len(TOKENS)]

    def test_control_tokens_beyond_the_byte_alphabet(self, tmp_path: Path) -> None:
        names = ["<→begin→>", "<→User→>"]
        entries = {
            "tokenizer.ggml.tokens": [*TOKENS, *names],
            "tokenizer.ggml.token_type": [1] * len(TOKENS) + [3, 4],
            "tokenizer.ggml.pre": "deepseek-r1-qwen",
            "tokenizer.ggml.bos_token_id": len(TOKENS),
            "tokenizer.ggml.add_bos_token": True,
        }
        tokenizer = open_gguf(write_model(tmp_path / "model.gguf", random_model("qwen2"), mixed, metadata=entries)).tokenizer()
        ids = tokenizer("<→User→>a→")["input_ids"]
        assert ids[:3] == [len(TOKENS), len(TOKENS) + 1, TOKENS.index("a")]
        assert max(ids[3:]) < len(TOKENS)
        assert tokenizer.decode(ids) == "<→begin→><→User→>a→"
        assert tokenizer.decode(ids, skip_special_tokens=True) == "<→User→>a→"

    @pytest.mark.parametrize("adds_space", [True, False])
    def test_sentencepiece(self, adds_space: bool, tmp_path: Path) -> None:
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "ab", "▁ab"]
        entries = {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.pre": "default",
            "tokenizer.ggml.tokens": pieces,
            "tokenizer.ggml.scores": [0.0] * 259 + [-1e9, -3.0, -4.0, -1.0, -2.0],
            "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * 5],
            "tokenizer.ggml.merges": None,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_space_prefix": adds_space,
        }
        path = write_model(tmp_path / "model.gguf", random_model("mistral"), mixed, metadata=entries)
        tokenizer = open_gguf(path).tokenizer()
        ids = tokenizer("ab\n")["input_ids"]
        assert ids == [1, pieces.index("▁ab" if adds_space else "ab"), pieces.index("<0x0A>")]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "ab\n"


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"general.architecture": "mamba"}, "architecture is 'mamba', which is not supported; supported are llama, qwen2, qwen3 (llama"),
        ({"llama.expert_count": 8}, "sets llama.expert_count to 8, which is not supported"),
        ({"llama.block_count": None}, "lack llama.block_count"),
        ({"llama.block_count": 3}, "blk.2.attn_norm.weight is missing"),
        ({"llama.block_count": "2"}, "llama.block_count is '2', and should be a whole number"),
        ({"llama.attention.head_count": 7}, "no shape of a model"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "should be a positive number"),
        ({"llama.attention.sliding_window": 64}, "sliding window"),
        ({"llama.rope.dimension_count": 32}, "rope.dimension_count is 32 and its heads have 64"),
        ({"llama.rope.scaling.type": "longrope"}, "'longrope' rotary scaling"),
        ({"llama.feed_forward_length": 512}, "blk.0.ffn_gate.weight has the shape (256, 256), and the metadata ask for (512, 256)"),
        ({"split.count": 3}, "llama-gguf-split --merge"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer is 't5'"),
        ({"tokenizer.ggml.pre": "strange"}, "by the rules 'strange', which are not supported"),
        ({"tokenizer.ggml.tokens": TOKENS[:-1]}, "token types for"),
        ({"tokenizer.ggml.tokens": [*TOKENS[:-1], "a"]}, "a token twice"),
        ({"tokenizer.ggml.merges": ["one"]}, "does not join two"),
        ({"tokenizer.ggml.merges": None}, "without merges"),
        ({"tokenizer.ggml.merges": ["no such"]}, "no tokenizer could be made"),
        ({"tokenizer.ggml.eos_token_id": 5000}, "eos_token_id is 5000"),
        ({"tokenizer.chat_template": 5}, "chat_template is 5, and should be text"),
    ],
)
def test_metadata_that_are_refused(metadata: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", random_model("llama"), mixed, metadata=metadata)
    with pytest.raises(InvalidInput) as refusal:
        Target.load(str(path), device="cpu")
    assert said in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_tensors_that_are_refused(tmp_path: Path) -> None:
    def add(name: str, array: np.ndarray, kind: str | None = None) -> Any:
        return lambda writer: writer.add_tensor(name, array, raw_dtype=None if kind is None else GGMLQuantizationType[kind])

    strange = np.zeros((4, 18), np.uint8)
    for options, said in (
        ({"skip": ("blk.1.ffn_up.weight",)}, "the tensor blk.1.ffn_up.weight is missing"),
        ({"change": add("blk.0.extra.weight", np.zeros(4, np.float32))}, "blk.0.extra.weight has no place"),
        ({"change": add("blk.0.extra.weight", strange, "IQ4_NL")}, "blk.0.extra.weight is of type IQ4_NL, which is not supported"),
        ({"change": add("rope_freqs.weight", np.zeros(32, np.float32))}, "no positive numbers"),
        ({"change": add("rope_freqs.weight", np.ones(31, np.float32))}, "rope_freqs.weight has the shape (31,)"),
    ):
        path = write_model(tmp_path / "model.gguf", random_model("llama"), mixed, **options)
        with pytest.raises(InvalidInput) as refusal:
            Target.load(str(path), device="cpu")
        assert said in str(refusal.value)


def test_layers_are_quantised_where_the_file_is(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", random_model("qwen2"), lambda name: "Q5_0" if "attn_k" in name else "F16")
    source = open_gguf(path)
    model = source.load(torch.float32, torch.device("cpu"), keep_blocks=True, attention="sdpa")
    quantized = [name for name, module in model.named_modules() if isinstance(module, (QuantizedLinear, QuantizedEmbedding))]
    assert quantized == [f"model.layers.{index}.self_attn.k_proj" for index in range(2)]
    assert source.kinds == {"Q5_0"}


def test_a_file_can_be_trained_for(tmp_path: Path) -> None:
    """Its features are those of the values in the file, and gradients pass its head."""
    model = random_model("qwen3")
    target = load_frozen_target(str(write_model(tmp_path / "model.gguf", model, mixed)), dtype="float32", device="cpu")
    with torch.inference_mode():
        states = model(torch.tensor([PROMPT]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(tapped_features(target, [PROMPT], (0,))[0], states[1][0], atol=2e-4, rtol=2e-4)
    hidden = torch.zeros((1, target.hidden_size), requires_grad=True)
    target.head(hidden).sum().backward()
    assert hidden.grad is not None
