"""Finds, checks and loads the model that is to be accelerated. What cannot be served exactly is refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.linear import has_bfloat16_instructions, pack_linears
from hoarfrost.models import SHIPPED
from hoarfrost.target.blocks import Stack
from hoarfrost.target.fusing import fuse
from hoarfrost.target.gguf import GGUFModel
from hoarfrost.target.packed import ATTENTION_NAME, packed_attention
from hoarfrost.target.quantized import quantize_layers

SUPPORTED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
# These rescale all frequencies by the longest position of the call, so a token's keys would depend on how the prompt was cut.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = ("auto", "int8", "float")


def pick_device(name: str) -> torch.device:
    """`auto` is the accelerator that torch finds, else the CPU."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InvalidInput(f"Device {name!r} cannot be used here ({str(error).splitlines()[0]}); try 'cpu' or 'auto'.") from None
    return device


def has_native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return has_bfloat16_instructions()
    return device.type in ("xpu", "hpu")


def pick_dtype(name: str, device: torch.device, *, quantized: bool = False) -> torch.dtype:
    """`auto` is bfloat16 where the device multiplies it natively, and between layers whose weights are quantised; else float32."""
    if name == "auto":
        return torch.bfloat16 if quantized or has_native_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise InvalidInput(f"Unknown dtype {name!r}; choose one of auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def check_weights(weights: str, device: torch.device) -> None:
    """Raises `InvalidInput` for a way to hold weights that is not known, or not on this device."""
    if weights not in WEIGHTS:
        raise InvalidInput(f"Unknown weights {weights!r}; choose one of {', '.join(WEIGHTS)}.")
    if weights == "int8" and device.type != "cpu":
        raise InvalidInput(f"8-bit weights run on the CPU, not on {device}; take weights 'float' there, or device 'cpu'.")


def load_config(name: str) -> PreTrainedConfig:
    """The configuration of a folder, an alias or a hub id, if this project can serve the model exactly."""
    path = locate(name)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        shipped = ", ".join(SHIPPED)
        raise InvalidInput(
            f"No model {name!r}: it is no folder with a config.json, no shipped model ({shipped}), and the Hugging Face hub did not give "
            f"it ({str(error).strip().splitlines()[0]})."
        ) from None
    check_supported(config, name)
    return config


def locate(name: str) -> str:
    """Turns an alias into its folder; leaves folders and hub ids alone."""
    if name in SHIPPED and not Path(name).exists():
        folder = SHIPPED[name].target
        if not folder.exists():
            raise InvalidInput(f"This installation lacks the weights of {name!r} ({folder}); install the whole package again.")
        return str(folder)
    return name


def check_supported(config: PreTrainedConfig, name: str) -> None:
    if config.model_type not in SUPPORTED_MODEL_TYPES:
        raise InvalidInput(
            f"{name} is a {config.model_type!r} model, which is not supported; supported are {', '.join(SUPPORTED_MODEL_TYPES)} models."
        )
    foreign = sorted(set(getattr(config, "layer_types", None) or ()) - {"full_attention"})
    window = getattr(config, "sliding_window", None) if config.model_type == "mistral" else None
    if window is not None and window < config.max_position_embeddings:
        foreign = ["sliding_attention"]
    if foreign:
        raise InvalidInput(
            f"{name} has layers of kind {', '.join(foreign)}; only models with full attention in every layer are served exactly."
        )
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type in LENGTH_DEPENDENT_ROPE:
        raise InvalidInput(f"{name} uses {rope_type!r} rotary scaling, whose keys change with the length of the call; it is not supported.")


def load_model(
    name: str, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, weights: str = "auto"
) -> tuple[PreTrainedModel, Stack]:
    """Loads the weights and gives them, ready for inference, to the fastest stack; the model keeps what that does not take."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            locate(name), config=config, dtype=dtype, attn_implementation=ATTENTION_NAME, use_safetensors=True
        )
    except OSError as error:
        raise InvalidInput(f"The weights of {name!r} could not be loaded: {str(error).strip().splitlines()[0]}") from None
    model.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]
    return model, make_stack(model, weights)


def load_gguf(source: GGUFModel, dtype: torch.dtype, device: torch.device, weights: str) -> tuple[PreTrainedModel, Stack]:
    """Like `load_model`, out of a GGUF file."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    model = source.load(dtype, device, keep_blocks=keeps_blocks(device, weights), attention=ATTENTION_NAME)
    return model, make_stack(model, weights)


def keeps_blocks(device: torch.device, weights: str) -> bool:
    """Whether matrices that come in blocks stay in them."""
    return device.type == "cpu" and weights != "float"


def held_kinds(source: GGUFModel | None, device: torch.device, weights: str) -> set[str]:
    """The kinds of blocks that a model's matrices will be in; `source` is the GGUF file, if it comes out of one."""
    kept = source.kinds if source is not None and keeps_blocks(device, weights) else set()
    return kept | {"Q8_0"} if weights == "int8" else kept


def make_stack(model: PreTrainedModel, weights: str) -> Stack:
    """The fastest stack for `model`, all of whose matrices are put into 8-bit blocks first if `weights` is "int8"."""
    if weights == "int8":
        quantize_layers(model)
    stack = fuse(model)
    use_fused_norms(model)
    pack_linears(model)
    return stack


def load_tokenizer(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(locate(name))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"The tokenizer of {name!r} could not be loaded: {str(error).strip().splitlines()[0]}") from None


class FusedRMSNorm(nn.Module):
    """RMSNorm as one fused operation in place of transformers' five; rounds once where those round twice in half precision."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight: nn.Parameter = norm.weight  # type: ignore[assignment]
        self.eps: float = norm.variance_epsilon  # type: ignore[assignment]
        self.shape = tuple(self.weight.shape)

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.rms_norm(hidden, self.shape, self.weight, self.eps)


def use_fused_norms(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm") and hasattr(child, "variance_epsilon"):
                setattr(parent, name, FusedRMSNorm(child))
