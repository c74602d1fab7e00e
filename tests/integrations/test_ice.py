"""The ice cache through `generate` of stock transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from cache.page_indexes import RandomIndex
from conftest import tiny_config
from devices import DEVICES
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.errors import InvalidInput
from hoarfrost.integrations.ice import IceCache, ice_attention, left_paddings
from hoarfrost.integrations.transformers import ddtree

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
SMALL = IceConfig(budget=40, num_sinks=2, window=16, page_size=4, index=RandomIndex)
GREEDY = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


@pytest.fixture
def load(model_folder: Callable[[str], str]) -> Callable[..., PreTrainedModel]:
    return lambda architecture, device="cpu": _load(model_folder(architecture), device)


@cache
def _load(folder: str, device: str) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().to(device)


def prompt(num_tokens: int, seed: int = 0) -> Tensor:
    return torch.randint(5, 250, (1, num_tokens), generator=torch.Generator().manual_seed(seed))


def padded(prompts: list[Tensor]) -> dict[str, Tensor]:
    width = max(one.shape[1] for one in prompts)
    pad = [width - one.shape[1] for one in prompts]
    ids = torch.cat([torch.nn.functional.pad(one, (num, 0)) for one, num in zip(prompts, pad, strict=True)])
    return {"input_ids": ids, "attention_mask": (torch.arange(width) >= torch.tensor(pad)[:, None]).long().to(ids.device)}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 0.8, "top_k": 20}], ids=["greedy", "sampled"])
def test_budget_of_the_whole_context_is_stock_generation(
    architecture: str, sampling: dict[str, object], device: str, load: Callable[..., PreTrainedModel]
) -> None:
    model = load(architecture, device)
    inputs = {name: tensor.to(device) for name, tensor in padded([prompt(70), prompt(31, 1), prompt(9, 2)]).items()}
    options = {**GREEDY, **sampling}
    torch.manual_seed(0)
    expected = model.generate(**inputs, **options)
    torch.manual_seed(0)
    with ice_attention(model):
        got = model.generate(**inputs, **options, past_key_values=IceCache(model.config, budget=400, window=16))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_is_its_sequences_one_by_one(architecture: str, device: str, load: Callable[..., PreTrainedModel]) -> None:
    model = load(architecture, device)
    prompts = [prompt(64).to(device), prompt(48, 1).to(device), prompt(30, 2).to(device)]
    options = {**GREEDY, "max_new_tokens": 8}
    with ice_attention(model):
        alone = [model.generate(one, **options, past_key_values=IceCache(model.config, SMALL))[0, -8:] for one in prompts]
        together = IceCache(model.config, SMALL)
        got = model.generate(**padded(prompts), **options, past_key_values=together)
    assert torch.equal(got[:, -8:], torch.stack(alone))
    assert [store.length for store in together.stores] == [64 + 7, 48 + 7, 30 + 7]
    assert together.stores[0]._indexes, "the budget was exceeded, so there was something to choose"


def test_second_turn_goes_on_with_the_same_cache(load: Callable[[str], PreTrainedModel]) -> None:
    model = load("qwen3")
    wide = IceConfig(budget=400, window=16)
    for config in (wide, SMALL):
        cache = IceCache(model.config, config)
        with ice_attention(model):
            first = model.generate(prompt(60), **GREEDY, past_key_values=cache)
            conversation = torch.cat([first, prompt(25, 3)], dim=1)
            second = model.generate(conversation, **GREEDY, past_key_values=cache)
        assert cache.get_seq_length() == second.shape[1] - 1
        if config is wide:
            assert torch.equal(second, model.generate(conversation, **GREEDY))


def test_prompt_in_chunks_and_assisted_decoding(load: Callable[[str], PreTrainedModel]) -> None:
    model = load("llama")
    expected = model.generate(prompt(70), **GREEDY)
    wide = IceConfig(budget=400, window=16)
    with ice_attention(model):
        chunked = model.generate(prompt(70), **GREEDY, past_key_values=IceCache(model.config, wide), prefill_chunk_size=16)
        guessed = model.generate(prompt(70), **GREEDY, past_key_values=IceCache(model.config, wide), prompt_lookup_num_tokens=3)
    assert torch.equal(chunked, expected)
    assert torch.equal(guessed, expected)


def test_the_model_attends_as_before_after_the_block(load: Callable[[str], PreTrainedModel]) -> None:
    model = load("qwen3")
    before, expected = model.config._attn_implementation, model.generate(prompt(20), **GREEDY)
    with pytest.raises(InvalidInput, match="past_key_values=IceCache"), ice_attention(model):
        model.generate(prompt(20), **GREEDY)
    assert model.config._attn_implementation == before
    assert torch.equal(model.generate(prompt(20), **GREEDY), expected)


def test_what_is_not_served_is_refused_with_a_sentence(load: Callable[[str], PreTrainedModel]) -> None:
    model = load("qwen3")
    with ice_attention(model):
        with pytest.raises(InvalidInput, match="beam search"):
            model.generate(prompt(20), **GREEDY, num_beams=2, past_key_values=IceCache(model.config, SMALL))
        cache = IceCache(model.config, SMALL)
        model.generate(prompt(20), **GREEDY, past_key_values=cache)
        with torch.no_grad(), pytest.raises(InvalidInput, match="holds 1 sequences"):
            model(prompt(20).repeat(2, 1), past_key_values=cache)
        with torch.no_grad(), pytest.raises(InvalidInput, match="masks padding only"):
            model(prompt(4), attention_mask=torch.ones(1, 1, 4, 4, dtype=torch.bool), past_key_values=IceCache(model.config, SMALL))
    with pytest.raises(InvalidInput, match="not both"):
        IceCache(model.config, SMALL, budget=100)
    with pytest.raises(InvalidInput, match="sliding_attention"):
        IceCache(tiny_config("qwen2", use_sliding_window=True, sliding_window=8, max_window_layers=1))
    with pytest.raises(InvalidInput, match="sequence 1"):
        left_paddings(torch.tensor([[0, 1, 1], [1, 0, 1]]))


def test_past_the_cache_nothing_is_answered(load: Callable[[str], PreTrainedModel]) -> None:
    """What the model would say outside the block comes of the last tokens alone; the cache is as good as new afterwards."""
    model, cache = load("qwen3"), IceCache(load("qwen3").config, SMALL)
    with pytest.raises(InvalidInput, match="with ice_attention"):
        model.generate(prompt(60), **GREEDY, past_key_values=cache)
    with ice_attention(model):
        expected = model.generate(prompt(60), **GREEDY, past_key_values=IceCache(model.config, SMALL))
        assert torch.equal(model.generate(prompt(60), **GREEDY, past_key_values=cache), expected)
    with pytest.raises(InvalidInput, match="with ice_attention"):
        model.generate(torch.cat([expected, prompt(5)], dim=1), **GREEDY, past_key_values=cache)
    with ice_attention(model), pytest.raises(InvalidInput, match="IceCache cannot be combined with ddtree"):
        model.generate(prompt(60), **GREEDY, past_key_values=IceCache(model.config, SMALL), custom_generate=ddtree(None))


@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"num_hidden_layers": 6}, {"num_key_value_heads": 1}, {"head_dim": 32}])
def test_the_cache_of_another_model_is_refused(change: dict[str, int], load: Callable[[str], PreTrainedModel]) -> None:
    model = load("llama")
    with ice_attention(model), pytest.raises(InvalidInput, match="make it with this model's config"):
        model.generate(prompt(20), **GREEDY, past_key_values=IceCache(tiny_config("llama", **change), SMALL))


def test_neither_gradients_nor_attention_weights(load: Callable[[str], PreTrainedModel]) -> None:
    model = load("llama")
    with ice_attention(model):
        with pytest.raises(InvalidInput, match=r"torch\.no_grad"):
            model(prompt(20), past_key_values=IceCache(model.config, SMALL))
        for options in ({"output_attentions": True}, {"output_attentions": True, "return_dict_in_generate": True}):
            with pytest.raises(InvalidInput, match="leave output_attentions out"):
                model.generate(prompt(20), **GREEDY, **options, past_key_values=IceCache(model.config, SMALL))


def test_reset_makes_it_empty_and_bytes_are_counted(load: Callable[[str], PreTrainedModel]) -> None:
    model = load("qwen3")
    cache = IceCache(model.config, SMALL)
    with ice_attention(model):
        once = model.generate(prompt(80), **GREEDY, past_key_values=cache)
        held = cache.bytes_by_tier()
        assert held["cold"] > held["hot"] > 0
        cache.reset()
        assert cache.get_seq_length() == 0
        assert torch.equal(model.generate(prompt(80), **GREEDY, past_key_values=cache), once)
