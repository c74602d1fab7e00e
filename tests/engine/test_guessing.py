"""What guessing costs a batch: it is the engine's time that is at stake, so clocks are replaced by what rounds promise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from reference import random_drafter

from hoarfrost import Engine, SamplingParams
from hoarfrost.engine import guessing
from hoarfrost.engine.costs import CostModel
from hoarfrost.engine.plan import Promise

COSTS = CostModel(rows=(1, 64), contexts=(128,), verify_ms=((2.0, 20.0),), batches=(1, 16), draft_ms=(2.0, 8.0))


@pytest.fixture
def engine(model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Engine:
    """With a drafter that is never right, and rounds that take as long as they are to take."""
    settle = Promise.settle
    monkeypatch.setattr(Promise, "settle", lambda self, num_tokens, _: settle(self, num_tokens, self.milliseconds))
    monkeypatch.setattr(guessing, "load_costs", lambda *_: COSTS)
    loaded = Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")
    loaded.drafter = random_drafter(loaded.target)
    return loaded


def test_what_is_known_of_one_batch_counts_for_others(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of many lengths and two temperatures: no two rounds decode the same batch for long, and yet little is tried."""
    assert engine.drafter is not None
    num_drafted, propose = [], engine.drafter.propose
    monkeypatch.setattr(engine.drafter, "propose", lambda *arguments: num_drafted.append(1) or propose(*arguments))
    plain = SamplingParams(max_new_tokens=8, ignore_eos=True)
    params = [replace(plain, max_new_tokens=8 + 5 * index, temperature=0.3 * (index % 2)) for index in range(12)]
    completions = engine.generate([[index + 1] * 4 for index in range(12)], params)
    assert [len(one.token_ids) for one in completions] == [one.max_new_tokens for one in params]
    assert sum(num_drafted) <= 8
