"""Layers over quantised matrices against layers over the same values, and float models in 8-bit blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import save_random_model, tiny_config
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.quantized import quantize, to_float
from hoarfrost.target import Target
from hoarfrost.target.loading import check_weights
from hoarfrost.target.quantized import QuantizedEmbedding, QuantizedLinear, quantize_layers


def test_quantised_values_lie_within_half_a_step() -> None:
    weight = torch.randn((48, 96), generator=torch.Generator().manual_seed(0))
    held = quantize(weight)
    assert (held.shape, held.kind, held.blocks.shape) == ((48, 96), "Q8_0", (48, 3 * 34))
    blocks = weight.view(48, 3, 32)
    steps = (blocks.abs().amax(dim=-1, keepdim=True) / 127).expand_as(blocks)
    # Half a step, and what the scale's rounding to float16 (2^-11) moves the 127 steps of the largest.
    assert ((to_float(held, torch.float32).view_as(blocks) - blocks).abs() <= steps * (0.5 + 127 * 2**-11 + 1e-3)).all()


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_are_those_over_the_held_values(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    weight, bias, rows = torch.randn(40, 64), torch.randn(40).to(dtype), torch.randn(2, 3, 64).to(dtype)
    held = quantize(weight, kind)
    values = to_float(held, torch.float32)
    linear, embedding = QuantizedLinear(held, bias), QuantizedEmbedding(held, dtype)
    assert (linear.in_features, linear.out_features) == (64, 40)
    assert torch.equal(linear(rows), functional.linear(rows.float(), values, bias.float()).to(dtype))
    ids = torch.tensor([[3, 0, 39], [3, 7, 8]])
    assert torch.equal(embedding(ids), values[ids].to(dtype))


def test_a_matrix_that_does_not_fall_into_blocks_stays_float() -> None:
    with pytest.raises(InvalidInput, match=r"shape \(4, 33\) does not fall into blocks of 32 inputs; keep it in floating point"):
        quantize(torch.zeros(4, 33))
    model = nn.Sequential(nn.Linear(32, 33), nn.Linear(33, 64))
    quantize_layers(model)
    assert [type(layer) for layer in model] == [QuantizedLinear, nn.Linear]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "qwen3_moe"])
def test_models_in_8_bit_blocks(architecture: str, model_folder: Callable[[str], str]) -> None:
    """Tokens of plain decoding and of trees agree, and logits are near those of the float model."""
    folder = model_folder(architecture)
    engine = Engine.load(folder, dtype="float32", device="cpu", weights="int8")
    assert engine.target.weights == "Q8_0"
    prompt = [10, 50, 90, 130, 50, 90]
    params = SamplingParams(max_new_tokens=16, ignore_eos=True)
    plain, tree = (engine.generate([prompt], params, tree=tree)[0].token_ids for tree in (TreeConfig.autoregressive(), TreeConfig(8)))
    assert plain == tree
    assert Target.load(folder, device="cpu", weights="int8").dtype == torch.bfloat16


def test_a_shared_head_stays_shared(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path, tiny_config("llama", tie_word_embeddings=True))
    model = AutoModelForCausalLM.from_pretrained(folder)
    quantize_layers(model)
    assert type(model.get_input_embeddings()) is QuantizedEmbedding
    assert type(model.lm_head) is QuantizedLinear
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_ways_to_hold_weights_that_are_refused(model_folder: Callable[[str], str]) -> None:
    with pytest.raises(InvalidInput, match="Unknown weights 'int4'; choose one of auto, int8, float"):
        Engine.load(model_folder("llama"), weights="int4", device="cpu")
    with pytest.raises(InvalidInput, match="8-bit weights run on the CPU, not on cuda; take weights 'float' there"):
        check_weights("int8", torch.device("cuda"))
