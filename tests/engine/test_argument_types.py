"""What people hand over by mistake is refused by name, and before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hoarfrost import Engine, InvalidInput, SamplingParams

PARAMS = SamplingParams(max_new_tokens=2)
CALLS: dict[str, Callable[[Any], Any]] = {
    "encoding": lambda engine: engine.generate(engine.tokenizer("hi"), PARAMS),
    "dict": lambda engine: engine.generate({"input_ids": [[5, 6]]}, PARAMS),
    "floats": lambda engine: engine.generate([[1.5, 2.0]], PARAMS),
    "params as dict": lambda engine: engine.generate(["hi"], {"temperature": 0.5}),
    "params as number": lambda engine: engine.generate(["hi"], 0.5),
    "params as list of dicts": lambda engine: engine.generate(["hi"], [{"temperature": 0.5}]),
    "tree as number": lambda engine: engine.generate(["hi"], PARAMS, tree=8),
    "messages": lambda engine: engine.generate([{"role": "user", "content": "hi"}], PARAMS),
    "stream with a tree as number": lambda engine: engine.stream("hi", PARAMS, tree=8),
    "stream with params as dict": lambda engine: engine.stream("hi", {"temperature": 0.5}),
    "load with a tree as number": lambda _: Engine.load("not/there", tree=5),
    "load with a cache as number": lambda _: Engine.load("not/there", cache=256),
}


@pytest.fixture(scope="module")
def engine(model_folder: Callable[[str], str]) -> Engine:
    return Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")


@pytest.mark.parametrize("name", CALLS)
def test_is_refused(name: str, engine: Engine) -> None:
    with pytest.raises(InvalidInput) as refused:
        CALLS[name](engine)
    assert "not/there" not in str(refused.value)
