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


def load(folder: str, device: str, cache: IceConfig | None) -> Engine:
    engine = Engine.load(folder, dtype="float32", device=device, cache=cache)
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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("index", ["ice", "quest"])
def test_trees_and_batches_decode_as_one_by_one_while_nothing_leaves_the_window(
    index: str, device: str, model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "CHUNK_ROWS", 30)
    window = IceConfig(budget=64, num_sinks=2, window=44, page_size=8, index=index)
    engine = load(model_folder("qwen3"), device, window)
    # Behind this prompt 48 rows wait in pages, of which 16 are fetched, and the window has room for seven rows more.
    params = SamplingParams(max_new_tokens=4, ignore_eos=True)
    prompt = PROMPTS[0][:87]
    alone = engine.generate([prompt], params, tree=TreeConfig.autoregressive())[0].token_ids
    engine.drafter = random_drafter(engine.target, told=prompt + alone)
    assert engine.generate([prompt], params, tree=TREE)[0].token_ids == alone
    plain = TreeConfig.autoregressive()
    assert tokens_of(engine, PROMPTS, plain) == [tokens_of(engine, [one], plain)[0] for one in PROMPTS], "neighbours change nothing"
