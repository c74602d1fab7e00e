"""Sharing the prompt between caches changes nothing: each answers as if it had read the prompt itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hoarfrost import Engine, SamplingParams
from hoarfrost.cache import DenseStore
from hoarfrost.cache.baselines import SnapKVSelection
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches import runner as cache_runner
from hoarfrost.evaluation.caches.runner import CacheRunner, chunks, read_prompt, step
from hoarfrost.evaluation.caches.variants import CACHES, FULL, CacheVariant, new_store, plan_variants
from hoarfrost.target import PackedRows

PROMPT = [4 + (7 * index * index + 3 * index) % 250 for index in range(150)]
VARIANTS = plan_variants(["full", "window", "snapkv", "oracle", "quest"], [64])


@pytest.fixture
def engine(model_folder: Callable[[str], str]) -> Engine:
    return Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")


@torch.inference_mode()
def alone(engine: Engine, variant: CacheVariant, fed: list[int], num_tokens: int, num_decoded: int = 0) -> list[int]:
    """The plain twin: one store, read and decoded as an engine does."""
    target = engine.target
    store = new_store(target, variant, 16)
    read = PROMPT[: len(PROMPT) - num_decoded]
    for chunk in chunks(len(read)):
        hidden, _ = target.forward(PackedRows.from_chunk(store, read[chunk.start : chunk.stop], target.device))
        store.commit(range(len(chunk)))
    store.start_decoding()
    logits = target.logits(hidden[-1:])
    for token in (*PROMPT[len(read) :], *fed):
        logits = step(target, [store], [token])
    tokens: list[int] = []
    while len(tokens) < num_tokens and int(logits.argmax()) not in target.eos_token_ids:
        tokens.append(int(logits.argmax()))
        logits = step(target, [store], tokens[-1:])
    return tokens


@pytest.mark.parametrize(("fed", "num_decoded"), [([], 0), ([30, 31, 32], 0), ([30, 31], 20)])
def test_answers_are_those_of_each_cache_alone(engine: Engine, fed: list[int], num_decoded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_runner, "CHUNK", 37)
    answers = CacheRunner(engine.target, VARIANTS).answer(PROMPT, fed, 12, num_decoded=num_decoded)
    for variant in VARIANTS:
        assert answers[variant] == alone(engine, variant, fed, 12, num_decoded), variant


def test_caches_do_not_touch_each_other(engine: Engine) -> None:
    variants = plan_variants(CACHES, [64])
    together = CacheRunner(engine.target, variants).answer(PROMPT, [30, 31], 12, num_decoded=20)
    for variant in variants:
        assert CacheRunner(engine.target, [variant]).answer(PROMPT, [30, 31], 12, num_decoded=20) == {variant: together[variant]}


def test_the_full_cache_and_budgets_of_everything_answer_as_the_engine(engine: Engine) -> None:
    expected = engine.generate([PROMPT], SamplingParams(max_new_tokens=12))[0].token_ids
    answers = CacheRunner(engine.target, plan_variants(CACHES, [400])).answer(PROMPT, [], 12)
    stripped = [token for token in expected if token not in engine.target.eos_token_ids]
    assert all(answer == stripped for answer in answers.values())


def test_small_memory_means_several_groups_and_the_same_answers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    together = CacheRunner(engine.target, VARIANTS).answer(PROMPT, [40], 8)
    monkeypatch.setattr(cache_runner, "MAX_BYTES", 1)
    assert CacheRunner(engine.target, VARIANTS).answer(PROMPT, [40], 8) == together


def test_an_answer_ends_at_an_end_token_which_is_left_out(engine: Engine) -> None:
    runner = CacheRunner(engine.target, VARIANTS[:2])
    free = runner.answer(PROMPT, [], 12)[VARIANTS[0]]
    engine.target.eos_token_ids = (free[3],)
    assert runner.answer(PROMPT, [], 12)[VARIANTS[0]] == free[: free.index(free[3])]


@pytest.mark.parametrize("num_rows", [1, 5, 511, 512, 513, 1024, 1500])
def test_chunks_cover_the_prompt_and_the_last_is_whole(num_rows: int) -> None:
    cut = list(chunks(num_rows))
    assert [row for chunk in cut for row in chunk] == list(range(num_rows))
    assert len(cut[-1]) == min(num_rows, cache_runner.CHUNK)


def test_filled_stores_hold_the_prompts_rows(engine: Engine) -> None:
    rows, logits = read_prompt(engine.target, PROMPT)
    store = DenseStore(4, 2, 16, dtype=torch.float32, device="cpu")
    rows.fill(store)
    assert store.length == len(PROMPT)
    assert torch.equal(store._buffer[:, :, :, : len(PROMPT)], rows._buffer[:, :, :, : len(PROMPT)])
    assert logits.shape == (1, engine.target.vocab_size)


class TestVariants:
    def test_the_full_cache_comes_once(self) -> None:
        assert plan_variants(["full", "window"], [64, 128]) == [
            CacheVariant(FULL),
            CacheVariant("window", 64),
            CacheVariant("window", 128),
        ]

    @pytest.mark.parametrize(
        ("caches", "budgets", "said"),
        [
            (["fulll"], [64], "Unknown cache 'fulll'"),
            ([], [64], "caches"),
            (["full", "full"], [64], "names one twice"),
            (["full"], [], "budgets"),
        ],
    )
    def test_what_cannot_be_compared(self, caches: list[str], budgets: list[int], said: str) -> None:
        with pytest.raises(InvalidInput, match=said):
            plan_variants(caches, budgets)

    def test_budgets_are_checked_before_anything_runs(self, engine: Engine) -> None:
        with pytest.raises(InvalidInput, match="budget of 32 rows leaves SnapKV nothing"):
            CacheRunner(engine.target, [CacheVariant("snapkv", SnapKVSelection(64).num_observed)])
