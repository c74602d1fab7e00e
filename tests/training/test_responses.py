"""Responses equal those of plain decoding, whatever batch they were made in, and an interrupted run makes only what is missing."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training.training_models import STOP, sequence, target_model

from hoarfrost.training import response_file, responses
from hoarfrost.training.response_file import generate_responses
from hoarfrost.training.responses import Batch, RepetitionWatch, Request, Response, batches_of, choose_tokens

MAX_NEW_TOKENS = 40
MODEL = target_model()


def requests(count: int) -> list[Request]:
    temperatures = (0.0, 0.7, 1.5)
    return [Request(index, sequence(3 + index * 5 % 11, 1, seed=index).token_ids, temperatures[index % 3]) for index in range(count)]


def repeats(tokens: list[int]) -> bool:
    return any(len(tokens) >= 3 * n and tokens[-n:] == tokens[-2 * n : -n] == tokens[-3 * n : -2 * n] for n in range(4, 33))


@functools.cache
@torch.no_grad()
def plain_response(request: Request, seed: int) -> Response:
    """One token at a time, no cache, no batch."""
    uniforms = np.random.default_rng([seed, request.index]).random(MAX_NEW_TOKENS, dtype=np.float32)
    tokens: list[int] = []
    for uniform in uniforms:
        logits = MODEL(torch.tensor([[*request.prompt_ids, *tokens]])).logits[:, -1]
        tokens.append(int(choose_tokens(logits, torch.tensor([request.temperature]), torch.tensor([uniform]))))
        if tokens[-1] == STOP or repeats(tokens):
            return Response(tuple(tokens), "stop" if tokens[-1] == STOP else "repetition")
    return Response(tuple(tokens), "length")


@pytest.mark.parametrize("prefill_tokens", [1, 30, 2048])
def test_a_batch_equals_plain_decoding(monkeypatch: pytest.MonkeyPatch, prefill_tokens: int) -> None:
    monkeypatch.setattr(responses, "PREFILL_TOKENS", prefill_tokens)
    asked = requests(12)
    made = Batch(MODEL, asked, [STOP], MAX_NEW_TOKENS, seed=3).decode()
    assert made == [plain_response(request, seed=3) for request in asked]
    assert {response.finish_reason for response in made} == {"stop", "length", "repetition"}


def test_draws_follow_the_distribution() -> None:
    torch.manual_seed(0)
    logits, temperature, num_draws = torch.randn(1, 6), 0.8, 20_000
    uniforms = torch.rand(num_draws)
    drawn = choose_tokens(logits.expand(num_draws, -1), torch.full((num_draws,), temperature), uniforms)
    shares = torch.bincount(drawn, minlength=6) / num_draws
    torch.testing.assert_close(shares, (logits[0] / temperature).softmax(dim=0), atol=0.02, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_repetition_is_seen_when_a_plain_search_sees_it(seed: int) -> None:
    generator = np.random.default_rng(seed)
    unit = generator.integers(0, 9, size=generator.integers(1, 33)).tolist()
    tokens = [*generator.integers(0, 9, size=5).tolist(), *unit * 14]
    watch = RepetitionWatch(1)
    found = [bool(watch.feed(np.array([token]))[0]) for token in tokens]
    assert found == [repeats(tokens[: end + 1]) for end in range(len(tokens))]


def test_batches_hold_every_request_once_and_like_lengths() -> None:
    asked = requests(23)
    groups = batches_of(asked, 4, seed=0)
    assert sorted(request.index for group in groups for request in group) == list(range(23))
    spans = sorted((min(len(one.prompt_ids) for one in group), max(len(one.prompt_ids) for one in group)) for group in groups)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def generate(path: Path, asked: list[Request]) -> list[Response]:
    return generate_responses(MODEL, asked, path, eos_token_ids=[STOP], max_new_tokens=MAX_NEW_TOKENS, batch_size=4, seed=3)


def test_an_interrupted_run_makes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(16)
    asked[9] = Request(9, asked[6].prompt_ids, asked[6].temperature)  # the same prompt a second time wants a second response
    whole = generate(tmp_path / "whole.jsonl", asked)

    path, decode, num_batches = tmp_path / "responses.jsonl", Batch.decode, 0

    def interrupted(self: Batch) -> list[Response]:
        nonlocal num_batches
        num_batches += 1
        if num_batches == 3:
            raise KeyboardInterrupt
        return decode(self)

    monkeypatch.setattr(Batch, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate(path, asked)
    assert len(path.read_text().splitlines()) == 8
    path.write_text(path.read_text() + '{"prompt_ids":[5,')  # cut off in the middle of a line
    assert generate(path, asked) == whole
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(tuple(record["prompt_ids"]) for record in records) == sorted(request.prompt_ids for request in asked)
    assert num_batches == 2 + 1 + 2

    generate(path, asked)
    assert num_batches == 5
    assert response_file.ResponseFile(path).take(asked).keys() == set(range(16))
