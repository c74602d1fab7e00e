"""Responses equal those of plain decoding, whatever batch they were made in, and an interrupted run makes only what is missing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from training.training_models import save_target, sequence

from hoarfrost import Engine, TreeConfig
from hoarfrost.sampling.stopping import RepetitionDetector
from hoarfrost.training.response_file import ResponseFile, generate_responses
from hoarfrost.training.responses import Request, Responder, Response, batches_of

MAX_NEW_TOKENS, SEED = 40, 3


@pytest.fixture(scope="module")
def responder(tmp_path_factory: pytest.TempPathFactory) -> Responder:
    folder = save_target(tmp_path_factory.mktemp("target"))
    return Responder(Engine.load(folder, drafter=None, dtype="float32", device="cpu", max_batch_size=3), MAX_NEW_TOKENS, SEED)


def requests(count: int) -> list[Request]:
    temperatures = (0.0, 0.7, 1.5)
    return [Request(index, sequence(3 + index * 5 % 11, 1, seed=index).token_ids, temperatures[index % 3]) for index in range(count)]


def test_a_batch_equals_plain_decoding(responder: Responder) -> None:
    asked, engine = requests(12), responder.engine
    made = responder.answer(asked)
    for request, response in zip(asked, made, strict=True):
        alone = engine.generate([list(request.prompt_ids)], responder.params_of(request), tree=TreeConfig.autoregressive())[0]
        assert (tuple(alone.token_ids), alone.finish_reason) == (response.token_ids, response.finish_reason)
    assert {response.finish_reason for response in made} >= {"length", "repetition"}
    for response in made:
        detector = RepetitionDetector()
        ends = [detector.push(token_id) for token_id in response.token_ids]
        assert not any(ends[:-1])
        assert ends[-1] == (response.finish_reason == "repetition")


def test_requests_of_one_prompt_differ_by_their_noise(responder: Responder) -> None:
    prompt = sequence(5, 1, seed=7).token_ids
    first, second = responder.answer([Request(0, prompt, 1.5), Request(1, prompt, 1.5)])
    assert first.token_ids != second.token_ids


def test_batches_hold_every_request_once_and_like_lengths() -> None:
    asked = requests(23)
    groups = batches_of(asked, 4, seed=0)
    assert sorted(request.index for group in groups for request in group) == list(range(23))
    spans = sorted((min(len(one.prompt_ids) for one in group), max(len(one.prompt_ids) for one in group)) for group in groups)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_an_interrupted_run_makes_only_what_is_missing(responder: Responder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(16)
    asked[9] = Request(9, asked[6].prompt_ids, asked[6].temperature)  # the same prompt a second time wants a second response
    answer, num_batches = Responder.answer, 0

    def generate(path: Path) -> list[Response]:
        return generate_responses(lambda: responder, asked, path, batch_size=4, seed=SEED)

    def interrupted(self: Responder, batch: list[Request]) -> list[Response]:
        nonlocal num_batches
        num_batches += 1
        if num_batches == 3:
            raise KeyboardInterrupt
        return answer(self, batch)

    whole, path = generate(tmp_path / "whole.jsonl"), tmp_path / "responses.jsonl"
    monkeypatch.setattr(Responder, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(path)
    assert len(path.read_text().splitlines()) == 8
    path.write_text(path.read_text() + '{"prompt_ids":[5,')  # cut off in the middle of a line
    assert generate(path) == whole
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(tuple(record["prompt_ids"]) for record in records) == sorted(request.prompt_ids for request in asked)
    assert num_batches == 2 + 1 + 2

    assert generate(path) == whole
    assert num_batches == 5
    assert ResponseFile(path).take(asked).keys() == set(range(16))
