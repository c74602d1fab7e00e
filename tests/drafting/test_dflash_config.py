"""The reader of config.json: both places for each key, both spellings of rotary settings, defaults, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from drafting.drafter_models import VARIANTS

from hoarfrost.drafting import DFlashConfig
from hoarfrost.drafting.config import default_tap_ids
from hoarfrost.errors import InvalidInput

QWEN3_8B: dict[str, Any] = {
    "architectures": ["DFlashDraftModel"],
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 5,
    "num_target_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "max_position_embeddings": 40960,
    "attention_bias": False,
    "hidden_act": "silu",
    "layer_types": ["full_attention"] * 5,
    "sliding_window": None,
    "use_sliding_window": False,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
    "block_size": 16,
    "dflash_config": {"mask_token_id": 151669, "target_layer_ids": [1, 9, 17, 25, 33]},
}


def test_a_released_configuration() -> None:
    config = DFlashConfig.from_json(QWEN3_8B)
    assert (config.block_size, config.mask_token_id, config.target_layer_ids) == (16, 151669, (1, 9, 17, 25, 33))
    assert (config.input_embedding_scale, config.output_multiplier, config.final_logit_softcapping) == (1.0, 1.0, None)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 1000000}
    assert [config.window_of(layer) for layer in range(5)] == [None] * 5
    assert not any(config.is_causal_in(layer) for layer in range(5))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_size", 10),
        ("mask_token_id", 7),
        ("target_layer_ids", [2, 3]),
        ("input_embedding_scale", 64.0),
        ("output_multiplier", 0.25),
        ("final_logit_softcapping", 30.0),
    ],
)
def test_a_key_is_looked_up_in_dflash_config_first_and_then_at_the_top(key: str, value: Any) -> None:
    nested = {name: entry for name, entry in QWEN3_8B["dflash_config"].items() if name != key}
    expected = tuple(value) if isinstance(value, list) else value
    at_top = {**QWEN3_8B, key: value, "dflash_config": nested}
    assert getattr(DFlashConfig.from_json(at_top), key) == expected
    in_both = {**QWEN3_8B, key: 1, "dflash_config": {**nested, key: value}}
    assert getattr(DFlashConfig.from_json(in_both), key) == expected


def test_defaults_where_both_places_are_silent() -> None:
    bare = {key: value for key, value in QWEN3_8B.items() if key not in ("block_size", "head_dim", "num_key_value_heads", "layer_types")}
    config = DFlashConfig.from_json({**bare, "dflash_config": {"mask_token_id": 5}})
    assert (config.block_size, config.head_dim, config.num_key_value_heads) == (16, 128, 32)
    assert config.layer_types == ("full_attention",) * 5
    assert config.target_layer_ids == (1, 9, 17, 25, 33)


@pytest.mark.parametrize(
    ("num_target_layers", "num_taps", "expected"),
    [
        (36, 5, (1, 9, 17, 25, 33)),
        (24, 5, (1, 6, 11, 16, 21)),
        (32, 5, (1, 8, 15, 22, 29)),
        (40, 5, (1, 10, 19, 28, 37)),
        (64, 5, (1, 16, 31, 46, 61)),
        (36, 1, (18,)),
    ],
)
def test_default_taps_are_the_official_ones(num_target_layers: int, num_taps: int, expected: tuple[int, ...]) -> None:
    assert default_tap_ids(num_target_layers, num_taps) == expected


YARN = {"factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 1e7, "rope_scaling": {"type": "yarn", **YARN}},
        {"rope_theta": 1e7, "rope_scaling": {"rope_type": "yarn", **YARN}},
        {"rope_theta": None, "rope_scaling": None, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e7, **YARN}},
    ],
)
def test_rotary_settings_in_either_spelling(spelling: dict[str, Any]) -> None:
    config = DFlashConfig.from_json({**QWEN3_8B, **spelling})
    assert config.rope_parameters == {"rope_type": "yarn", "rope_theta": 1e7, **YARN}


@pytest.mark.parametrize(("is_causal", "expected"), [(None, [True, False]), (True, [True, True]), (False, [False, False])])
def test_sliding_layers_are_causal_unless_the_configuration_says_otherwise(is_causal: bool | None, expected: list[bool]) -> None:
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 2048}
    config = DFlashConfig.from_json({**QWEN3_8B, **layers, "use_sliding_window": True, "is_causal": is_causal})
    assert [config.is_causal_in(layer) for layer in range(2)] == expected
    assert [config.window_of(layer) for layer in range(2)] == [2048, None]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_reads_back_the_same(variant: str) -> None:
    assert DFlashConfig.from_json(VARIANTS[variant].to_json()) == VARIANTS[variant]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dflash_config": {}}, "lacks mask_token_id"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"hidden_size": "wide", "head_dim": None}, "hidden_size is 'wide'"),
        ({"mask_token_id": None, "dflash_config": {"mask_token_id": "[MASK]"}}, "mask_token_id is '[MASK]'"),
        ({"output_multiplier": [1]}, "output_multiplier is [1]"),
        ({"dflash_config": {"mask_token_id": 3, "target_layer_ids": 5}}, "target_layer_ids is 5"),
        ({"num_key_value_heads": 5}, "32 attention heads cannot share 5"),
        ({"head_dim": 65}, "65"),
        ({"block_size": 1}, "block_size is 1"),
        ({"vocab_size": 1000}, "mask_token_id is 151669 and its vocabulary has 1000"),
        ({"layer_types": ["full_attention"]}, "needs 5"),
        ({"layer_types": ["linear_attention"] * 5}, "linear_attention"),
        ({"use_sliding_window": True, "sliding_window": 0}, "sliding_window is 0"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ({"partial_rotary_factor": 0.25}, "partial_rotary_factor 0.25"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "differ by layer type"),
        ({"num_target_layers": None, "dflash_config": {"mask_token_id": 3}}, "neither target_layer_ids nor num_target_layers"),
        ({"dflash_config": {"mask_token_id": 3, "target_layer_ids": [-1]}}, "[-1]"),
    ],
)
def test_what_cannot_be_served_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        DFlashConfig.from_json({**QWEN3_8B, **changes})
    assert said in str(caught.value)
