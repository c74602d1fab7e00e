"""The engine on the ice store: with a budget of the whole context plain decoding to the token, below it a function of the prompt alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from devices import DEVICES
from reference import random_drafter

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.engine import scheduler

PROMPTS = [[index * 7 % 250 + 4 for index in range(90)], [5, 6, 7], [index * 11 % 250 + 4 for index in range(64)]]
PARAMS = SamplingParams(max_new_tokens=20, ignore_eos=True)
TREE = TreeConfig(budget=8)


def load(folder: str, device: str, cache: IceConfig | None, weights: str = "float") -> Engine:
    engine = Engine.load(folder, dtype="float32", device=device, cache=cache, weights=weights)
    engine.drafter = random_drafter(engine.target)
    return engine


def tokens_of(engine: Engine, prompts: list[list[int]], tree: TreeConfig) -> list[list[int]]:
    return [completion.token_ids for completion in engine.generate(prompts, PARAMS, tree=tree)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("index", ["ice", "exact"])
def test_budget_of_the_whole_context_decodes_as_the_dense_store(
    architecture: str, index: str, device: str, model_folder: Callable[[str], str]
) -> None:
    folder = model_folder(architecture)
    expected = tokens_of(load(folder, device, None), PROMPTS, TreeConfig.autoregressive())
    engine = load(folder, device, IceConfig(budget=512, num_sinks=2, window=16, page_size=4, index=index))
    for tree in (TreeConfig.autoregressive(), TREE, TreeConfig.chain()):
        assert tokens_of(engine, PROMPTS, tree) == expected


@pytest.mark.parametrize(("weights", "device"), [("int8", "cpu"), *(("float", device) for device in DEVICES)])
@pytest.mark.parametrize("index", ["ice", "quest", "dci"])
def test_the_text_depends_on_neither_tree_nor_neighbours(
    index: str, weights: str, device: str, model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows leave the window in the midst of rounds, and an index is begun in the midst of the answer to the third prompt."""
    monkeypatch.setattr(scheduler, "CHUNK_ROWS", 30)
    engine = load(model_folder("qwen3"), device, IceConfig(budget=72, num_sinks=2, window=12, page_size=4, index=index), weights)
    params = SamplingParams(max_new_tokens=40, ignore_eos=True)
    alone = [engine.generate([prompt], params, tree=TreeConfig.autoregressive())[0].token_ids for prompt in PROMPTS]
    together = engine.generate(PROMPTS, params, tree=TreeConfig.autoregressive())
    assert [completion.token_ids for completion in together] == alone
    for prompt, expected in zip(PROMPTS, alone, strict=True):
        engine.drafter = random_drafter(engine.target, told=prompt + expected)
        for tree in (TreeConfig(budget=8), TreeConfig(budget=24), TreeConfig.chain()):
            completion = engine.generate([prompt], params, tree=tree)[0]
            assert completion.token_ids == expected
            if index != "dci" and tree.budget == 24:
                assert completion.statistics.tau > 2, "whoever knows the text is believed"
