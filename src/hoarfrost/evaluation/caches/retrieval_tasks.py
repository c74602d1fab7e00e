"""Tasks that only a cache which finds the right rows can solve: facts scattered through prose, asked for at the end.

In the manner of RULER (arXiv 2404.06654), written anew. A task makes one `Exercise` from a random generator; where its facts
stand in how long a text is `retrieval_samples`' business.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NAMES = (
    "Alice Bob Clara David Emma Frank Grace Henry Iris Jack Kate Leo Mary Noah Olive Peter Quinn Rose Sam Tina Ursula Victor Wendy Xavier "
    "Yara Zoe Anna Ben Carl Diana Eric Fiona George Hannah Ivan Julia Karl Laura Martin Nina Oscar Paula Ruth Simon Thomas Vera Walter"
).split()
WORDS = (
    "apple river stone cloud garden silver window candle forest engine bridge marble pepper violin anchor copper lantern meadow ocean "
    "paper rabbit saddle temple umbrella valley whistle yellow zebra basket castle dragon eagle feather ginger hammer "
    "island jacket kettle lemon"
).split()
NUM_KEYS = 8
CHAIN_LENGTH, NUM_CHAINS = 4, 2
NUM_COMMON, NUM_RARE = 3, 20
COMMON_MENTIONS, RARE_MENTIONS = 8, 1


@dataclass(frozen=True)
class Exercise:
    """Facts to scatter, the first of them the one that is asked for; the question; how the answer begins and what it must hold.

    `in_order`: the facts only make sense in this order. The answer is begun by `lead`, so that models of all manners say the same.
    """

    facts: tuple[str, ...]
    question: str
    lead: str
    expected: tuple[str, ...]
    in_order: bool = False


def _number(rng: random.Random) -> str:
    return str(rng.randrange(10_000, 100_000))


def passkey(rng: random.Random) -> Exercise:
    """One sentence that says a number three times (Landmark attention's passkey, arXiv 2305.16300)."""
    key = _number(rng)
    return Exercise((f"The passkey is {key}. Remember it. {key} is the passkey.",), "What is the passkey?", "The passkey is", (key,))


def _codes(rng: random.Random, num_people: int) -> Exercise:
    codes = {name: _number(rng) for name in rng.sample(NAMES, num_people)}
    asked = next(iter(codes))
    facts = tuple(f"The code of {name} is {code}." for name, code in codes.items())
    return Exercise(facts, f"What is the code of {asked}?", f"The code of {asked} is", (codes[asked],))


def needle(rng: random.Random) -> Exercise:
    """One fact, said once."""
    return _codes(rng, 1)


def keys(rng: random.Random) -> Exercise:
    """One fact among others of the same form."""
    return _codes(rng, NUM_KEYS)


def lookup(rng: random.Random) -> Exercise:
    """A value by its key, where any key may be the value of another."""
    table = {key: _number(rng) if rng.random() < 0.5 else rng.choice(WORDS) for key in rng.sample(WORDS, NUM_KEYS)}
    asked = next(iter(table))
    facts = tuple(f"{key}: {value}" for key, value in table.items())
    return Exercise(facts, f"Which value belongs to {asked}?", f"{asked}:", (table[asked],))


def variables(rng: random.Random) -> Exercise:
    """Which variables hold a number, through chains of assignments."""
    names = iter(rng.sample([f"{word[:3].upper()}{digit}" for word in WORDS for digit in range(10)], NUM_CHAINS * CHAIN_LENGTH))
    chains = []
    for _ in range(NUM_CHAINS):
        number = _number(rng)
        chain = [next(names) for _ in range(CHAIN_LENGTH)]
        facts = [f"VAR {name} = {value}" for name, value in zip(chain, [number, *(f"VAR {name}" for name in chain)], strict=False)]
        chains.append((number, chain, facts))
    number, chain, _ = chains[0]
    merged = tuple(fact for facts in zip(*(facts for _, _, facts in chains), strict=True) for fact in facts)
    question = f"Which {CHAIN_LENGTH} variables hold the value {number}?"
    return Exercise(merged, question, f"The variables that hold {number} are", tuple(chain), in_order=True)


def common(rng: random.Random) -> Exercise:
    """Which words were named most often: no single row holds the answer."""
    words = rng.sample(WORDS, NUM_COMMON + NUM_RARE)
    mentions = words[:NUM_COMMON] * COMMON_MENTIONS + words[NUM_COMMON:] * RARE_MENTIONS
    rng.shuffle(mentions)
    facts = tuple(f"Word: {word}" for word in mentions)
    question = f"Which {NUM_COMMON} words were named most often?"
    return Exercise(facts, question, "The words named most often are", tuple(words[:NUM_COMMON]))


TASKS: dict[str, Callable[[random.Random], Exercise]] = {
    "passkey": passkey,
    "needle": needle,
    "keys": keys,
    "lookup": lookup,
    "variables": variables,
    "common": common,
}


def score_answer(expected: Sequence[str], answer: str) -> float:
    """One value: 1 if the answer begins with it, else 0. Several: the share of them that the answer names, as RULER scores."""
    if len(expected) == 1:
        return float(re.match(rf"\s*{re.escape(expected[0])}(?!\w)", answer) is not None)
    return sum(re.search(rf"(?<!\w){re.escape(value)}(?!\w)", answer) is not None for value in expected) / len(expected)
