"""What `generate` with trees leaves alone, hands on and refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from conftest import byte_tokenizer, tiny_config
from integrations.stock_models import PAD, both_ways, knowing, load_stock, one_row, padded_batch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    LogitsProcessor,
    PreTrainedModel,
    StaticCache,
    TextStreamer,
)
from transformers.generation import BaseStreamer

from hoarfrost.errors import InvalidInput
from hoarfrost.integrations.transformers import ddtree, settings
from hoarfrost.integrations.transformers.settings import unknown_fields
from hoarfrost.tree import TreeConfig

GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 16, "eos_token_id": None, "pad_token_id": PAD}


@pytest.fixture(scope="module")
def folder(model_folder: Callable[[str], str]) -> str:
    return model_folder("qwen3")


@pytest.fixture
def model(folder: str) -> PreTrainedModel:
    return load_stock(folder)


def snapshot(model: PreTrainedModel) -> dict[str, Any]:
    """All that a call might leave changed: modules, tensors and their contents, configurations, modes, hooks."""
    state = {name: (id(tensor), tensor.detach().clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    return {
        "modules": [(name, id(module), type(module), module.training, set(vars(module))) for name, module in model.named_modules()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "identities": {name: identity for name, (identity, _) in state.items()},
        "config": (id(model.config), model.config.to_dict(), model.config._attn_implementation),
        "configs": [id(getattr(module, "config", None)) for module in model.modules()],
        "generation_config": model.generation_config.to_dict(),
        "sums": {name: float(tensor.detach().double().sum()) for name, (_, tensor) in state.items()},
        "grad": [parameter.requires_grad for parameter in model.parameters()],
    }


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_model_is_left_as_it_was(attention: str, folder: str) -> None:
    model = load_stock(folder, attention)
    before = snapshot(model)
    expected, found, _ = both_ways(model, padded_batch(), eos_token_id=None)
    assert torch.equal(found, expected)
    assert snapshot(model) == before
    assert torch.equal(model.generate(**padded_batch(), **{**GREEDY, "max_new_tokens": 16}), expected)
    assert "hoarfrost" not in repr(model.config)


def test_the_model_is_left_as_it_was_even_during_the_call_and_after_an_error(model: PreTrainedModel) -> None:
    before = snapshot(model)
    logits = model(**one_row()).logits

    class Breaks(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            assert snapshot(model) == before
            assert torch.equal(model(**one_row()).logits, logits)
            if input_ids.shape[1] > 9:
                raise RuntimeError("enough")
            return scores

    expected = model.generate(**one_row(), **GREEDY)
    with pytest.raises(RuntimeError, match="enough"):
        model.generate(**one_row(), **GREEDY, logits_processor=[Breaks()], custom_generate=knowing(model, one_row(), expected))
    assert snapshot(model) == before


def test_changes_of_the_model_are_seen_by_the_next_call(model: PreTrainedModel) -> None:
    """New values, and modules put in place of others, as adapters are."""

    class Adapted(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return self.inner(hidden) + 0.5 * hidden.mean(-1, keepdim=True)

    first, _, _ = both_ways(model, one_row(), eos_token_id=None)
    trees = knowing(model, one_row(), first)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(-1.5)
    second = model.generate(**one_row(), **GREEDY)
    assert torch.equal(model.generate(**one_row(), **GREEDY, custom_generate=trees), second)
    model.model.layers[1].self_attn.q_proj = Adapted(model.model.layers[1].self_attn.q_proj)
    third = model.generate(**one_row(), **GREEDY)
    assert torch.equal(model.generate(**one_row(), **GREEDY, custom_generate=trees), third)
    assert not torch.equal(first[:, :20], second)
    assert not torch.equal(second, third)


def test_hooks_that_only_move_between_devices_are_left_out(model: PreTrainedModel) -> None:
    """accelerate hangs them on models it dispatched: a `forward` on the instance that calls the original module."""

    def hooked(module: nn.Module, *arguments: Any, **named: Any) -> Any:
        return module._old_forward(*arguments, **named)

    expected = model.generate(**one_row(), **GREEDY)
    for module in model.modules():
        module._hf_hook, module._old_forward = "moves to the same device", module.forward
        module.forward = partial(hooked, module)
    assert torch.equal(model.generate(**one_row(), **GREEDY), expected)
    assert torch.equal(model.generate(**one_row(), **GREEDY, custom_generate=knowing(model, one_row(), expected)), expected)


class Recorder(BaseStreamer):
    def __init__(self) -> None:
        self.values: list[list[Any] | str] = []

    def put(self, value: torch.Tensor) -> None:
        self.values.append([value.dtype, list(value.shape), value.tolist()])

    def end(self) -> None:
        self.values.append("end")


def test_streamers_get_what_they_get_in_stock(model: PreTrainedModel, capsys: pytest.CaptureFixture[str]) -> None:
    stock, bound, named = Recorder(), Recorder(), Recorder()
    expected = model.generate(**one_row(), **GREEDY, streamer=stock)
    model.generate(**one_row(), **GREEDY, custom_generate=knowing(model, one_row(), expected, streamer=bound))
    model.generate(**one_row(), **GREEDY, custom_generate=knowing(model, one_row(), expected), streamer=named)
    assert stock.values == bound.values == named.values
    printed = []
    for trees in (None, knowing(model, one_row(), expected)):
        model.generate(**one_row(), **GREEDY, custom_generate=trees, streamer=TextStreamer(byte_tokenizer(), skip_prompt=True))
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != ""


def test_streamers_that_cannot_be_served(model: PreTrainedModel) -> None:
    with pytest.raises(InvalidInput, match="one row"):
        model.generate(**padded_batch(), **GREEDY, custom_generate=ddtree("none", streamer=Recorder()))
    with pytest.raises(InvalidInput, match="give one"):
        model.generate(**one_row(), **GREEDY, custom_generate=ddtree("none", streamer=Recorder()), streamer=Recorder())


REFUSED: dict[str, dict[str, Any]] = {
    "num_beams": {"num_beams": 2},
    "penalty_alpha": {"penalty_alpha": 0.6, "top_k": 4},
    "dola_layers": {"dola_layers": "low"},
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 3},
    "output_attentions": {"output_attentions": True, "return_dict_in_generate": True},
    "output_hidden_states": {"output_hidden_states": True, "return_dict_in_generate": True},
    "use_cache": {"use_cache": False},
    "prefill_chunk_size": {"prefill_chunk_size": 4},
    "position_ids": {"position_ids": torch.tensor([[0, 1, 2, 5]])},
    "attention_mask": {"attention_mask": torch.tensor([[1, 0, 1, 1]])},
    "synced_gpus": {"synced_gpus": True},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, model: PreTrainedModel) -> None:
    before = snapshot(model)
    with pytest.raises(InvalidInput, match=name):
        model.generate(**{**one_row(), **GREEDY, **REFUSED[name]}, custom_generate=ddtree("none"))
    assert snapshot(model) == before


def test_an_offloaded_cache_is_refused(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers makes it before it asks us, with a stream that CUDA builds of torch lack without a GPU: then that is the error."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("no CUDA-capable device is detected")

    before = snapshot(model)
    for stream, error, says in ((lambda *_: None, InvalidInput, "cache_implementation"), (fails, RuntimeError, "no CUDA-capable device")):
        monkeypatch.setattr(torch, "Stream", stream)
        with pytest.raises(error, match=says):
            model.generate(**one_row(), **GREEDY, cache_implementation="offloaded", custom_generate=ddtree("none"))
        assert snapshot(model) == before


def test_every_field_of_the_generation_config_is_known(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_fields() == set()
    monkeypatch.setattr(settings, "HONOURED", settings.HONOURED - {"temperature", "top_k", "min_p"})
    assert unknown_fields() == {"temperature", "top_k", "min_p"}
    expected = model.generate(**one_row(), **GREEDY)
    assert torch.equal(model.generate(**one_row(), **GREEDY, custom_generate=knowing(model, one_row(), expected)), expected)
    with pytest.raises(InvalidInput, match="min_p is new"):
        model.generate(**one_row(), **{**GREEDY, "do_sample": True, "min_p": 0.1}, custom_generate=ddtree("none"))


def test_other_models_beside_it_are_refused(model: PreTrainedModel, folder: str) -> None:
    with pytest.raises(InvalidInput, match="assistant_model"):
        model.generate(**one_row(), **GREEDY, assistant_model=load_stock(folder), custom_generate=ddtree("none"))
    with pytest.raises(InvalidInput, match="inputs_embeds"):
        model.generate(inputs_embeds=torch.zeros(1, 3, 32), **GREEDY, custom_generate=ddtree("none"))


def test_caches(model: PreTrainedModel) -> None:
    expected = model.generate(**one_row(), **GREEDY)
    trees = knowing(model, one_row(), expected)
    empty = DynamicCache(config=model.config)
    assert torch.equal(model.generate(**one_row(), **GREEDY, past_key_values=empty, custom_generate=trees), expected)
    assert empty.get_seq_length() == 0
    static = StaticCache(config=model.config, max_cache_len=64)
    assert torch.equal(model.generate(**one_row(), **GREEDY, past_key_values=static, custom_generate=trees), expected)
    model.generate(**one_row(), **GREEDY, past_key_values=empty)
    ids = torch.cat((expected, torch.tensor([[5]])), -1)
    with pytest.raises(InvalidInput, match="past_key_values"):
        model.generate(ids, attention_mask=torch.ones_like(ids), **GREEDY, past_key_values=empty, custom_generate=trees)


def test_processors_of_ones_own_in_a_batch_need_a_promise(model: PreTrainedModel) -> None:
    class Own(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            return scores

    with pytest.raises(InvalidInput, match="Own would be called with one of the 3 rows"):
        model.generate(
            **padded_batch(), **GREEDY, logits_processor=[Own()], custom_generate=knowing(model, padded_batch(), torch.zeros(3, 9))
        )
    with pytest.raises(InvalidInput, match="UnbatchedClassifierFree"):
        model.generate(**padded_batch(), **GREEDY, guidance_scale=2.0, custom_generate=knowing(model, padded_batch(), torch.zeros(3, 9)))


def test_models_that_cannot_be_served(tmp_path: Any, folder: str) -> None:
    from transformers import GPT2Config

    gpt2 = AutoModelForCausalLM.from_config(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=50, n_positions=64)).eval()
    with pytest.raises(InvalidInput, match="gpt2"):
        gpt2.generate(torch.tensor([[5, 6]]), max_new_tokens=4, pad_token_id=0, custom_generate=ddtree("none"))
    config = tiny_config("mistral")
    config.sliding_window = 64
    with pytest.raises(InvalidInput, match="sliding_attention"):
        AutoModelForCausalLM.from_config(config).eval().generate(**one_row(), **GREEDY, custom_generate=ddtree("none"))
    model = load_stock(folder).train()
    with pytest.raises(InvalidInput, match="training mode"):
        model.generate(**one_row(), **GREEDY, custom_generate=ddtree("none"))
    model.eval().model.layers[0].self_attn.forward = model.model.layers[0].self_attn.forward
    with pytest.raises(InvalidInput, match="forward replaced"):
        model.generate(**one_row(), **GREEDY, custom_generate=ddtree("none"))


def test_arguments_of_ddtree(model: PreTrainedModel) -> None:
    with pytest.raises(InvalidInput, match="one of them"):
        ddtree("tiny", budget=3, tree=TreeConfig(4))
    with pytest.raises(InvalidInput, match="2000"):
        ddtree("tiny", budget=2000)
    with pytest.raises(InvalidInput, match="needs a drafter"):
        ddtree(None, tree=TreeConfig.chain())
    with pytest.raises(InvalidInput, match="no-such-drafter"):
        model.generate(**one_row(), **GREEDY, custom_generate=ddtree("no-such-drafter"))
    deep = knowing(model, one_row(), torch.zeros(1, 9))
    deep._source.taps = (0, 4)
    with pytest.raises(InvalidInput, match="reads layer 4"):
        model.generate(**one_row(), **GREEDY, custom_generate=deep)


def test_a_batch_without_anything_to_pad_with(model: PreTrainedModel) -> None:
    from transformers import MaxTimeCriteria

    model.generation_config.pad_token_id = model.generation_config.eos_token_id = None
    trees = knowing(model, padded_batch(), torch.zeros(3, 9))
    settings = {**GREEDY, "pad_token_id": None}
    assert model.generate(**padded_batch(), **settings, custom_generate=trees).shape == (3, 7 + 16)
    with pytest.raises(InvalidInput, match="pad_token_id"):
        model.generate(**padded_batch(), **settings, stopping_criteria=[MaxTimeCriteria(60)], custom_generate=trees)
