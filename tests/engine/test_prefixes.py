"""Beginnings that were read before: a prompt starts behind them, and nothing that is said changes, nor a bit of what is stored."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from engine.test_requests import run_to_the_end, tokens_of

from hoarfrost import Engine, Limits, Request, SamplingParams, TreeConfig
from hoarfrost.cache import DenseStore
from hoarfrost.engine import scheduler

PLAIN = TreeConfig.autoregressive()
PARAMS = SamplingParams(max_new_tokens=6, ignore_eos=True)
ROWS = 8
TEXT = [index * 37 % 240 + 4 for index in range(60)]


@pytest.fixture
def load(model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    monkeypatch.setattr(scheduler, "NATIVE_CHUNK_ROWS", ROWS)

    def load(**options: object) -> Engine:
        return Engine.load(model_folder("qwen3"), device="cpu", **{"dtype": "float32", **options})

    return load


def num_cached(engine: Engine, prompt: list[int], tree: TreeConfig = PLAIN) -> int:
    statistics = engine.generate([prompt], PARAMS, tree=tree)[0].statistics
    engine.check_integrity()
    return statistics.num_cached_tokens


def test_whole_chunks_are_found_as_far_as_the_prompts_are_alike(load: Callable[..., Engine]) -> None:
    engine = load()
    assert num_cached(engine, TEXT[:30]) == 0
    assert num_cached(engine, TEXT[:30]) == 24
    assert num_cached(engine, TEXT[:24]) == 16, "the last token is read again: something has to be said after it"
    assert num_cached(engine, TEXT[:60]) == 24
    assert num_cached(engine, TEXT[:60]) == 56
    assert num_cached(engine, [*TEXT[:17], 3, *TEXT[18:40]]) == 16
    assert num_cached(engine, [3, *TEXT[1:40]]) == 0, "the same chunks behind another are not the same"
    assert num_cached(engine, TEXT[8:40]) == 0


@pytest.mark.parametrize("options", [{}, {"weights": "int8"}, {"dtype": "bfloat16"}], ids=["float32", "int8", "bfloat16"])
def test_what_is_stored_is_the_same_to_the_last_bit(options: dict[str, str], load: Callable[..., Engine]) -> None:
    def stored(engine: Engine) -> torch.Tensor:
        request_id = engine.add(Request(TEXT, PARAMS, PLAIN))
        while engine._scheduler.running.get(request_id) is None or engine._scheduler.running[request_id].is_reading:
            engine.step()
        store = engine._scheduler.running[request_id].store
        assert isinstance(store, DenseStore)
        rows = store.copy_rows(0, len(TEXT))
        engine.abort(request_id)
        return rows

    fresh = stored(load(limits=Limits(prefix_bytes=0), **options))
    engine = load(**options)
    stored(engine)
    assert num_cached(engine, TEXT) == 56
    assert torch.equal(stored(engine), fresh)


def test_any_mix_of_prompts_that_begin_alike_decodes_each_as_alone(load: Callable[..., Engine]) -> None:
    alone, chance = load(limits=Limits(prefix_bytes=0)), random.Random(0)
    block_bytes = ROWS * 2 * alone.target.num_layers * alone.target.num_kv_heads * alone.target.head_dim * 4
    engine = load(limits=Limits(prefix_bytes=9 * block_bytes), max_batch_size=3)
    requests = []
    for seed in range(40):
        prompt = [*TEXT[: chance.randrange(60)], *TEXT[chance.choice([0, 8, 21]) :][: chance.randrange(1, 30)]]
        params = SamplingParams(max_new_tokens=5, temperature=chance.choice([0.0, 1.0]), seed=seed, ignore_eos=True)
        requests.append(Request(prompt, params, chance.choice([PLAIN, TreeConfig(4), TreeConfig()])))
    expected = [alone.generate([one.prompt], one.params, tree=PLAIN)[0].token_ids for one in requests]
    ids = [engine.add(request) for request in requests]
    pieces = run_to_the_end(engine)
    assert [tokens_of(pieces[one]) for one in ids] == expected
    assert sum(pieces[one][-1].statistics.num_cached_tokens > 0 for one in ids) > 10
    assert engine._prefixes.num_bytes == 9 * block_bytes, "it is full"


def test_what_was_used_longest_ago_goes_and_ends_before_beginnings(load: Callable[..., Engine]) -> None:
    engine = load()
    num_cached(engine, TEXT[:41])
    engine._prefixes.max_bytes = engine._prefixes.num_bytes  # of five blocks
    other = [9] * 17
    assert num_cached(engine, other) == 0
    assert num_cached(engine, TEXT[:41]) == 24, "two blocks had to go for those of the other"
    assert num_cached(engine, other) == 0, "and have come back in their stead"


def test_a_chunk_larger_than_all_that_may_be_drives_nothing_out(load: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load()
    num_cached(engine, TEXT[:9])
    engine._prefixes.max_bytes = engine._prefixes.num_bytes  # of one block
    monkeypatch.setattr(scheduler, "NATIVE_CHUNK_ROWS", 2 * ROWS)
    assert num_cached(engine, [3] * 20) == num_cached(engine, [3] * 20) == 0
    monkeypatch.setattr(scheduler, "NATIVE_CHUNK_ROWS", ROWS)
    assert num_cached(engine, TEXT[:9]) == 8


def test_nothing_is_kept_where_nothing_may_be(load: Callable[..., Engine]) -> None:
    engine = load(limits=Limits(prefix_bytes=0))
    assert [num_cached(engine, TEXT) for _ in range(2)] == [0, 0]
    assert engine._prefixes.num_bytes == 0


def test_a_drafter_begins_where_the_target_does() -> None:
    """Its guesses are those of one that has read the whole prompt; rows of requests without it are of no use to it."""
    engine = Engine.load("tiny", device="cpu", dtype="float32")
    prompt = engine.chat("Write a Python function that adds two numbers, and say how it is tested. " * 8)
    assert len(prompt) > scheduler.NATIVE_CHUNK_ROWS
    tree, params = TreeConfig.published(8), SamplingParams(max_new_tokens=24, ignore_eos=True)
    engine.generate([prompt], params, tree=PLAIN)
    completions = [engine.generate([prompt], params, tree=tree)[0] for _ in range(3)]
    cached = [one.statistics.num_cached_tokens for one in completions]
    assert cached[0] == 0
    assert cached[1] == cached[2] >= scheduler.NATIVE_CHUNK_ROWS
    assert completions[0].token_ids == completions[1].token_ids
    assert completions[0].statistics.accepted_histogram == completions[1].statistics.accepted_histogram
    engine.drafter = None
    assert engine.generate([prompt], params, tree=PLAIN)[0].statistics.num_cached_tokens == 0, "whose rows they are, nobody knows"
