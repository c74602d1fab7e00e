"""Memory, the queue and deadlines: who does not fit waits or is refused, and nobody waits for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine.test_exactness import PROMPTS
from engine.test_requests import iter_pieces, run_to_the_end, tokens_of

from hoarfrost import Engine, IceConfig, InvalidInput, Limits, Request, ResourceExhausted, SamplingParams, TreeConfig
from hoarfrost.engine.limits import bytes_for

PLAIN = TreeConfig.autoregressive()
PARAMS = SamplingParams(max_new_tokens=10, ignore_eos=True)


@pytest.fixture
def load(model_folder: Callable[[str], str]) -> Callable[..., Engine]:
    return lambda **options: Engine.load(model_folder("qwen3"), dtype="float32", device="cpu", tree=PLAIN, **options)


@pytest.fixture
def row_bytes(load: Callable[..., Engine]) -> int:
    return bytes_for(1, load().target, None, None)


def test_bytes_are_those_that_a_store_holds(load: Callable[..., Engine], row_bytes: int, tmp_path: Path) -> None:
    target = load().target
    assert row_bytes * 100 == target.new_store(100).bytes_by_tier()["cpu"] == bytes_for(100, target, None, None)
    on_disk = IceConfig(budget=64, num_sinks=2, window=16, page_size=4, cold_tier=str(tmp_path))
    assert bytes_for(50, target, None, on_disk) == 50 * row_bytes
    assert bytes_for(5000, target, None, on_disk) == 72 * row_bytes


def test_who_does_not_fit_waits_and_all_come_to_their_ends(load: Callable[..., Engine], row_bytes: int) -> None:
    engine = load(limits=Limits(num_bytes=60 * row_bytes))
    expected = [load().generate([prompt], PARAMS)[0].token_ids for prompt in PROMPTS]
    ids = [engine.add(Request(prompt, PARAMS)) for prompt in PROMPTS]
    most, pieces = 0, dict[int, list[Any]]()
    while not engine.is_idle:
        for request_id, piece in engine.step():
            pieces.setdefault(request_id, []).append(piece)
        rows = [len(one.prompt_ids) + PARAMS.max_new_tokens for one in engine._scheduler.running.values()]
        assert sum(rows) <= 60
        most = max(most, len(rows))
        engine.check_integrity()
    assert most == 3
    assert [tokens_of(pieces[one]) for one in ids] == expected
    assert [one for one, told in pieces.items() if told] == ids, "in the order in which they came"


def test_a_request_that_never_fits_is_refused_with_both_numbers(load: Callable[..., Engine], row_bytes: int) -> None:
    engine = load(limits=Limits(num_bytes=20 * row_bytes))
    with pytest.raises(InvalidInput, match=rf"50 tokens take {50 * row_bytes:,} bytes, and {20 * row_bytes:,} are there"):
        engine.add(Request(PROMPTS[3], PARAMS))
    assert len(engine.generate([PROMPTS[0]], PARAMS)[0].token_ids) == 10


def test_a_full_queue_refuses_and_goes_on(load: Callable[..., Engine]) -> None:
    engine = load(max_batch_size=1, limits=Limits(num_waiting=2))
    ids = [engine.add(Request(prompt, PARAMS)) for prompt in PROMPTS[:2]]
    with pytest.raises(ResourceExhausted, match="2 requests wait already"):
        engine.add(Request(PROMPTS[2], PARAMS))
    engine.step()
    ids.append(engine.add(Request(PROMPTS[2], PARAMS)))
    assert set(run_to_the_end(engine)) == set(ids)
    assert len(engine.generate(PROMPTS, PARAMS)) == len(PROMPTS), "a call of one's own waits as long as it takes"


@pytest.mark.parametrize("limits", [{"num_bytes": 0}, {"prefix_bytes": -1}, {"num_waiting": 0}, {"num_waiting": 1.5}, {"num_bytes": True}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(limits))):
        Limits(**limits)


def test_a_request_ends_at_its_deadline_with_what_it_has(load: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    engine = load(max_batch_size=2)
    expected = engine.generate([PROMPTS[0]], PARAMS)[0].token_ids
    short, long = (engine.add(Request(PROMPTS[0], PARAMS, timeout_seconds=seconds)) for seconds in (5, 500))
    waits, lasts = (engine.add(Request(PROMPTS[1], PARAMS, timeout_seconds=seconds)) for seconds in (3, None))
    told: dict[int, list[Any]] = {one: [] for one in (short, long, waits, lasts)}
    for _ in range(4):
        for request_id, piece in engine.step():
            told[request_id].append(piece)
        now[0] += 2
        engine.check_integrity()
    for request_id, piece in iter_pieces(engine):
        told[request_id].append(piece)
    assert {one: pieces[-1].finish_reason for one, pieces in told.items()} == {
        short: "timeout", long: "length", waits: "timeout", lasts: "length",
    }  # fmt: skip
    assert tokens_of(told[short]) == expected[:3]
    assert told[short][-1].statistics.num_tokens == 3
    assert tokens_of(told[long]) == expected
    assert told[waits][0].token_ids == []


@pytest.mark.parametrize("seconds", [0, -1, "soon", True, float("nan")])
def test_deadlines_that_make_no_sense_are_refused(seconds: Any) -> None:
    with pytest.raises(InvalidInput, match="timeout_seconds"):
        Request([1], timeout_seconds=seconds)
