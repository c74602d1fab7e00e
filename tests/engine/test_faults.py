"""A request that fails ends alone: with its own error, while the others' tokens stay what they are."""

from __future__ import annotations

import errno
import gc
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from engine.test_exactness import PROMPTS, SETTINGS, load
from reference import RandomDrafter

from hoarfrost import Completion, Engine, IceConfig, ModelFault, Request, ResourceExhausted, SamplingParams, TreeConfig
from hoarfrost.cache import DenseStore
from hoarfrost.errors import as_fault
from hoarfrost.sampling import Chooser

PARAMS = SamplingParams(max_new_tokens=12, ignore_eos=True)
PLAIN = TreeConfig.autoregressive()
TREES = [PLAIN, TreeConfig(8), TreeConfig.published(8), TreeConfig()]


@pytest.fixture
def folder(model_folder: Callable[[str], str]) -> str:
    return model_folder("qwen3")


@pytest.fixture
def engine(folder: str) -> Iterator[Engine]:
    engine = load(folder)
    yield engine
    engine.check_integrity()
    assert engine.is_idle, "nothing is left behind"


def spoil(engine: Engine, *token_ids: int) -> None:
    """Makes the embeddings of tokens NaN."""
    with torch.no_grad():
        engine.target.embed.weight[list(token_ids)] = torch.nan


def check_others(together: list[Completion], bad: int, expected: list[list[int]], kind: type[Exception] = ModelFault) -> None:
    assert [one.token_ids for index, one in enumerate(together) if index != bad] == expected
    assert together[bad].finish_reason == "error"
    assert isinstance(together[bad].error, kind)
    assert all(one.error is None for index, one in enumerate(together) if index != bad)


@pytest.mark.parametrize("tree", TREES, ids=["plain", "fixed", "published", "auto"])
@pytest.mark.parametrize("params", SETTINGS, ids=["greedy", "top-p", "plain", "top-k-min-p"])
def test_a_prompt_that_cannot_be_decoded(params: SamplingParams, tree: TreeConfig, engine: Engine) -> None:
    expected = [engine.generate([prompt], params, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    said = {token_id for tokens in [*expected, *PROMPTS] for token_id in tokens}
    bad = [3, next(token_id for token_id in range(4, 250) if token_id not in said), 4]
    spoil(engine, bad[1])
    together = engine.generate([*PROMPTS[:2], bad, *PROMPTS[2:]], params, tree=tree)
    check_others(together, 2, expected)
    assert "NaN" in str(together[2].error)
    with pytest.raises(ModelFault, match="NaN"):
        engine.generate([bad], params, tree=tree)
    with pytest.raises(ModelFault, match="NaN"):
        list(engine.stream(bad, params, tree=tree))


@pytest.mark.parametrize("tree", TREES, ids=["plain", "fixed", "published", "auto"])
@pytest.mark.parametrize("params", SETTINGS, ids=["greedy", "top-p", "plain", "top-k-min-p"])
def test_a_token_that_cannot_be_read_ends_the_answer_where_plain_decoding_does(
    params: SamplingParams, tree: TreeConfig, engine: Engine
) -> None:
    """Its choice is still the model's; the row behind it is what fails, in a tree as without one."""
    expected = [engine.generate([prompt], params, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    at = next(place for place in range(8, 24) if expected[0][place] not in [*expected[0][:place], *PROMPTS[0]])
    spoil(engine, expected[0][at])
    told = [one.token_ids for one in engine.generate(PROMPTS, params, tree=PLAIN)]
    together = engine.generate(PROMPTS, params, tree=tree)
    assert [one.token_ids for one in together] == told
    assert together[0].token_ids == expected[0][: at + 1]
    assert together[0].finish_reason == "error"


@pytest.mark.parametrize("architecture", ["qwen3", "qwen3_moe"])
def test_a_guess_that_cannot_be_read_hurts_nobody(architecture: str, model_folder: Callable[[str], str]) -> None:
    for params in SETTINGS:
        engine = load(model_folder(architecture))
        expected = [engine.generate([prompt], params, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
        said = {token_id for tokens in [*expected, *PROMPTS] for token_id in tokens}
        spoil(engine, *(token_id for token_id in range(engine.target.vocab_size) if token_id not in said))
        for tree in TREES:
            engine.guesser = engine.new_guesser()
            together = engine.generate(PROMPTS, params, tree=tree)
            assert [one.token_ids for one in together] == expected, tree
            assert {one.finish_reason for one in together} == {"length"}
            engine.check_integrity()


@pytest.mark.parametrize("tree", TREES, ids=["plain", "fixed", "published", "auto"])
@pytest.mark.parametrize("kind", ["RuntimeError", "MemoryError", "OSError"])
def test_a_commit_that_fails(kind: str, tree: TreeConfig, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [engine.generate([prompt], PARAMS, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    engine.guesser.prepare(tree)  # with stores of its own
    error = {"RuntimeError": RuntimeError("broken"), "MemoryError": MemoryError(), "OSError": OSError(errno.ENOSPC, "no space left")}[kind]
    commit, new_store, stores = DenseStore.commit, engine.target.new_store, []

    def new_store_seen(*arguments: Any) -> Any:
        stores.append(weakref.ref(store := new_store(*arguments)))
        return store

    def commit_or_fail(self: DenseStore, rows: Any) -> None:
        if self.capacity == len(PROMPTS[1]) + 64 and self.length > len(PROMPTS[1]) + 3:
            raise error
        commit(self, rows)

    monkeypatch.setattr(engine.target, "new_store", new_store_seen)
    monkeypatch.setattr(logging.getLogger("hoarfrost"), "disabled", True)  # what is logged is kept, frames and all, until the test is over
    monkeypatch.setattr(DenseStore, "commit", commit_or_fail)
    together = engine.generate(PROMPTS, PARAMS, tree=tree)
    check_others(together, 1, [tokens for index, tokens in enumerate(expected) if index != 1], type(as_fault(error)))
    assert together[1].token_ids == expected[1][: len(together[1].token_ids)]
    assert together[1].error.__cause__ is error
    gc.collect()
    assert len(stores) == len(PROMPTS)
    assert not any(store() for store in stores), "nothing of a request outlives it"


def test_a_store_that_fails_within_the_pass(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole pass fails with it; whose failure it was is found out."""
    engine = load(folder, cache=IceConfig(budget=64, num_sinks=2, window=16, page_size=4))
    expected = [engine.generate([prompt], PARAMS, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    new_store, made = engine.target.new_store, []

    def breaks(*_: Any, **__: Any) -> Any:
        raise MemoryError

    def new_store_or_bad_one(*arguments: Any) -> Any:
        made.append(store := new_store(*arguments))
        if len(made) == 3:
            monkeypatch.setattr(store, "attend", breaks)
        return store

    monkeypatch.setattr(engine.target, "new_store", new_store_or_bad_one)
    check_others(engine.generate(PROMPTS, PARAMS, tree=PLAIN), 2, [expected[index] for index in (0, 1, 3, 4)], ResourceExhausted)
    engine.check_integrity()


def test_a_request_for_which_there_is_no_room(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [engine.generate([prompt], PARAMS, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    engine.guesser.prepare(TreeConfig())
    new_store = engine.target.new_store

    def new_store_if_small(capacity: int, cache: Any) -> Any:
        if capacity > 64 + len(PROMPTS[1]):
            raise MemoryError("can't allocate memory")
        return new_store(capacity, cache)

    monkeypatch.setattr(engine.target, "new_store", new_store_if_small)
    check_others(engine.generate(PROMPTS, PARAMS), 3, [expected[index] for index in (0, 1, 2, 4)], ResourceExhausted)


class Breaks(Chooser):
    """Fails at the fourth token."""

    def is_greedy(self, num_generated: int) -> bool:
        return False

    def choose(self, logits_row: torch.Tensor, position: int, num_generated: int) -> int:
        if num_generated == 3:
            raise KeyError("no such rule")
        return super().choose(logits_row, position, num_generated)


@pytest.mark.parametrize("tree", TREES, ids=["plain", "fixed", "published", "auto"])
def test_a_chooser_that_fails(tree: TreeConfig, engine: Engine) -> None:
    expected = [engine.generate([prompt], PARAMS, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    ids = [
        engine.add(Request(prompt, PARAMS, tree), chooser=Breaks(PARAMS) if index == 2 else None) for index, prompt in enumerate(PROMPTS)
    ]
    told: dict[int, list[int]] = {one: [] for one in ids}
    while not engine.is_idle:
        for request_id, piece in engine.step():
            told[request_id].extend(piece.token_ids)
            if piece.finish_reason == "error":
                assert request_id == ids[2]
                assert isinstance(piece.error, ModelFault)
                assert isinstance(piece.error.__cause__, KeyError)
                assert "no such rule" in str(piece.error)
        engine.check_integrity()
    assert [tokens for request_id, tokens in told.items() if request_id != ids[2]] == [
        one for index, one in enumerate(expected) if index != 2
    ]
    assert told[ids[2]] == expected[2][: len(told[ids[2]])]
    assert len(told[ids[2]]) <= 3


@pytest.mark.parametrize("method", ["propose", "extend"])
@pytest.mark.parametrize("tree", TREES[1:], ids=["fixed", "published", "auto"])
def test_a_drafter_that_fails_for_one_guesses_on_for_the_others(
    method: str, tree: TreeConfig, engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [engine.generate([prompt], PARAMS, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    engine.generate(PROMPTS[:1], PARAMS, tree=tree)
    work, bad = getattr(RandomDrafter, method), []

    def work_or_fail(self: RandomDrafter, states: Any, others: Any) -> Any:
        bad.extend(states[:1] if not bad else [])
        if bad[0] in states:
            raise RuntimeError("the drafter is broken")
        return work(self, states, others)

    monkeypatch.setattr(RandomDrafter, method, work_or_fail)
    ids = [engine.add(Request(prompt, PARAMS, tree)) for prompt in PROMPTS]
    told: dict[int, list[int]] = {one: [] for one in ids}
    with caplog.at_level(logging.WARNING, "hoarfrost"):
        while not engine.is_idle:
            for request_id, piece in engine.step():
                told[request_id].extend(piece.token_ids)
            engine.check_integrity()
    assert list(told.values()) == expected
    assert caplog.text.count("the drafter is broken") <= 1
    if tree.budget != "auto":  # which may find that the drafter is better left alone
        assert caplog.records


def test_an_interruption_leaves_nothing_torn(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [engine.generate([prompt], PARAMS, tree=PLAIN)[0].token_ids for prompt in PROMPTS]
    ids = [engine.add(Request(prompt, PARAMS, TreeConfig(8))) for prompt in PROMPTS]
    told: dict[int, list[int]] = {one: [] for one in ids}
    commit, left = DenseStore.commit, list(range(12))

    def commit_and_stop(self: DenseStore, rows: Any) -> None:
        commit(self, rows)
        if left and left.pop() == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(DenseStore, "commit", commit_and_stop)
    failed = []
    while not engine.is_idle:
        try:
            pieces = engine.step()
        except KeyboardInterrupt:
            pieces = []
        for request_id, piece in pieces:
            told[request_id].extend(piece.token_ids)
            failed.extend([request_id] if piece.error else [])
        engine.check_integrity()
    assert len(failed) == 1, "the one whose rows were stored and whose tokens were not"
    for request_id, tokens in zip(ids, expected, strict=True):
        assert told[request_id] == (tokens[: len(told[request_id])] if request_id in failed else tokens)
