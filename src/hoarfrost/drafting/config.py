"""The configuration of a DFlash drafter, as it stands in the `config.json` of a released checkpoint (arXiv 2602.06036, z-lab).

Checkpoints of different months keep the same keys in different places: every key is looked up in `dflash_config` first, then at the top
level, then there is a default. Rotary settings come in an old spelling (`rope_theta`, `rope_scaling`) and a new one (`rope_parameters`).

DFlash 2 adds two parts, each by two keys: convolutions around every sublayer, and a candidate selector. A released DFlash 2 checkpoint has
both; either may stand alone here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hoarfrost.errors import InvalidInput

FULL, SLIDING = "full_attention", "sliding_attention"
# The others rescale their frequencies with the length of the call, so context keys could not be cached for good.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
COUNTS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size",
    "max_position_embeddings", "num_target_layers", "sliding_window",
    "conv_kernel_size", "conv_group_size", "selector_rank", "selector_top_k", "draft_vocab_size",
)  # fmt: skip
CONVOLUTION, SELECTOR = ("conv_kernel_size", "conv_group_size"), ("selector_rank", "selector_top_k")
FACTORS = ("rms_norm_eps", "input_embedding_scale", "output_multiplier", "final_logit_softcapping")
REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "mask_token_id")
OPTIONAL_PLAIN = (
    "max_position_embeddings", "rms_norm_eps", "attention_bias", "num_target_layers", "is_causal",
    "block_size", "input_embedding_scale", "output_multiplier", "final_logit_softcapping", *CONVOLUTION, *SELECTOR,
    "draft_vocab_size",
)  # fmt: skip


@dataclass(frozen=True)
class DFlashConfig:
    """Sizes and conventions of one drafter. The field names are those of `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    mask_token_id: int
    target_layer_ids: tuple[int, ...]
    """Decoder layers of the target whose outputs are fused; id l is the output of layer l, that is `hidden_states[l + 1]`."""
    num_target_layers: int | None = None
    block_size: int = 16
    """Slots of a block: the bonus token and `block_size - 1` guesses."""
    max_position_embeddings: int = 40960
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    rope_parameters: Mapping[str, Any] = field(default_factory=lambda: {"rope_type": "default", "rope_theta": 1e6})
    layer_types: tuple[str, ...] = ()
    """`full_attention` or `sliding_attention` for each layer; empty: all full."""
    sliding_window: int | None = None
    is_causal: bool | None = None
    """Whether a slot sees only earlier slots of its block; None: in sliding layers only."""
    input_embedding_scale: float = 1.0
    output_multiplier: float = 1.0
    final_logit_softcapping: float | None = None
    conv_kernel_size: int | None = None
    """Taps of the convolutions around attention and MLP, the slot itself counted; None: there are none."""
    conv_group_size: int | None = None
    """Neighbouring channels that share the dynamic part of a convolution's kernel."""
    selector_rank: int | None = None
    """Width of the candidate selector's codebooks; None: there is no selector."""
    selector_top_k: int | None = None
    """Candidates per slot that the selector weighs against each other."""
    draft_vocab_size: int | None = None
    """How many tokens can be guessed, those of the tensor `d2t` (see `vocabulary`); None: all of the vocabulary."""

    def __post_init__(self) -> None:
        if not self.layer_types:
            object.__setattr__(self, "layer_types", (FULL,) * self.num_hidden_layers)
        _check_types(vars(self))
        _check_sizes(self)
        _check_attention(self)
        _check_extensions(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DFlashConfig:
        """Reads the parsed `config.json`. Raises `InvalidInput` with the key at fault."""
        nested = values.get("dflash_config") or {}  # a null in there is no value: the top level decides
        if not isinstance(nested, Mapping):
            raise InvalidInput(f"The drafter's dflash_config is {nested!r}; it must be an object, or be left out.")
        found = {**values, **{key: value for key, value in nested.items() if value is not None}}
        missing = [key for key in REQUIRED if found.get(key) is None]
        if missing:
            raise InvalidInput(
                f"The drafter's config.json lacks {', '.join(missing)} (looked for in dflash_config and at the top level); "
                "take a released DFlash checkpoint, or add the keys."
            )
        if found.get("hidden_act", "silu") != "silu":
            raise InvalidInput(
                f"The drafter's hidden_act is {found['hidden_act']!r}; DFlash drafters use 'silu', and nothing else is supported."
            )
        _check_types(found)
        _check_architecture(found)
        heads = found["num_attention_heads"]
        optional = {key: found[key] for key in OPTIONAL_PLAIN if found.get(key) is not None}
        return cls(
            **{key: found[key] for key in REQUIRED},
            **optional,
            num_key_value_heads=found.get("num_key_value_heads") or heads,
            head_dim=found.get("head_dim") or found["hidden_size"] // heads,
            target_layer_ids=_tap_ids(found),
            rope_parameters=_rope_parameters(found),
            layer_types=tuple(found.get("layer_types") or ()),
            sliding_window=found.get("sliding_window") if found.get("use_sliding_window", True) else None,
        )

    def to_json(self) -> dict[str, Any]:
        """The keys of a released checkpoint's `config.json`. There is no `auto_map`: no Python file travels with the weights."""
        rope = dict(self.rope_parameters)
        theta = rope.pop("rope_theta")
        extras: dict[str, Any] = {"is_causal": self.is_causal} if self.is_causal is not None else {}
        optional: dict[str, Any] = {
            "input_embedding_scale": None if self.input_embedding_scale == 1.0 else self.input_embedding_scale,
            "output_multiplier": None if self.output_multiplier == 1.0 else self.output_multiplier,
            "final_logit_softcapping": self.final_logit_softcapping,
            **{key: getattr(self, key) for key in (*CONVOLUTION, *SELECTOR)},
        }
        # A selector alone makes no DFlash 2 for other readers, but they can take its network for the plain drafter that it is.
        return {
            "architectures": ["DFlash2DraftModel" if self.conv_kernel_size and self.selector_rank else "DFlashDraftModel"],
            "model_type": "qwen3",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_target_layers": self.num_target_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": theta,
            "rope_scaling": None if rope["rope_type"] == "default" else rope,
            "max_position_embeddings": self.max_position_embeddings,
            "attention_bias": self.attention_bias,
            "hidden_act": "silu",
            "layer_types": list(self.layer_types),
            "sliding_window": self.sliding_window,
            "use_sliding_window": self.sliding_window is not None,
            "vocab_size": self.vocab_size,
            **({} if self.draft_vocab_size is None else {"draft_vocab_size": self.draft_vocab_size}),
            "tie_word_embeddings": False,
            "block_size": self.block_size,
            **extras,
            "dflash_config": {
                "mask_token_id": self.mask_token_id,
                "target_layer_ids": list(self.target_layer_ids),
                **{key: value for key, value in optional.items() if value is not None},
            },
        }

    def is_causal_in(self, layer: int) -> bool:
        """Whether the slots of a block see only themselves and earlier slots in `layer`."""
        return self.layer_types[layer] == SLIDING if self.is_causal is None else self.is_causal

    def window_of(self, layer: int) -> int | None:
        """Keys this many positions away, or more, are out of sight in `layer`; None: nothing is."""
        return self.sliding_window if self.layer_types[layer] == SLIDING else None


def default_tap_ids(num_target_layers: int, num_taps: int) -> tuple[int, ...]:
    """The official choice of layers: evenly from the second to the third last; the middle one if there is only one tap."""
    if num_taps == 1:
        return (num_target_layers // 2,)
    return tuple(round(1 + i * (num_target_layers - 4) / (num_taps - 1)) for i in range(num_taps))


def _tap_ids(found: Mapping[str, Any]) -> tuple[int, ...]:
    if found.get("target_layer_ids"):
        return tuple(found["target_layer_ids"])
    if found.get("num_target_layers") is None:
        raise InvalidInput("The drafter's config.json has neither target_layer_ids nor num_target_layers, one of which is needed; add one.")
    return default_tap_ids(found["num_target_layers"], found["num_hidden_layers"])


def _rope_parameters(found: Mapping[str, Any]) -> dict[str, Any]:
    rope = dict(found.get("rope_parameters") or found.get("rope_scaling") or {})
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise InvalidInput("The drafter's rope_parameters differ by layer type, which is not supported; one set for all layers is.")
    rope["rope_type"] = rope.get("rope_type") or rope.pop("type", None) or "default"
    rope.pop("type", None)
    rope["rope_theta"] = rope.get("rope_theta") or found.get("rope_theta") or 10000.0
    partial = rope.pop("partial_rotary_factor", None) or found.get("partial_rotary_factor") or 1.0
    if rope["rope_type"] not in ROPE_TYPES or partial != 1.0:
        kind = f"rope_type {rope['rope_type']!r}" if partial == 1.0 else f"partial_rotary_factor {partial}"
        raise InvalidInput(f"The drafter uses {kind}, which is not supported; {', '.join(ROPE_TYPES)} over whole heads are.")
    return rope


def _check_types(found: Mapping[str, Any]) -> None:
    """Checks single values, before anything is computed from them. None is left to the defaults."""
    given = {key: value for key, value in found.items() if value is not None}
    for key in COUNTS:
        if not isinstance(given.get(key, 1), int) or given.get(key, 1) < 1:
            raise InvalidInput(f"The drafter's {key} is {given[key]!r}; it must be a whole number above 0.")
    for key in ("mask_token_id", "block_size"):
        if not isinstance(given.get(key, 0), int):
            raise InvalidInput(f"The drafter's {key} is {given[key]!r}; it must be a whole number.")
    for key in FACTORS:
        if not isinstance(given.get(key, 1), (int, float)):
            raise InvalidInput(f"The drafter's {key} is {given[key]!r}; it must be a number.")
    for key, kind in (("target_layer_ids", int), ("layer_types", str)):
        entries = given.get(key, ())
        if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, kind) for entry in entries):
            raise InvalidInput(f"The drafter's {key} is {entries!r}; it must be a list of {kind.__name__} values.")


def _check_sizes(config: DFlashConfig) -> None:
    if config.num_attention_heads % config.num_key_value_heads:
        raise InvalidInput(
            f"The drafter's {config.num_attention_heads} attention heads cannot share {config.num_key_value_heads} key/value heads evenly."
        )
    if config.head_dim % 2:
        raise InvalidInput(f"The drafter's head_dim is {config.head_dim}; rotary positions need an even one.")
    if config.block_size < 2:
        raise InvalidInput(f"The drafter's block_size is {config.block_size}; a block holds the bonus token and at least one guess.")
    if not 0 <= config.mask_token_id < config.vocab_size:
        raise InvalidInput(
            f"The drafter's mask_token_id is {config.mask_token_id} and its vocabulary has {config.vocab_size} tokens; the mask must be "
            "one of them. (Very early checkpoints expect a mask token to be added to the tokenizer; take a later release.)"
        )
    if not config.target_layer_ids or min(config.target_layer_ids) < 0:
        raise InvalidInput(
            f"The drafter's target_layer_ids are {list(config.target_layer_ids)}; give layers of the target, counted from 0."
        )


def _check_attention(config: DFlashConfig) -> None:
    if len(config.layer_types) != config.num_hidden_layers or set(config.layer_types) - {FULL, SLIDING}:
        raise InvalidInput(
            f"The drafter's layer_types are {list(config.layer_types)}; it needs {config.num_hidden_layers} of {FULL} or {SLIDING}."
        )


def _check_architecture(found: Mapping[str, Any]) -> None:
    missing = [key for key in (*CONVOLUTION, *SELECTOR) if found.get(key) is None]
    if "DFlash2DraftModel" in (found.get("architectures") or ()) and missing:
        raise InvalidInput(f"The drafter's config.json names DFlash2DraftModel but lacks {', '.join(missing)}; fetch the checkpoint again.")


def _check_extensions(config: DFlashConfig) -> None:
    for first, second in (CONVOLUTION, SELECTOR):
        if (getattr(config, first) is None) != (getattr(config, second) is None):
            raise InvalidInput(
                f"The drafter's {first} is {getattr(config, first)} and its {second} {getattr(config, second)}; give both or neither."
            )
    if config.draft_vocab_size is not None and config.draft_vocab_size > config.vocab_size:
        raise InvalidInput(f"The drafter's draft_vocab_size is {config.draft_vocab_size}; its target has only {config.vocab_size} tokens.")
    taps, group, candidates = config.conv_kernel_size, config.conv_group_size, config.selector_top_k
    if taps is not None and taps > config.block_size:
        raise InvalidInput(f"The drafter's conv_kernel_size is {taps}; its blocks have only {config.block_size} slots.")
    if group is not None and config.hidden_size % group:
        raise InvalidInput(f"The drafter's conv_group_size is {group}; it must divide the hidden size, {config.hidden_size}.")
    num_tokens = config.draft_vocab_size or config.vocab_size
    if candidates is not None and candidates >= num_tokens:
        raise InvalidInput(f"The drafter's selector_top_k is {candidates}; its vocabulary has {num_tokens - 1} tokens to choose from.")
