"""Requests that come and go: whatever arrives, ends, waits or is aborted beside it, a request gets its own tokens and no others."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
from conftest import ARCHITECTURES
from engine.erring_drafter import ErringDrafter
from engine.test_exactness import PROMPTS, SETTINGS, TREES, load

from hoarfrost import Engine, InvalidInput, Limits, Piece, Request, SamplingParams, TreeConfig
from hoarfrost.engine import scheduler

PLAIN = TreeConfig.autoregressive()
PARAMS = SamplingParams(max_new_tokens=8, ignore_eos=True)


@pytest.fixture
def engine(model_folder: Callable[[str], str]) -> Engine:
    """Every prompt is read as if it were the first."""
    return load(model_folder("qwen3"), max_batch_size=3, limits=Limits(prefix_bytes=0))


def tokens_alone(engine: Engine, request: Request) -> list[int]:
    return engine.generate([request.prompt], request.params, tree=PLAIN)[0].token_ids


def run_to_the_end(engine: Engine) -> dict[int, list[Piece]]:
    """The pieces of all requests that were added, integrity being checked after every step."""
    pieces: dict[int, list[Piece]] = {}
    while not engine.is_idle:
        for request_id, piece in engine.step():
            pieces.setdefault(request_id, []).append(piece)
        engine.check_integrity()
    return pieces


def tokens_of(pieces: list[Piece]) -> list[int]:
    assert [piece.finish_reason is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    return [token_id for piece in pieces for token_id in piece.token_ids]


def random_request(chance: random.Random) -> Request:
    prompt = [chance.randrange(4, 250) for _ in range(chance.choice([1, 3, 8, 20, 45]))]
    settings = chance.choice(SETTINGS)
    params = replace(settings, max_new_tokens=chance.randrange(1, 30), seed=chance.randrange(100), min_new_tokens=0)
    return Request(prompt, params, chance.choice([*TREES, PLAIN, None]), priority=chance.randrange(3))


@pytest.mark.parametrize(("architecture", "p"), [*((architecture, 0.7) for architecture in ARCHITECTURES), ("qwen3", 0.95), ("llama", 0.3)])
def test_any_mix_of_requests_decodes_each_as_alone(
    architecture: str, p: float, model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "NATIVE_CHUNK_ROWS", 16)
    engine = load(model_folder(architecture), max_batch_size=4)
    chance = random.Random(f"{architecture} {p}")
    requests = [random_request(chance) for _ in range(14)]
    expected = [tokens_alone(engine, request) for request in requests]
    known = [[*request.prompt, *tokens] for request, tokens in zip(requests, expected, strict=True)]
    engine.drafter = ErringDrafter(engine.target.vocab_size, known, p)
    waiting, added, aborted = list(range(len(requests))), dict[int, int](), set[int]()
    pieces: dict[int, list[Piece]] = {}
    while waiting or not engine.is_idle:
        for _ in range(chance.randrange(3)):
            if waiting:
                index = waiting.pop()
                added[engine.add(requests[index])] = index
        if added and chance.random() < 0.1:
            engine.abort(gone := chance.choice(list(added)))
            aborted.add(gone)
        for request_id, piece in engine.step():
            assert request_id not in aborted or request_id in pieces, "nothing comes of what was aborted"
            pieces.setdefault(request_id, []).append(piece)
        engine.check_integrity()
    for request_id, index in added.items():
        if request_id in aborted:
            told = [token_id for piece in pieces.get(request_id, []) for token_id in piece.token_ids]
            assert told == expected[index][: len(told)]
        else:
            assert tokens_of(pieces[request_id]) == expected[index], requests[index]
    assert sum(piece.num_from_tree for told in pieces.values() for piece in told) > 20, "guesses came true"


def test_first_come_first_served_and_priorities_before(engine: Engine) -> None:
    engine.max_batch_size = 1
    ids = [engine.add(Request(prompt, PARAMS, PLAIN, priority)) for prompt, priority in zip(PROMPTS, (0, 0, 2, 1, 2), strict=True)]
    order = [request_id for request_id, piece in iter_pieces(engine) if piece.finish_reason]
    assert order == [ids[2], ids[4], ids[3], ids[0], ids[1]]


def iter_pieces(engine: Engine) -> list[tuple[int, Piece]]:
    found = []
    while not engine.is_idle:
        found.extend(engine.step())
    return found


def test_a_long_prompt_is_read_in_chunks_beside_those_that_decode(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "NATIVE_CHUNK_ROWS", 16)
    long = Request([index * 7 % 240 + 4 for index in range(150)], PARAMS, PLAIN)
    short = Request(PROMPTS[0], replace(PARAMS, max_new_tokens=30), TreeConfig(8))
    expected = [tokens_alone(engine, short), tokens_alone(engine, long)]
    first = engine.add(short)
    engine.step()
    second = engine.add(long)
    came: list[set[int]] = []
    pieces: dict[int, list[Piece]] = {first: [], second: []}
    while not pieces[second]:
        step = engine.step()
        came.append({request_id for request_id, _ in step})
        for request_id, piece in step:
            pieces[request_id].append(piece)
        engine.check_integrity()
    assert len(came) == 10, "150 rows, 16 at a time"
    assert all(first in step for step in came), "the stream goes on in every step"
    for request_id, piece in iter_pieces(engine):
        pieces[request_id].append(piece)
    assert tokens_of(pieces[second]) == expected[1]
    assert expected[0][-len(tokens_of(pieces[first])) :] == tokens_of(pieces[first])


def test_what_an_aborted_request_held_is_given_back(engine: Engine) -> None:
    expected = [tokens_alone(engine, Request(prompt, PARAMS)) for prompt in PROMPTS]
    ids = [engine.add(Request(prompt, PARAMS)) for prompt in PROMPTS]
    engine.step()
    for gone in (ids[1], ids[4], ids[1], 999):  # one that runs, one that waits, one that is over, one that never was
        engine.abort(gone)
        engine.check_integrity()
    pieces = run_to_the_end(engine)
    told = {request_id: tokens_of(pieces[request_id]) for request_id in (ids[2], ids[3])}
    assert told == {ids[2]: expected[2][-len(told[ids[2]]) :], ids[3]: expected[3][-len(told[ids[3]]) :]}
    assert ids[4] not in pieces


def test_an_abandoned_stream_ends_its_request(engine: Engine) -> None:
    stream = engine.stream(PROMPTS[0], PARAMS, tree=PLAIN)
    next(stream)
    assert not engine.is_idle
    stream.close()
    assert engine.is_idle
    stream = engine.stream(PROMPTS[0], PARAMS, tree=PLAIN)
    next(stream)
    del stream
    gc.collect()
    assert engine.is_idle
    engine.check_integrity()


def test_a_stream_that_nobody_reads_keeps_nobody_waiting(engine: Engine) -> None:
    expected = tokens_alone(engine, Request(PROMPTS[0], PARAMS))
    stream = engine.stream(PROMPTS[0], PARAMS, tree=PLAIN)
    told = next(stream).token_ids
    own = engine.add(Request(PROMPTS[1], replace(PARAMS, max_new_tokens=20), PLAIN))
    assert {request_id for request_id, _ in iter_pieces(engine)} == {own}
    assert told + [token_id for piece in stream for token_id in piece.token_ids] == expected, "its pieces waited for it"


def test_streams_that_take_turns_share_their_rounds(engine: Engine) -> None:
    expected = [tokens_alone(engine, Request(prompt, PARAMS)) for prompt in PROMPTS[:2]]
    streams = [engine.stream(prompt, PARAMS, tree=tree) for prompt, tree in zip(PROMPTS[:2], (PLAIN, TreeConfig(8)), strict=True)]
    told: list[list[int]] = [[], []]
    own = engine.add(Request(PROMPTS[2], PARAMS))
    for _ in range(2 * PARAMS.max_new_tokens):
        for index, stream in enumerate(streams):
            told[index].extend(next(stream, Piece("", [], 0)).token_ids)
            engine.check_integrity()
    assert told == expected
    assert {request_id for request_id, _ in iter_pieces(engine)} == {own}, (
        "what was added by hand waits for the steps of those who added it"
    )


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request([]), "empty"),
        (Request([1, 2, 999]), "999"),
        (Request([1, -1]), "-1"),
        (Request([1, 2.5]), "token ids"),  # type: ignore[list-item]
        (Request(None), "token ids"),  # type: ignore[arg-type]
        (Request([9] * 512), "512"),
        (Request([9] * 500, SamplingParams(min_new_tokens=50)), "context is 512, so 12 tokens can follow, and min_new_tokens asks for 50"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_decoded(engine: Engine, request_: Request, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        engine.add(request_)
    with pytest.raises(InvalidInput, match=said):
        engine.generate([[5, 6], request_.prompt], request_.params)
    with pytest.raises(InvalidInput, match=said):
        engine.stream(request_.prompt, request_.params)
    assert engine.is_idle


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_batch_holds_one_request_at_least(engine: Engine, size: int) -> None:
    with pytest.raises(InvalidInput, match=f"max_batch_size is {size}"):
        engine.max_batch_size = size
    with pytest.raises(InvalidInput, match=f"max_batch_size is {size}"):
        Engine.load("tiny", max_batch_size=size)


def test_threads_get_their_own_answers(engine: Engine) -> None:
    expected = [tokens_alone(engine, Request(prompt, PARAMS)) for prompt in PROMPTS]
    found: dict[int, list[list[int]]] = {}

    def ask(index: int) -> None:
        prompts = PROMPTS[index:] + PROMPTS[:index]
        streamed = [token_id for piece in engine.stream(prompts[0], PARAMS) for token_id in piece.token_ids]
        found[index] = [streamed, *(one.token_ids for one in engine.generate(prompts[1:], PARAMS, tree=TreeConfig(index)))]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert found == {index: expected[index:] + expected[:index] for index in range(len(PROMPTS))}
    assert engine.is_idle
