"""Finds, checks and loads the model that is to be accelerated. What cannot be served exactly is refused with a sentence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import GENERATION_CONFIG_NAME

from hoarfrost.errors import InvalidInput
from hoarfrost.hub import Checkpoint, HubRefusal, find_checkpoint
from hoarfrost.kernels.linear import pack_linears
from hoarfrost.model_files import asks_for_own_code, check_files, quantisation_of, read_json_object, reason, weight_files
from hoarfrost.models import SHIPPED
from hoarfrost.target.blocks import Stack
from hoarfrost.target.checking import check_quantisation, check_tensors
from hoarfrost.target.fusing import fuse
from hoarfrost.target.gguf import SUFFIX as GGUF_SUFFIX
from hoarfrost.target.gguf import GGUFModel
from hoarfrost.target.packed import ATTENTION_NAME, packed_attention
from hoarfrost.target.quantized import QuantizedLinear, pack_vocabulary, quantize_layers

SUPPORTED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "qwen3_moe")
# These rescale all frequencies by the longest position of the call, so a token's keys would depend on how the prompt was cut.
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
WEIGHTS = ("auto", "int8", "float")
DESCRIPTIONS = ("*.json", "*.jinja", "*.txt", "*.model")  # of a repository: everything but the weights


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
    if device.type == "meta":
        raise InvalidInput("Device 'meta' holds no numbers, so nothing can be decoded there; try 'cpu' or 'auto'.")
    return device


def is_fast_in_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware, or, as a CPU, by kernels of ours that widen them as they read."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type in ("cpu", "xpu", "hpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where that is the faster type, else float32."""
    if name == "auto":
        return torch.bfloat16 if is_fast_in_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise InvalidInput(f"Unknown dtype {name!r}; choose one of auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def check_weights(weights: str, device: torch.device) -> None:
    """Raises `InvalidInput` for a way to hold weights that is not known, or not on this device."""
    if weights not in WEIGHTS:
        raise InvalidInput(f"Unknown weights {weights!r}; choose one of {', '.join(WEIGHTS)}.")
    if weights == "int8" and device.type != "cpu":
        raise InvalidInput(f"8-bit weights run on the CPU, not on {device}; take weights 'float' there, or device 'cpu'.")


def locate(name: str, revision: str | None = None) -> Checkpoint:
    """Finds a folder, a file, an alias (which is fetched if need be) or a hub id (of which the weights are left for later).

    A folder that has an alias' name is `./NAME`. Raises `InvalidInput` for what is nowhere.
    """
    if name in SHIPPED:
        return Checkpoint(name, SHIPPED[name].locate())
    if Path(name).exists() or name.endswith(GGUF_SUFFIX):
        return Checkpoint(name, Path(name))
    try:
        return find_checkpoint(name, DESCRIPTIONS, revision)
    except HubRefusal as refusal:
        raise InvalidInput(
            f"No model {name!r}: it is no folder with a config.json, no alias ({', '.join(SHIPPED)}), and {refusal}."
        ) from None


def load_config(source: Checkpoint) -> PreTrainedConfig:
    """The configuration of a model, if this project can serve it exactly."""
    with explained("configuration", source):
        config: PreTrainedConfig = AutoConfig.from_pretrained(source.path, trust_remote_code=False)
        check_supported(config, source.name)
        check_quantisation(config, source.name)
    return config


@contextmanager
def explained(part: str, source: Checkpoint) -> Iterator[None]:
    """Turns whatever a library raises on reading a part of a model into a sentence that names the damaged file, if one is."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # on a damaged or hostile file, anything
        check_files(source.path)
        own_code = " It asks for code of its own (auto_map), which is never run." if asks_for_own_code(source.path) else ""
        raise InvalidInput(
            f"The {part} of {source.name!r} cannot be used ({reason(error)}).{own_code} Take another model, or other files of it."
        ) from None


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
    source: Checkpoint, config: PreTrainedConfig, dtype: torch.dtype, device: torch.device, weights: str = "auto"
) -> tuple[PreTrainedModel, Stack]:
    """Loads the weights and gives them, ready for inference, to the fastest stack; the model keeps what that does not take."""
    AttentionInterface.register(ATTENTION_NAME, packed_attention)
    model = load_weights(source, config, dtype, ATTENTION_NAME)
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
    pack_vocabulary(model)
    stack = fuse(model)
    use_fused_norms(model)
    pack_linears(model, (nn.Linear, QuantizedLinear))
    return stack


def load_weights(source: Checkpoint, config: PreTrainedConfig, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """transformers' model with exactly the weights that `config` describes, from safetensors; see `check_tensors`."""
    scheme = quantisation_of(vars(config))
    model: PreTrainedModel
    loading_info: dict[str, Any]
    try:
        source.fetch(weight_files(source.path))
    except HubRefusal as refusal:
        raise InvalidInput(f"The weights of {source.name!r} cannot be had: {refusal}.") from None
    with explained("weights" if scheme is None else f"weights, quantised ({scheme!r}),", source), quiet_report():
        model, loading_info = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]
            source.path,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # reported, and refused with the missing ones
            output_loading_info=True,
        )
        check_tensors(model, loading_info, source.name)
        if (source.path / GENERATION_CONFIG_NAME).exists():
            read_json_object(source.path / GENERATION_CONFIG_NAME)  # where it is broken, transformers makes up another
    return model


@contextmanager
def quiet_report() -> Iterator[None]:
    """Keeps transformers' table of missing and unexpected tensors from the terminal: what matters in it is refused."""
    logger = logging.getLogger("transformers.modeling_utils")
    before, logger.disabled = logger.disabled, True  # a higher level would have transformers say other things
    try:
        yield
    finally:
        logger.disabled = before


def load_tokenizer(source: Checkpoint) -> Any:
    """The model's tokenizer. Raises `InvalidInput` if its files are damaged, or missing, which transformers makes an empty one of."""
    with explained("tokenizer", source):
        tokenizer: Any = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
            raise InvalidInput(
                f"{source.name} has no tokenizer (tokenizer.json), or one without words; put the model's own beside its weights."
            )
    return tokenizer


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
