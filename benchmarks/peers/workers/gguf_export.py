"""Writes a Llama, Mistral, Qwen2 or Qwen3 checkpoint as a GGUF file, in float32 or bfloat16, with numpy and the `gguf` package alone.

Matrices are written in the type asked for, norms and biases in float32, as llama.cpp expects them. The vocabulary of a byte-level BPE
tokenizer goes along, for llama.cpp cannot decode without one; prompts are handed over as ids, so how text is split does not matter here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
STORED_TYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def export(model: Path, out: Path, dtype: str) -> None:
    """Writes the checkpoint folder `model` to the file `out`; raises ValueError for a model type without a mapping here."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] not in ARCHITECTURES:
        raise ValueError(f"the export to GGUF knows {', '.join(ARCHITECTURES)}, not {config['model_type']}")
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[architecture])
    _add_settings(writer, config, dtype)
    _add_vocabulary(writer, model, config["vocab_size"])
    names = gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])
    for name, weights in _read_weights(model):
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        new_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new_name is None:
            raise ValueError(f"GGUF has no name for the tensor {name}")
        if architecture == gguf.MODEL_ARCH.LLAMA and name.endswith(("q_proj.weight", "k_proj.weight")):
            weights = interleave_halves(weights, head_dim(config))
        if dtype == "bfloat16" and weights.ndim == 2:
            data = gguf.quantize(weights, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(new_name, data, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(new_name, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_settings(writer: gguf.GGUFWriter, config: dict[str, Any], dtype: str) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(head_dim(config))
    writer.add_value_length(head_dim(config))
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if dtype == "bfloat16" else gguf.LlamaFileType.ALL_F32)


def head_dim(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def interleave_halves(weights: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Query or key rows `[heads * head_dim, width]` as llama.cpp wants Llama's: it rotates neighbours, transformers the two halves."""
    heads = weights.reshape(-1, 2, head_dim // 2, weights.shape[-1])
    return np.ascontiguousarray(heads.swapaxes(1, 2).reshape(weights.shape))


def rope_theta(config: dict[str, Any]) -> float:
    """Where transformers 5 writes it, else where transformers 4 did. Raises ValueError for scaled rotary positions."""
    parameters = config.get("rope_parameters") or {}
    if parameters.get("rope_type", "default") != "default" or config.get("rope_scaling"):
        raise ValueError("scaled rotary positions are not exported")
    return float(parameters.get("rope_theta") or config["rope_theta"])


def _add_vocabulary(writer: gguf.GGUFWriter, model: Path, vocab_size: int) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = [f"[unused {index}]" for index in range(vocab_size)]
    types = [gguf.TokenType.UNUSED] * vocab_size
    for token, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], gguf.TokenType.CONTROL
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)


def _read_weights(model: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every tensor of the folder's safetensors files in float32; bfloat16, which numpy lacks, is the upper half of it."""
    files = sorted(model.glob("*.safetensors"))
    if not files:
        raise ValueError(f"{model} has no safetensors file")
    for path in files:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        length = int(content[:8].view("<u8")[0])
        header = json.loads(content[8 : 8 + length].tobytes())
        header.pop("__metadata__", None)
        for name, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            stored = np.frombuffer(content[start:end].tobytes(), STORED_TYPES[entry["dtype"]]).reshape(entry["shape"])
            is_bfloat16 = entry["dtype"] == "BF16"
            yield name, (stored.astype("<u4") << 16).view("<f4") if is_bfloat16 else stored.astype("<f4")
