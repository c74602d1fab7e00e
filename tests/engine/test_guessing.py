"""What guessing costs an engine: it is its time that is at stake, so clocks are replaced by rounds of known lengths."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from reference import random_drafter

from hoarfrost import Engine, Request, SamplingParams, TreeConfig
from hoarfrost.engine.costs import RoundCosts, Times
from hoarfrost.engine.policy import Policy
from hoarfrost.engine.statistics import StageClock

PROMPTS = [[index + 1] * 4 for index in range(12)]


@pytest.fixture
def engine(model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Engine:
    """With a drafter that is never right; every round counts as one of 5 milliseconds."""
    monkeypatch.setattr(Times, "observe", lambda *_: None)
    monkeypatch.setattr(StageClock, "total", 0.005)
    loaded = Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")
    loaded.drafter = random_drafter(loaded.target)
    loaded.guesser.policy = Policy(RoundCosts(Times((1, 64), (2.0, 20.0)), Times((1, 16), (2.0, 8.0))))
    return loaded


@pytest.fixture
def num_drafted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences were drafted for, per call."""
    assert engine.drafter is not None
    seen, propose = list[int](), engine.drafter.propose
    monkeypatch.setattr(engine.drafter, "propose", lambda states, bonus: seen.append(len(states)) or propose(states, bonus))
    return seen


def test_what_is_known_of_one_batch_counts_for_others(engine: Engine, num_drafted: list[int]) -> None:
    """Answers of many lengths and two temperatures: no two rounds decode the same batch for long, and yet little is tried."""
    plain = SamplingParams(max_new_tokens=8, ignore_eos=True)
    params = [replace(plain, max_new_tokens=8 + 5 * index, temperature=0.3 * (index % 2)) for index in range(12)]
    completions = engine.generate(PROMPTS, params)
    assert [len(one.token_ids) for one in completions] == [one.max_new_tokens for one in params]
    assert len(num_drafted) <= 8


def test_sequences_of_several_settings_share_a_draft(engine: Engine, num_drafted: list[int]) -> None:
    trees = [TreeConfig(), TreeConfig(retrieval=False), TreeConfig(max_width=2), TreeConfig(calibration=False), TreeConfig(coupling=False)]
    params = SamplingParams(max_new_tokens=12, ignore_eos=True, temperature=0.8, seed=3)
    expected = [engine.generate([prompt], params, tree=TreeConfig.autoregressive())[0].token_ids for prompt in PROMPTS[:5]]
    ids = [engine.add(Request(prompt, params, tree)) for prompt, tree in zip(PROMPTS, trees, strict=False)]
    told: dict[int, list[int]] = {request_id: [] for request_id in ids}
    while not engine.is_idle:
        for request_id, piece in engine.step():
            told[request_id].extend(piece.token_ids)
    assert list(told.values()) == expected
    assert max(num_drafted) > 1


def test_where_rows_are_dear_nothing_is_verified(engine: Engine, num_drafted: list[int]) -> None:
    engine.guesser.policy = Policy(RoundCosts(Times((1, 2), (1.0, 50.0)), Times((1,), (50.0,))))
    params = SamplingParams(max_new_tokens=40, ignore_eos=True)
    completions = engine.generate(PROMPTS, params)
    assert not num_drafted
    assert {one.statistics.tau for one in completions} == {1.0}
