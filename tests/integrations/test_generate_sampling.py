"""`do_sample=True` with trees: exact samples, keyed by seed and position, whatever the tree, and of transformers' own distribution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from devices import DEVICES
from integrations.stock_models import PAD, ROWS, knowing, load_stock, one_row, padded_batch
from transformers import PreTrainedModel

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.integrations.transformers import ddtree

SAMPLED: dict[str, Any] = {"do_sample": True, "max_new_tokens": 20, "eos_token_id": None, "pad_token_id": PAD, "top_k": 0}
FILTERS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 20, "min_p": 0.02},
    {"temperature": 0.8, "top_k": 7, "top_p": 0.8, "min_p": 0.1},
]


@pytest.fixture(scope="module")
def model(model_folder: Callable[[str], str]) -> PreTrainedModel:
    return load_stock(model_folder("qwen3"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("filters", FILTERS)
def test_samples_are_those_of_the_engine(filters: dict[str, Any], device: str, model_folder: Callable[[str], str]) -> None:
    """With equal seeds, and whether the filters run here or as transformers' processors (which keeping scores asks for)."""
    model = load_stock(model_folder("qwen3"), device=device)
    inputs = {name: tensor.to(device) for name, tensor in one_row().items()}
    engine = Engine.load(model_folder("qwen3"), drafter=None, dtype="float32", device=device)
    params = SamplingParams(**{"temperature": 1.0, **filters}, seed=11, max_new_tokens=20, ignore_eos=True)
    expected = torch.tensor([ROWS[0] + engine.generate([ROWS[0]], params)[0].token_ids], device=device)
    settings = {**SAMPLED, **filters}
    for tree in (TreeConfig.autoregressive(), TreeConfig(12), TreeConfig.chain()):
        trees = knowing(model, inputs, expected, tree=tree, budget=None, seed=11)
        assert torch.equal(model.generate(**inputs, **settings, custom_generate=trees), expected)
    trees = knowing(model, inputs, expected, seed=11)
    processed = model.generate(**inputs, **settings, custom_generate=trees, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(processed.sequences, expected)
    assert trees.statistics[0].tau > 1.5


def test_torch_seeds_the_noise(model: PreTrainedModel) -> None:
    trees = knowing(model, one_row(), one_row()["input_ids"])
    outcomes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outcomes.append(model.generate(**one_row(), **SAMPLED, custom_generate=trees).tolist())
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert model.generate(**one_row(), **SAMPLED, custom_generate=trees).tolist() != outcomes[2]


def test_several_sequences_per_prompt_differ_and_do_not_depend_on_each_other(model: PreTrainedModel) -> None:
    trees = knowing(model, padded_batch(), padded_batch()["input_ids"], seed=5)
    found = model.generate(**padded_batch(), **SAMPLED, num_return_sequences=3, custom_generate=trees)
    assert found.shape[0] == len(trees.statistics) == 9
    assert len({tuple(row) for row in found.tolist()}) == 9
    assert torch.equal(model.generate(**padded_batch(), **SAMPLED, num_return_sequences=3, custom_generate=trees), found)
    alone = knowing(model, one_row(), one_row()["input_ids"], seed=5 + 4)
    second_prompts_second = model.generate(**one_row(1), **SAMPLED, custom_generate=alone)
    assert torch.equal(found[4], second_prompts_second[0])


@pytest.mark.parametrize("processed", [False, True])
def test_the_distribution_is_that_of_transformers(processed: bool, model: PreTrainedModel) -> None:
    """Counts of the first two tokens, 240 draws, against the probabilities that transformers' own scores give (chi-square)."""
    settings = {**SAMPLED, "max_new_tokens": 2, "temperature": 1.5, "top_k": 2}
    if processed:
        settings["repetition_penalty"] = 1.3
    draws = Counter()
    rows = {key: value.repeat(60, 1) for key, value in one_row().items()}
    trees = knowing(model, rows, rows["input_ids"])
    for seed in range(4):
        torch.manual_seed(seed)
        for row in model.generate(**rows, **settings, custom_generate=trees).tolist():
            draws[tuple(row[-2:])] += 1
    statistic = 0.0
    expected = pair_probabilities(model, settings)
    for pair, probability in expected.items():
        statistic += (draws[pair] - 240 * probability) ** 2 / (240 * probability)
    assert set(draws) <= set(expected)
    assert statistic < 16.3, "the 99.9 % point for 3 degrees of freedom"


def pair_probabilities(model: PreTrainedModel, settings: dict[str, Any]) -> dict[tuple[int, int], float]:
    """The probability of every first pair of tokens, out of the scores of stock generation."""

    def after(ids: list[int]) -> dict[int, float]:
        stock = {**settings, "max_new_tokens": 1, "return_dict_in_generate": True, "output_scores": True}
        scores = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), **stock).scores[0][0]
        return {token: float(p) for token, p in enumerate(scores.softmax(-1)) if p > 0}

    firsts = after(ROWS[0])
    return {(first, second): p * q for first, p in firsts.items() for second, q in after([*ROWS[0], first]).items()}


def test_tiny_probabilities_of_filters_are_left_to_the_processors(model: PreTrainedModel) -> None:
    """`top_p=0` keeps one token, and a very low temperature is greedy in all but name; both outside what `SamplingParams` takes."""
    greedy = model.generate(**one_row(), **{**SAMPLED, "do_sample": False})
    trees = knowing(model, one_row(), greedy)
    assert torch.equal(model.generate(**one_row(), **{**SAMPLED, "top_p": 0.0}, custom_generate=trees), greedy)
    assert torch.equal(model.generate(**one_row(), **{**SAMPLED, "temperature": 1e-6}, custom_generate=trees), greedy)


def test_defaults_of_the_generation_config_apply(model: PreTrainedModel) -> None:
    """transformers' own default of top_k is 50: seen here too."""
    settings = {key: value for key, value in SAMPLED.items() if key != "top_k"}
    trees = knowing(model, one_row(), one_row()["input_ids"], seed=3)
    fifty = model.generate(**one_row(), **SAMPLED | {"top_k": 50}, custom_generate=trees)
    assert torch.equal(model.generate(**one_row(), **settings, custom_generate=trees), fifty)


def test_seed_out_of_range() -> None:
    with pytest.raises(ValueError, match="seed"):
        ddtree("tiny", seed=-1)
