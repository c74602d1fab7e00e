"""Exactness: whatever the tree, the budget, the drafter, the batch and the chunking, the tokens are those of plain decoding.

A difference would be excused only where plain decoding's own two best choices lie within 1e-4 of each other; these
random models have none, and the tests say so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ARCHITECTURES
from devices import DEVICES
from reference import random_drafter
from transformers import AutoModelForCausalLM

from hoarfrost import Engine, SamplingParams, TreeConfig
from hoarfrost.engine import scheduler
from hoarfrost.errors import InvalidInput

PROMPTS = [[10, 50, 90, 130], [200, 11, 12, 13, 14, 15, 16], [77], list(range(60, 100)), [5, 5, 5, 5, 5]]
SETTINGS = [
    SamplingParams(max_new_tokens=24, ignore_eos=True),
    SamplingParams(max_new_tokens=24, ignore_eos=True, temperature=0.7, top_p=0.9, seed=3),
    SamplingParams(max_new_tokens=24, ignore_eos=True, temperature=1.0, seed=4),
    SamplingParams(max_new_tokens=24, ignore_eos=True, temperature=1.0, top_k=20, min_p=0.02, seed=5),
]
TREES = [
    *(TreeConfig.published(budget) for budget in (1, 8, 15, 32, 64)),
    *(TreeConfig(budget) for budget in (1, 15, 64)),
    TreeConfig(16, max_width=2),
    TreeConfig(16, calibration=False),
    TreeConfig(16, retrieval=False),
    TreeConfig(16, coupling=False),
    TreeConfig(),
    TreeConfig.chain(),
]


def load(folder: str, device: str = "cpu", **options: object) -> Engine:
    engine = Engine.load(folder, dtype="float32", device=device, **options)
    engine.drafter = random_drafter(engine.target)
    return engine


def tokens_of(engine: Engine, prompts: list[list[int]], params: SamplingParams, tree: TreeConfig) -> list[list[int]]:
    return [completion.token_ids for completion in engine.generate(prompts, params, tree=tree)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_decoding_is_transformers_greedy(architecture: str, device: str, model_folder: Callable[[str], str]) -> None:
    folder = model_folder(architecture)
    engine = load(folder, device)
    stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    for prompt in PROMPTS:
        ours = engine.generate([prompt], SETTINGS[0], tree=TreeConfig.autoregressive())[0].token_ids
        theirs = stock.generate(
            torch.tensor([prompt], device=device), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert ours == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("params", SETTINGS, ids=["greedy", "top-p", "plain", "top-k-min-p"])
def test_trees_and_batches_equal_plain_decoding(
    architecture: str, params: SamplingParams, device: str, model_folder: Callable[[str], str]
) -> None:
    engine = load(model_folder(architecture), device)
    expected = [tokens_of(engine, [prompt], params, TreeConfig.autoregressive())[0] for prompt in PROMPTS]
    assert tokens_of(engine, PROMPTS, params, TreeConfig.autoregressive()) == expected, "batched plain decoding"
    for tree in TREES:
        assert tokens_of(engine, PROMPTS, params, tree) == expected, f"batched, {tree}"
    for prompt, tokens in zip(PROMPTS[:2], expected, strict=False):
        assert tokens_of(engine, [prompt], params, TREES[1]) == [tokens], "one at a time"


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("params", SETTINGS, ids=["greedy", "top-p", "plain", "top-k-min-p"])
def test_quantised_weights_decode_alike_to_the_last_bit(
    architecture: str, dtype: str, params: SamplingParams, model_folder: Callable[[str], str]
) -> None:
    """Whole-number products do not depend on their company, so not even near ties may fall another way, keys in bfloat16 or not."""
    engine = Engine.load(model_folder(architecture), dtype=dtype, device="cpu", weights="int8")
    assert engine.target.weights == "Q8_0"
    expected = [tokens_of(engine, [prompt], params, TreeConfig.autoregressive())[0] for prompt in PROMPTS]
    engine.drafter = random_drafter(engine.target)
    for tree in (TreeConfig.autoregressive(), TreeConfig.published(8), TreeConfig(15), TreeConfig(64), TreeConfig(), TreeConfig.chain()):
        assert tokens_of(engine, PROMPTS, params, tree) == expected, f"batched, {tree}"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_shipped_pair_in_blocks_decodes_alike(temperature: float) -> None:
    """Target and drafter quantised: guesses change, and what is said does not."""
    engine = Engine.load("tiny", device="cpu", weights="int8")
    params = SamplingParams(max_new_tokens=40, temperature=temperature, seed=7)
    prompts = [engine.chat(text) for text in ("What is 17 plus 25?", "Write a Python function that adds two numbers.")]
    expected = [tokens_of(engine, [prompt], params, TreeConfig.autoregressive())[0] for prompt in prompts]
    for tree in (TreeConfig(16), TreeConfig(), TreeConfig.chain()):
        completions = engine.generate(prompts, params, tree=tree)
        assert [completion.token_ids for completion in completions] == expected, tree
    assert engine.generate(prompts, params, tree=TreeConfig.chain())[0].statistics.tau > 1.2, "a drafter in 8 bits still guesses"


@pytest.mark.parametrize("device", DEVICES)
def test_a_drafter_that_is_right_is_believed(device: str, model_folder: Callable[[str], str]) -> None:
    """With guesses that are the target's own choices every round ends at the horizon, and the tokens stay the same."""
    engine = load(model_folder("qwen3"), device)
    params = SETTINGS[2]
    expected = tokens_of(engine, PROMPTS[:1], params, TreeConfig.autoregressive())
    engine.drafter = random_drafter(engine.target, told=PROMPTS[0] + expected[0])
    for tree in (TreeConfig(budget=8), TreeConfig.chain()):
        completion = engine.generate(PROMPTS[:1], params, tree=tree)[0]
        assert completion.token_ids == expected[0]
        assert completion.statistics.tau > 4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("params", SETTINGS, ids=["greedy", "top-p", "plain", "top-k-min-p"])
def test_without_a_drafter_retrieval_alone_changes_nothing(params: SamplingParams, device: str, model_folder: Callable[[str], str]) -> None:
    engine = Engine.load(model_folder("llama"), dtype="float32", device=device)
    prompts = [*PROMPTS, [7, 8, 9, 10, 11, 7, 8, 9]]
    expected = [tokens_of(engine, [prompt], params, TreeConfig.autoregressive())[0] for prompt in prompts]
    for tree in (TreeConfig(), TreeConfig(12)):
        assert tokens_of(engine, prompts, params, tree) == expected
    with pytest.raises(InvalidInput, match="neither"):
        engine.generate(prompts, params, tree=TreeConfig.published(8))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tree", [TreeConfig(), TreeConfig(16), TreeConfig.published(16)], ids=["auto", "fixed", "published"])
@pytest.mark.parametrize("params", SETTINGS, ids=["greedy", "top-p", "plain", "top-k-min-p"])
def test_path_conditional_guesses_change_nothing(
    params: SamplingParams, tree: TreeConfig, device: str, model_folder: Callable[[str], str]
) -> None:
    engine = load(model_folder("qwen3"), device)
    expected = [tokens_of(engine, [prompt], params, TreeConfig.autoregressive())[0] for prompt in PROMPTS]
    engine.drafter = random_drafter(engine.target, conditional=True)
    assert tokens_of(engine, PROMPTS, params, tree) == expected


@pytest.mark.parametrize("device", DEVICES)
def test_mixed_params_and_refill_do_not_touch_each_other(device: str, model_folder: Callable[[str], str]) -> None:
    engine = load(model_folder("qwen3"), device, max_batch_size=2)
    each = [SETTINGS[index % len(SETTINGS)] for index in range(len(PROMPTS))]
    alone = [tokens_of(engine, [prompt], params, TreeConfig.autoregressive())[0] for prompt, params in zip(PROMPTS, each, strict=True)]
    together = engine.generate(PROMPTS, each, tree=TreeConfig(budget=12))
    assert [completion.token_ids for completion in together] == alone


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("num_tokens", "chunk_rows"), [(40, 7), (320, 150)], ids=["short", "long"])
def test_chunking_of_the_prompt_changes_nothing(
    num_tokens: int, chunk_rows: int, device: str, model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of more and of fewer rows than count as prefill, which are attended to in other ways."""
    engine = load(model_folder("llama"), device)
    prompt = [index * 7 % 250 + 4 for index in range(num_tokens)]
    whole = tokens_of(engine, [prompt], SETTINGS[1], TreeConfig(budget=8))
    for name in ("NATIVE_CHUNK_ROWS", "CHUNK_ROWS"):
        monkeypatch.setattr(scheduler, name, chunk_rows)
    assert tokens_of(engine, [prompt], SETTINGS[1], TreeConfig(budget=8)) == whole


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("params", [SETTINGS[0], SETTINGS[2]], ids=["greedy", "plain"])
def test_trees_of_as_many_rows_as_a_prefill(params: SamplingParams, device: str, model_folder: Callable[[str], str]) -> None:
    engine = load(model_folder("llama"), device)
    expected = [tokens_of(engine, [prompt], params, TreeConfig.autoregressive())[0] for prompt in PROMPTS[:2]]
    assert tokens_of(engine, PROMPTS[:2], params, TreeConfig(200)) == expected


def test_stream_is_generate_piece_by_piece(model_folder: Callable[[str], str]) -> None:
    engine = load(model_folder("qwen3"))
    completion = engine.generate([PROMPTS[0]], SETTINGS[1], tree=TreeConfig(budget=8))[0]
    pieces = list(engine.stream(PROMPTS[0], SETTINGS[1], tree=TreeConfig(budget=8)))
    assert [token for piece in pieces for token in piece.token_ids] == completion.token_ids
    assert "".join(piece.text for piece in pieces) == completion.text
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason == completion.finish_reason == "length"
    assert all(0 <= piece.num_from_tree <= len(piece.token_ids) for piece in pieces)


def test_the_context_limit_ends_the_answer(model_folder: Callable[[str], str], tmp_path: Path) -> None:
    engine = load(model_folder("qwen3"))
    prompt = [20] * (engine.target.max_positions - 5)
    completion = engine.generate([prompt], SamplingParams(max_new_tokens=50, ignore_eos=True), tree=TreeConfig(budget=16))[0]
    assert len(completion.token_ids) == 5
    assert completion.finish_reason == "length"
