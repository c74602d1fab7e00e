"""Tiny GGUF files out of random transformers models, written with the `gguf` package as llama.cpp's converter lays them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import CHAT_TEMPLATE, SPECIAL_TOKENS, tiny_config
from gguf import GGMLQuantizationType, GGUFWriter, dequantize, get_tensor_name_map, quantize
from gguf.constants import GGML_QUANT_SIZES, MODEL_ARCH, MODEL_ARCH_NAMES
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel

KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "F16", "BF16", "F32")
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
SCALES_AT = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}  # bytes of the float16 scales in a block
MERGES = ["Ġ t", "h e", "Ġt he", "Ġ 1"]
TOKENS = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
NUM_ROWS = 272  # of the embedding: more than there are tokens, as in padded models

Change = Callable[[GGUFWriter], None]


def random_model(architecture: str, **changes: Any) -> PreTrainedModel:
    """A random model whose matrices fall into blocks of 256."""
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": NUM_ROWS, "initializer_range": 0.08}
    config = tiny_config(architecture, **{**sizes, **changes})
    config.head_dim = 128 if architecture == "qwen3" else 64  # Qwen3's are not width / heads
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return model.eval()


def blocks_of(matrix: np.ndarray, kind: str) -> np.ndarray:
    """The matrix in blocks, which `gguf` can make of all kinds but those of 256: for these, random blocks of about its scale."""
    if kind not in SCALES_AT:
        return quantize(matrix, GGMLQuantizationType[kind])
    block_size, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    generator = np.random.default_rng(matrix.size)
    blocks = generator.integers(0, 256, (matrix.size // block_size, block_bytes), dtype=np.uint8)
    for at in SCALES_AT[kind]:
        blocks[:, at : at + 2] = generator.uniform(1e-5, 1e-4, (len(blocks), 1)).astype(np.float16).view(np.uint8)
    return blocks.reshape(len(matrix), -1)


def write_model(
    path: Path,
    model: PreTrainedModel,
    kind_of: Callable[[str], str],
    *,
    change: Change | None = None,
    metadata: dict[str, Any] | None = None,
    skip: tuple[str, ...] = (),
) -> Path:
    """Writes `model` in the kinds that `kind_of` gives for its matrices' names in the file, and leaves the model with the values written.

    `metadata` replaces entries (None leaves one out); `change` adds to the file; `skip` names tensors that are left out.
    """
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(path, architecture)
    for key, value in {**model_metadata(config, architecture), **tokenizer_metadata(), **(metadata or {})}.items():
        _add(writer, key, value)
    names = get_tensor_name_map(next(kind for kind in MODEL_ARCH if MODEL_ARCH_NAMES[kind] == architecture), config.num_hidden_layers)
    for name, parameter in model.named_parameters():
        ours = names.get_name(name, (".weight", ".bias"))
        assert ours is not None
        if ours in skip:
            continue
        kind = kind_of(ours) if parameter.ndim == 2 else "F32"
        blocks = blocks_of(parameter.detach().numpy(), kind)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.array(dequantize(blocks, GGMLQuantizationType[kind]))).view_as(parameter))
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            blocks = interleave(blocks, config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads)
        writer.add_tensor(ours, blocks, raw_dtype=GGMLQuantizationType[kind])
    if change is not None:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleave(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """The converter's order of rows for llama's rotation of neighbouring pairs."""
    return np.ascontiguousarray(rows.reshape(num_heads, 2, len(rows) // num_heads // 2, -1).swapaxes(1, 2).reshape(rows.shape))


def model_metadata(config: Any, architecture: str) -> dict[str, Any]:
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_parameters["rope_theta"],
    }
    if config.head_dim != config.hidden_size // config.num_attention_heads:
        values |= {"attention.key_length": config.head_dim, "attention.value_length": config.head_dim}
    return {f"{architecture}.{key}": value for key, value in values.items()}


def tokenizer_metadata() -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3 if token in SPECIAL_TOKENS else 1 for token in TOKENS],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.eos_token_id": TOKENS.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": TOKENS.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif value is not None:
        writer.add_array(key, value)
