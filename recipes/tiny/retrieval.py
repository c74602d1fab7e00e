"""Synthetic retrieval: facts scattered through prose, asked for at the end. It is what teaches so small a model to use its context.

Three forms of facts, each a chat: a passkey, a table of key and value pairs, and sentences that give several people a code. A sample asks
for every fact, a turn each, which puts more answers into the same number of tokens; only the turns after the first are trained on, because
the prose has a source of its own and would drown the few tokens that need the context. `copies` is the exercise before that: tokens in
random order, repeated, where every token of a repetition can be known from the context and from nothing else; it is what makes the heads
form that look things up.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from corpus import END_OF_TEXT, TURN_END, TURN_START

from hoarfrost.evaluation.caches.retrieval_tasks import NAMES, WORDS


def number(rng: random.Random) -> str:
    return str(rng.randrange(10_000, 100_000))


def passkey(rng: random.Random) -> tuple[list[str], list[tuple[str, str]]]:
    key = number(rng)
    return [f"The passkey is {key}. Remember it. {key} is the passkey."], [("What is the passkey?", f"The passkey is {key}.")]


def codes(rng: random.Random) -> tuple[list[str], list[tuple[str, str]]]:
    people = rng.sample(NAMES, rng.choice((2, 4, 4, 8)))
    values = {name: number(rng) for name in people}
    facts = [f"The code of {name} is {value}." for name, value in values.items()]
    return facts, [(f"What is the code of {name}?", f"The code of {name} is {values[name]}.") for name in people]


def pairs(rng: random.Random) -> tuple[list[str], list[tuple[str, str]]]:
    keys = rng.sample(WORDS, rng.choice((2, 4, 8)))
    values = {key: number(rng) if rng.random() < 0.5 else rng.choice(WORDS) for key in keys}
    facts = [f"{key}: {value}" for key, value in values.items()]
    return facts, [(f"Which value belongs to {key}?", f"{key}: {values[key]}") for key in keys]


TASKS: tuple[Callable[[random.Random], tuple[list[str], list[tuple[str, str]]]], ...] = (passkey, codes, codes, pairs)


def copies(rng: random.Random, length: int, alphabet: list[int]) -> tuple[list[int], int]:
    """A passage of different tokens of `alphabet` in random order, repeated to `length` tokens; and where the first repetition begins."""
    passage = rng.sample(alphabet, rng.randrange(8, min(64, length // 2)))
    return (passage * (length // len(passage) + 1))[:length], len(passage)


def sample(rng: random.Random, length: int, filler: np.ndarray, encode: Callable[[str], list[int]]) -> tuple[list[int], int]:
    """One chat of exactly `length` tokens: prose drawn from `filler`, the facts of one task at random places in it, questions, answers.

    Returns the tokens and the place where the first question begins.
    """
    facts, questions = rng.choice(TASKS)(rng)
    rng.shuffle(questions)
    (first, answer), *rest = questions
    ending = encode(f"\n\n{first}{TURN_END}\n{TURN_START}assistant\n{answer}{TURN_END}\n")
    for question, reply in rest:
        ending += encode(f"{TURN_START}user\n{question}{TURN_END}\n{TURN_START}assistant\n{reply}{TURN_END}\n")
    ending += encode(END_OF_TEXT)
    opening = encode(f"{TURN_START}user\n")
    encoded_facts = [encode(f"\n{fact}\n") for fact in facts]
    room = length - len(opening) - len(ending) - sum(map(len, encoded_facts))
    if room < 0:
        return sample(rng, length, filler, encode)
    start = rng.randrange(len(filler) - room)
    prose = filler[start : start + room].tolist()
    cuts = sorted(rng.randrange(room + 1) for _ in facts)
    tokens, previous = opening, 0
    for cut, fact in zip(cuts, encoded_facts, strict=True):
        tokens = tokens + prose[previous:cut] + fact
        previous = cut
    return tokens + prose[previous:] + ending, length - len(ending)
