"""The weights of a GGUF file as a transformers model: matrices in blocks stay as the file maps them, or are taken apart at load.

The model is built without memory, then every layer that has weights is replaced by one that holds the file's. A tensor that is missing, has
another shape than the configuration asks for, or has no place in the model is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, TensorNameMap, get_tensor_name_map
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from hoarfrost.kernels.quantized import QuantizedWeight, to_float
from hoarfrost.target.gguf.config import ROPE_FREQUENCIES, Shape
from hoarfrost.target.gguf.header import GGUFFile
from hoarfrost.target.quantized import QuantizedEmbedding, QuantizedLinear

BLOCK_KINDS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")
FLOAT_KINDS = ("F32", "F16", "BF16")


def block_kinds(file: GGUFFile) -> set[str]:
    """The kinds of blocks that its tensors are in."""
    return {place.kind for place in file.tensors.values()} & set(BLOCK_KINDS)


def check_kinds(file: GGUFFile) -> None:
    """Raises `InvalidInput` for tensors of types that are not read."""
    for name, place in file.tensors.items():
        if place.kind not in (*BLOCK_KINDS, *FLOAT_KINDS):
            known = ", ".join((*BLOCK_KINDS, *FLOAT_KINDS))
            file.fail(f"its tensor {name} is of type {place.kind}, which is not supported; take a file of the types {known}.")


def read_model(
    file: GGUFFile, shape: Shape, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, *, keep_blocks: bool, attention: str
) -> PreTrainedModel:
    """The model on `device`, everything that is not in blocks in `dtype`; `attention` as transformers calls it. `keep_blocks` keeps
    matrices as they are, on the CPU."""
    check_kinds(file)
    _check_layers(file, shape)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=dtype, attn_implementation=attention
        )
    _Filling(file, shape, dtype, device, keep_blocks).fill(model)
    decoder: Any = model.base_model
    decoder.rotary_emb = _rotary(file, shape, type(decoder.rotary_emb)(config)).to(device)
    return model


def interleaved_rows(num_heads: int, head_dim: int) -> NDArray[np.intp]:
    """Where each row of a transformers projection stands in a llama file, whose rotary pairs are neighbours, not half a head apart."""
    return np.arange(num_heads * head_dim).reshape(num_heads, head_dim // 2, 2).swapaxes(1, 2).ravel()


class _Filling:
    """Fills one model from one file."""

    def __init__(self, file: GGUFFile, shape: Shape, dtype: torch.dtype, device: torch.device, keep_blocks: bool) -> None:
        self._file, self._dtype, self._device, self._keeps_blocks = file, dtype, device, keep_blocks
        architecture = next(kind for kind in MODEL_ARCH if MODEL_ARCH_NAMES[kind] == shape.architecture)
        self._names: TensorNameMap = get_tensor_name_map(architecture, shape.num_layers)
        self._left = set(file.tensors) - {ROPE_FREQUENCIES}
        self._rows: dict[str, NDArray[np.intp]] = {}
        if shape.architecture == "llama":
            self._rows = {
                "q_proj": interleaved_rows(shape.num_heads, shape.head_dim),
                "k_proj": interleaved_rows(shape.num_kv_heads, shape.head_dim),
            }

    def fill(self, model: PreTrainedModel) -> None:
        for name, module in list(model.named_modules()):
            if isinstance(module, nn.Embedding):
                model.set_submodule(name, self._embedding(f"{name}.weight", tuple(module.weight.shape)))
            elif isinstance(module, nn.Linear) and not (name == "lm_head" and model.config.tie_word_embeddings):
                model.set_submodule(name, self._linear(name, module))
            elif isinstance(getattr(module, "weight", None), nn.Parameter) and not isinstance(module, nn.Linear):
                module.weight = nn.Parameter(self._floats(f"{name}.weight", tuple(module.weight.shape)), requires_grad=False)
        if model.config.tie_word_embeddings:
            model.set_submodule("lm_head", self._tied_head(model.get_input_embeddings()))
        if self._left:
            self._file.fail(f"its tensor {min(self._left)} has no place in a model of its architecture; {len(self._left)} such.")

    def _embedding(self, name: str, shape: tuple[int, ...]) -> nn.Module:
        weight = self._take(name, shape)
        if self._stays(weight):
            return QuantizedEmbedding(weight, self._dtype)
        return nn.Embedding.from_pretrained(self._to_float(weight))  # type: ignore[no-untyped-call, no-any-return]

    def _linear(self, name: str, module: nn.Linear) -> nn.Module:
        weight = self._take(f"{name}.weight", tuple(module.weight.shape))
        rows = self._rows.get(name.rpartition(".")[2])
        if rows is not None:
            weight = QuantizedWeight(weight.kind, weight.blocks[rows], weight.num_inputs)
        bias = None
        if module.bias is not None and (self._in_file(f"{name}.bias") in self._left or not name.endswith("o_proj")):
            bias = self._floats(f"{name}.bias", tuple(module.bias.shape))
            bias = bias if rows is None else bias[rows]
        return QuantizedLinear(weight, bias) if self._stays(weight) else float_linear(self._to_float(weight), bias)

    def _tied_head(self, embedding: Any) -> nn.Module:
        if isinstance(embedding, QuantizedEmbedding):
            return QuantizedLinear(embedding.weight)
        return float_linear(embedding.weight, None)

    def _floats(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self._to_float(self._take(name, shape)).view(shape)

    def _take(self, name: str, shape: tuple[int, ...]) -> QuantizedWeight:
        """The tensor that transformers calls `name`; one of a single dimension as a matrix of one row."""
        ours = self._in_file(name)
        place = self._file.tensors.get(ours)
        if place is None:
            self._file.fail(f"the tensor {ours} is missing.")
        if place.shape != shape:
            self._file.fail(f"the tensor {ours} has the shape {place.shape}, and the metadata ask for {shape}.")
        self._left.discard(ours)
        raw = self._file.raw(ours)
        return QuantizedWeight(place.kind, raw.reshape(-1, raw.shape[-1]), shape[-1])

    def _in_file(self, name: str) -> str:
        found = self._names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        return found

    def _stays(self, weight: QuantizedWeight) -> bool:
        return self._keeps_blocks and weight.kind in BLOCK_KINDS

    def _to_float(self, weight: QuantizedWeight) -> Tensor:
        return to_float(weight, self._dtype).to(self._device)


def float_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer around these tensors."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear


def _check_layers(file: GGUFFile, shape: Shape) -> None:
    """Before a model of so many layers is built."""
    missing: Sequence[str] = [name for index in range(shape.num_layers) if (name := f"blk.{index}.attn_norm.weight") not in file.tensors]
    if missing:
        file.fail(f"the tensor {missing[0]} is missing, and with it {len(missing)} of {shape.num_layers} layers.")


def _rotary(file: GGUFFile, shape: Shape, rotary: Any) -> nn.Module:
    """`rotary`, its frequencies divided by those of the file, if it has any."""
    module: nn.Module = rotary
    place = file.tensors.get(ROPE_FREQUENCIES)
    if place is None:
        return module
    if place.shape != (shape.head_dim // 2,):
        file.fail(
            f"the tensor {ROPE_FREQUENCIES} has the shape {place.shape}, and heads of {shape.head_dim} ask for {shape.head_dim // 2}."
        )
    factors = to_float(QuantizedWeight(place.kind, file.raw(ROPE_FREQUENCIES)[None], shape.head_dim // 2), torch.float32)[0]
    if not bool((factors > 0).all() & factors.isfinite().all()):
        file.fail(f"the tensor {ROPE_FREQUENCIES} holds values that are no positive numbers.")
    rotary.inv_freq = rotary.inv_freq / factors
    rotary.original_inv_freq = rotary.inv_freq.clone()
    return module
