"""The configuration of a model out of a GGUF file's metadata: what its `config.json` and `generation_config.json` would say.

Sizes are the file's. What would change the model's output and is not known here is refused by name, never left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, GenerationConfig, PreTrainedConfig

from hoarfrost.target.gguf.header import GGUFFile, short

ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
ROPE_FREQUENCIES = "rope_freqs.weight"
END_TOKENS = ("eos", "eot", "eom")
# Hyper-parameters of relatives of these architectures that change what a layer computes.
FOREIGN_KEYS = (
    "attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale", "attention.temperature_scale", "attn_logit_softcapping",
    "embedding_scale", "expert_count", "final_logit_softcapping", "logit_scale", "nextn_predict_layers", "residual_scale",
    "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_log_multiplier",
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The sizes that tell how the file's rows are arranged."""

    architecture: str
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int


def read_shape(file: GGUFFile) -> Shape:
    """Raises `InvalidInput` for an architecture that is not served and for sizes that cannot be."""
    architecture = file.text("general.architecture")
    if file.metadata.get("split.count", 1) not in (0, 1):
        file.fail("it is one part of a split model; join the parts with `llama-gguf-split --merge` and name the whole file.")
    if architecture not in ARCHITECTURES:
        known = f"{', '.join(ARCHITECTURES)} (llama files hold Mistral models too)"
        file.fail(f"its architecture is {short(architecture)}, which is not supported; supported are {known}.")
    num_layers = file.integer(f"{architecture}.block_count", least=1, most=1 << 12)
    width = file.integer(f"{architecture}.embedding_length", least=1)
    num_heads = file.integer(f"{architecture}.attention.head_count", least=1, most=1 << 12)
    num_kv_heads = file.integer(f"{architecture}.attention.head_count_kv", num_heads, least=1, most=1 << 12)
    head_dim = file.integer(f"{architecture}.attention.key_length", width // num_heads, least=2, most=1 << 12)
    if num_heads % num_kv_heads or head_dim % 2:
        file.fail(f"{num_heads} heads of {head_dim} over {num_kv_heads} key and value heads are no shape of a model: it is damaged.")
    for key in ("attention.value_length", "rope.dimension_count"):
        other = file.integer(f"{architecture}.{key}", head_dim)
        if other != head_dim:
            file.fail(f"{key} is {other} and its heads have {head_dim} entries; only equal ones are supported.")
    return Shape(architecture, num_layers, num_heads, num_kv_heads, head_dim)


def read_config(file: GGUFFile, shape: Shape) -> PreTrainedConfig:
    """Raises `InvalidInput` for what the metadata lack, state wrongly, or ask for and is not served."""
    prefix = shape.architecture
    foreign = sorted(key for key in FOREIGN_KEYS if file.metadata.get(f"{prefix}.{key}"))
    if foreign:
        file.fail(f"it sets {prefix}.{foreign[0]} to {short(file.metadata[f'{prefix}.{foreign[0]}'])}, which is not supported.")
    context = file.integer(f"{prefix}.context_length", least=1, most=1 << 31)
    if file.integer(f"{prefix}.attention.sliding_window", context, most=1 << 32) not in (0, context):
        file.fail("its layers attend to a sliding window; only models with full attention in every layer are served exactly.")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        file.fail("the tensor token_embd.weight is missing.")
    values = dict(
        architectures=[ARCHITECTURES[prefix]],
        vocab_size=embedding.shape[0],
        hidden_size=file.integer(f"{prefix}.embedding_length", least=1),
        intermediate_size=file.integer(f"{prefix}.feed_forward_length", least=1),
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=file.number(f"{prefix}.attention.layer_norm_rms_epsilon"),
        max_position_embeddings=context,
        rope_parameters=_rope(file, prefix, context),
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        mlp_bias="blk.0.ffn_up.bias" in file.tensors,
        tie_word_embeddings="output.weight" not in file.tensors,
        **_special_tokens(file, embedding.shape[0]),
    )
    try:
        return AutoConfig.for_model(prefix, **values)
    except Exception as error:  # transformers' checks raise kinds of their own
        reason = " ".join(str(error).split())
        file.fail(f"its metadata make no configuration of a {prefix} model ({reason}).")


def read_generation_config(file: GGUFFile, vocab_size: int) -> GenerationConfig:
    """Every token that the file names as an end (of the text, of a turn, of a message) ends a text."""
    ends = {token_id for name in END_TOKENS if (token_id := _token_id(file, name, vocab_size)) is not None}
    tokens = {**_special_tokens(file, vocab_size), "eos_token_id": sorted(ends) or None}
    return GenerationConfig(**tokens)  # type: ignore[no-untyped-call]


def _special_tokens(file: GGUFFile, vocab_size: int) -> dict[str, int | None]:
    names = {"bos": "bos", "eos": "eos", "padding": "pad"}
    return {f"{ours}_token_id": _token_id(file, name, vocab_size) for name, ours in names.items()}


def _token_id(file: GGUFFile, name: str, vocab_size: int) -> int | None:
    key = f"tokenizer.ggml.{name}_token_id"
    return file.integer(key, most=vocab_size - 1) if key in file.metadata else None


def _rope(file: GGUFFile, prefix: str, context: int) -> dict[str, Any]:
    """Rotary settings. Frequencies that come as a tensor (Llama 3.1's) are laid over the plain ones when the weights are read."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": file.number(f"{prefix}.rope.freq_base", 10000.0)}
    scaling = f"{prefix}.rope.scaling."
    kind = file.text(f"{scaling}type", "none")
    if f"{prefix}.rope.scale_linear" in file.metadata:
        kind, factor = "linear", file.number(f"{prefix}.rope.scale_linear")
    else:
        factor = file.number(f"{scaling}factor", 1.0)
    if kind == "none" or (kind == "linear" and factor == 1):
        return rope
    if ROPE_FREQUENCIES in file.tensors:
        file.fail(f"it has both the rotary scaling {short(kind)} and {ROPE_FREQUENCIES}, which is not supported together.")
    if kind == "linear":
        return {**rope, "rope_type": "linear", "factor": factor}
    if kind != "yarn":
        file.fail(f"it uses {short(kind)} rotary scaling, which is not supported; supported are none, linear, yarn and {ROPE_FREQUENCIES}.")
    rope |= {"rope_type": "yarn", "factor": factor}
    rope["original_max_position_embeddings"] = file.integer(f"{scaling}original_context_length", context, least=1, most=1 << 31)
    rope |= {name: file.number(f"{scaling}yarn_{name}") for name in ("beta_fast", "beta_slow") if f"{scaling}yarn_{name}" in file.metadata}
    _refuse(file, {f"{scaling}attn_factor", f"{scaling}yarn_attn_factor"})
    return rope


def _refuse(file: GGUFFile, keys: Collection[str]) -> None:
    for key in keys:
        if file.number(key, 1.0) != 1:
            file.fail(f"it sets {key} to {short(file.metadata[key])}, which is not supported.")
