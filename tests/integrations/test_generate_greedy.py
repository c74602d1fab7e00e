"""Greedy `generate` with trees against stock `generate`: the same tokens under every setting that is honoured."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ARCHITECTURES, byte_tokenizer
from devices import DEVICES
from integrations.stock_models import PAD, ROWS, both_ways, knowing, load_stock, one_row, padded_batch
from transformers import LogitsProcessor, MaxLengthCriteria, PreTrainedModel, StoppingCriteria, StoppingCriteriaList, StopStringCriteria
from transformers.generation import logits_process

from hoarfrost.integrations.transformers import ddtree
from hoarfrost.models import SHIPPED, SMOLLM2
from hoarfrost.tree import TreeConfig


@pytest.fixture(scope="module")
def model(model_folder: Callable[[str], str]) -> PreTrainedModel:
    return load_stock(model_folder("qwen3"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_decodes_as_stock(architecture: str, attention: str, device: str, model_folder: Callable[[str], str]) -> None:
    model = load_stock(model_folder(architecture), attention, device)
    for inputs in (one_row(), padded_batch()):
        expected, found, trees = both_ways(model, inputs, eos_token_id=None)
        assert torch.equal(found, expected)
        assert len(trees.statistics) == len(expected)
        assert all(statistics.tau > 1.5 and statistics.num_tokens == 16 for statistics in trees.statistics)


class Jitter(LogitsProcessor):
    """Of the caller's own: what it adds depends on the whole prefix."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores += 3.0 * (
            (torch.arange(scores.shape[1], device=scores.device) * 37 + input_ids.sum(-1, keepdim=True)) % 5 == 0
        )  # in place, as some do
        return scores


class StopsAtMultiples(StoppingCriteria):
    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return input_ids[:, -1] % 7 == 0


def allowed_tokens(row: int, ids: torch.Tensor) -> list[int]:
    return [token for token in range(4, 260) if token % 3 == (row + len(ids)) % 3]


SETTINGS: dict[str, dict[str, Any]] = {
    "max length": {"max_new_tokens": None, "max_length": 19},
    "default length": {"max_new_tokens": None},
    "one token": {"max_new_tokens": 1},
    "longer by a criterion": {"stopping_criteria": [MaxLengthCriteria(26)]},
    "several ends": {"eos_token_id": list(range(60, 90))},
    "pad is end": {"eos_token_id": list(range(60, 90)), "pad_token_id": None},
    "minimum of new tokens": {"eos_token_id": list(range(60, 160)), "min_new_tokens": 9},
    "minimum length": {"eos_token_id": list(range(60, 160)), "min_length": 15},
    "repetition penalty": {"repetition_penalty": 1.7},
    "no repeated n-grams": {"no_repeat_ngram_size": 1},
    "bad words": {"bad_words_ids": [[token] for token in range(100, 180)] + [[5, 6]]},
    "suppressed": {"suppress_tokens": list(range(50, 150)), "begin_suppress_tokens": list(range(150, 250))},
    "biased": {"sequence_bias": [[[30], 4.0], [[31, 32], 9.0], [[33], -4.0]]},
    "forced end": {"forced_eos_token_id": 2, "eos_token_id": 2, "max_new_tokens": 11},
    "decaying length": {"exponential_decay_length_penalty": (4, 1.4), "eos_token_id": 2},
    "encoder penalty": {"encoder_repetition_penalty": 8.0},
    "encoder n-grams": {"encoder_repetition_penalty": 8.0, "encoder_no_repeat_ngram_size": 2},
    "constrained": {"prefix_allowed_tokens_fn": allowed_tokens},
    "invalid values": {"remove_invalid_values": True, "renormalize_logits": True},
    "own processor": {"logits_processor": [Jitter()]},
    "own processor among others": {"logits_processor": [Jitter()], "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    "filter without sampling": {"logits_processor": [logits_process.TopKLogitsWarper(3)]},
    "own criterion": {"stopping_criteria": [StopsAtMultiples()], "eos_token_id": 2},
    "stop string": {"stopping_criteria": [StopStringCriteria(byte_tokenizer(), ["x", "q", "A", "z", "é", "{", "7"])], "eos_token_id": 2},
    "watermark": {"watermarking_config": {"bias": 4.0, "seeding_scheme": "lefthash"}},
}


SILENT = {"default length", "max length", "one token", "invalid values", "filter without sampling"}
"""Settings that only shorten the answers, or change nothing here."""


@pytest.fixture(scope="module", params=DEVICES)
def placed(request: pytest.FixtureRequest, model_folder: Callable[[str], str]) -> PreTrainedModel:
    """The model on each device in turn."""
    return load_stock(model_folder("qwen3"), device=request.param)


@pytest.fixture(scope="module")
def plain(model: PreTrainedModel) -> torch.Tensor:
    ids: torch.Tensor = model.generate(**padded_batch(), do_sample=False, max_new_tokens=16, eos_token_id=None, pad_token_id=PAD)
    return ids


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_honoured(name: str, placed: PreTrainedModel, plain: torch.Tensor) -> None:
    settings = {"eos_token_id": None, **SETTINGS[name]}
    settings["logits_processor"] = logits_process.LogitsProcessorList(settings.get("logits_processor", []))
    settings["stopping_criteria"] = StoppingCriteriaList(settings.get("stopping_criteria", []))
    for inputs in (one_row(1), padded_batch()):
        expected, found, _ = both_ways(placed, inputs, **settings)
        assert torch.equal(found, expected)
    assert name in SILENT or not torch.equal(expected.cpu(), plain), "the setting says nothing here"


def test_guidance_of_one_row(model: PreTrainedModel) -> None:
    """This processor runs the model itself, with the model's own attention."""
    expected, found, _ = both_ways(model, one_row(), guidance_scale=1.5, eos_token_id=None)
    assert torch.equal(found, expected)


class Recorder:
    """A processor and a criterion that note what they were shown."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.judged: list[list[int]] = []
        recorder = self

        class Processor(LogitsProcessor):
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                recorder.seen.append(input_ids[0].tolist())
                return scores

        class Criterion(StoppingCriteria):
            def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
                assert (scores is None) == (not recorder.with_scores)
                assert scores is None or len(scores) == len(recorder.seen)
                recorder.judged.append(input_ids[0].tolist())
                return torch.tensor([input_ids.shape[1] > 14 and bool(input_ids[0, -1] % 2)])

        self.processor, self.criterion, self.with_scores = Processor(), Criterion(), False


@pytest.mark.parametrize("with_scores", [False, True])
def test_processors_and_criteria_are_called_as_in_stock(with_scores: bool, model: PreTrainedModel) -> None:
    """Once per emitted token, in order, with its exact prefix; and never behind the end."""
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 30, "eos_token_id": None, "pad_token_id": PAD}
    settings.update(return_dict_in_generate=True, output_scores=with_scores)
    recorders = [Recorder(), Recorder()]
    outcome: torch.Tensor | None = None
    for recorder in recorders:
        recorder.with_scores = with_scores
        trees = None if outcome is None else knowing(model, one_row(), torch.cat((outcome, outcome[:, -8:]), -1))
        found = model.generate(
            **one_row(),
            **settings,
            logits_processor=logits_process.LogitsProcessorList([recorder.processor]),
            stopping_criteria=StoppingCriteriaList([recorder.criterion]),
            custom_generate=trees,
        ).sequences
        assert outcome is None or torch.equal(found, outcome)
        outcome = found
    assert recorders[0].seen == recorders[1].seen
    assert recorders[0].judged == recorders[1].judged
    assert len(recorders[0].seen) < 30


def test_trees_of_all_sizes_agree(model: PreTrainedModel) -> None:
    expected, _, _ = both_ways(model, padded_batch(), eos_token_id=None, repetition_penalty=1.2)
    for tree in (TreeConfig.autoregressive(), TreeConfig(1), TreeConfig(40), TreeConfig.chain()):
        trees = knowing(model, padded_batch(), expected, tree=tree, budget=None)
        settings = {"do_sample": False, "max_new_tokens": 16, "eos_token_id": None, "pad_token_id": PAD, "repetition_penalty": 1.2}
        assert torch.equal(model.generate(**padded_batch(), **settings, custom_generate=trees), expected)


def test_scores_and_logits(model: PreTrainedModel) -> None:
    ends = list(range(60, 90))
    settings: dict[str, Any] = {
        "do_sample": False,
        "max_new_tokens": 16,
        "eos_token_id": ends,
        "pad_token_id": PAD,
        "repetition_penalty": 1.4,
    }
    settings.update(return_dict_in_generate=True, output_scores=True, output_logits=True)
    for inputs in (one_row(), padded_batch()):
        expected = model.generate(**inputs, **settings)
        found = model.generate(**inputs, **settings, custom_generate=knowing(model, inputs, expected.sequences))
        assert torch.equal(found.sequences, expected.sequences)
        assert found.past_key_values is None
        assert found.attentions is found.hidden_states is None
        answers = expected.sequences[:, inputs["input_ids"].shape[1] :]
        for name, row in itertools.product(("scores", "logits"), range(len(answers))):
            stock, ours = getattr(expected, name), getattr(found, name)
            assert len(stock) == len(ours) == answers.shape[1]
            ended = [step for step, token in enumerate(answers[row].tolist()) if token in ends]
            num_own = ended[0] + 1 if ended else len(ours)
            for step in range(num_own):
                torch.testing.assert_close(ours[step][row], stock[step][row], atol=2e-4, rtol=1e-4)
            assert not any(bool(one[row].any()) for one in ours[num_own:])
        ours[0].add_(1)  # ordinary tensors, which may be written to


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    """It runs, with the pair in the package; a second call uses the drafter that the first one loaded."""
    page = (Path(__file__).parents[2] / "docs" / "transformers.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(example.replace(SMOLLM2.hub_id, str(SHIPPED["tiny"].target)).replace(SMOLLM2.name, "tiny"), names)
    assert "tokens per pass" in capsys.readouterr().out
    model, inputs, trees = names["model"], names["inputs"], names["trees"]
    expected = model.generate(**inputs, do_sample=False, max_new_tokens=64)
    assert torch.equal(names["answer"], expected)
    assert torch.equal(model.generate(**inputs, do_sample=False, max_new_tokens=64, custom_generate=trees), expected)
    assert trees.statistics[0].tau > 1.5


def test_without_a_drafter_the_text_so_far_is_the_source(model: PreTrainedModel) -> None:
    """Random models fall into cycles, which a repeated passage is."""
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 48, "eos_token_id": None, "pad_token_id": PAD}
    expected = model.generate(**padded_batch(), **settings)
    trees = ddtree(None, budget=8)
    assert torch.equal(model.generate(**padded_batch(), **settings, custom_generate=trees), expected)
    assert max(statistics.tau for statistics in trees.statistics) > 1.2


def test_one_object_serves_one_model_after_another(model_folder: Callable[[str], str]) -> None:
    model, other = load_stock(model_folder("qwen3")), load_stock(model_folder("llama"))
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 12, "eos_token_id": None, "pad_token_id": PAD}
    trees = ddtree(None, budget=4)
    for one in (model, other, model, model.double()):
        assert torch.equal(one.generate(**one_row(), **settings, custom_generate=trees), one.generate(**one_row(), **settings))


def test_rows_are_padded_with_the_ending_token_as_in_stock(model: PreTrainedModel) -> None:
    """Without a pad token, transformers takes the first that ends a text."""
    expected, found, _ = both_ways(model, padded_batch(), eos_token_id=[88, *range(60, 90)], pad_token_id=None)
    assert torch.equal(found, expected)


def test_equal_rows(model: PreTrainedModel) -> None:
    inputs = {key: value.repeat(2, 1) for key, value in one_row(1).items()}
    expected, found, trees = both_ways(model, inputs, eos_token_id=None)
    assert torch.equal(found, expected)
    assert len(ROWS[1]) == trees.statistics[1].num_prompt_tokens
