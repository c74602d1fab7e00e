"""Turns an exercise into a prompt of exact length: prose, the facts in it, the question, all in the model's chat template.

A sample takes exactly `length` tokens: the prompt, the lead of the answer and the room for the rest of it, so that a sample of the model's
longest length can be answered (RULER counts the same way). Pieces are encoded one by one and joined as tokens. Everything follows
from the seed, the task, the length and the index.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.retrieval_tasks import TASKS, Exercise
from hoarfrost.evaluation.prompts.encoding import Encode, Frame
from hoarfrost.evaluation.prompts.long_texts import draw_tokens


@dataclass(frozen=True)
class Sample:
    """One prompt, of which the last `num_decoded` tokens go through the cache.

    `depth`: where the fact that is asked for stands between the first possible place (0) and the last (1), if that is one fact.
    """

    task: str
    prompt_id: str
    length: int
    depth: float | None
    prompt_ids: tuple[int, ...]
    num_decoded: int
    lead_ids: tuple[int, ...]
    expected: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class SampleMaker:
    """Makes the samples of one model.

    `num_decoded`: the prompt's last so many tokens are decoded through the cache, as if the model had said them, and all facts are among
    them. `ask_later`: the question is, so that nothing that reads the prompt knows what will be asked.
    """

    encode: Encode
    frame: Frame
    haystacks: Sequence[tuple[str, ...]]
    seed: int = 0
    num_decoded: int = 0
    ask_later: bool = False

    def make(self, task: str, length: int, index: int, num_samples: int) -> Sample:
        """Sample `index` of `num_samples`, whose depths are spread evenly. Raises `InvalidInput` where the task does not fit."""
        rng = random.Random(f"{self.seed}/{task}/{length}/{index}")
        exercise = TASKS[task](rng)
        depth = None if len(exercise.expected) > 1 else (index + 0.5) / num_samples
        lead = self.encode(exercise.lead)
        max_new_tokens = len(self.encode(" " + ", ".join(exercise.expected))) + (2 if len(exercise.expected) == 1 else 8)
        ending = self.encode(f"\n\n{exercise.question}{self.frame.closing}")
        facts = [self.encode(f"\n{fact}\n") for fact in exercise.facts]
        num_asking = len(ending) + sum(map(len, facts))
        fixed = len(self.frame.opening_ids) + num_asking + len(lead) + max_new_tokens
        room = length - fixed
        if room < 1:
            raise InvalidInput(f"The task {task} needs more than {fixed} tokens and the length is {length}; give a longer one.")
        if 0 < self.num_decoded < num_asking or self.num_decoded > room + num_asking:
            raise InvalidInput(
                f"{self.num_decoded} decoded tokens cannot hold the {num_asking} of the task {task} within a length of {length}; give "
                f"{num_asking} to {room + num_asking}, or 0."
            )
        prose = draw_tokens(self.haystacks[index % len(self.haystacks)], room, rng, self.encode)
        first = room - (self.num_decoded - num_asking) if self.num_decoded else 0
        tokens = scatter(prose, facts, places(exercise, first, room, depth, rng))
        return Sample(
            task=task,
            prompt_id=f"{length}/{index}",
            length=length,
            depth=depth,
            prompt_ids=(*self.frame.opening_ids, *tokens, *ending),
            num_decoded=self.num_decoded or (len(ending) if self.ask_later else 0),
            lead_ids=tuple(lead),
            expected=exercise.expected,
            max_new_tokens=max_new_tokens,
        )


def places(exercise: Exercise, first: int, last: int, depth: float | None, rng: random.Random) -> list[int]:
    """Where in the prose each fact goes: the first one at `depth` between `first` and `last`, the others anywhere between them."""
    cuts = [rng.randint(first, last) for _ in exercise.facts]
    if exercise.in_order:
        return sorted(cuts)
    if depth is not None:
        cuts[0] = first + round(depth * (last - first))
    return cuts


def scatter(prose: Sequence[int], facts: Sequence[Sequence[int]], cuts: Sequence[int]) -> list[int]:
    """`prose` with each fact before the token that its cut names."""
    tokens: list[int] = []
    previous = 0
    for cut, fact in sorted(zip(cuts, facts, strict=True), key=lambda pair: pair[0]):
        tokens += [*prose[previous:cut], *fact]
        previous = cut
    return [*tokens, *prose[previous:]]
