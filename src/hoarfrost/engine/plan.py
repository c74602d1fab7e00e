"""What one round does, decided before it runs: a value that is made once, and handed back with its outcome.

A part is one sequence's rows in the pass: a draft tree below its bonus token, or a chunk of its prompt. Plain decoding is a tree of one
row, the DFlash chain a tree of one branch. The last row of a prompt is the root of such a tree, too: the first token is chosen there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from hoarfrost.engine.sequence import Sequence
from hoarfrost.target import PackedRows, Target
from hoarfrost.tree import Candidates, DraftTree

Way = Literal["plain", "retrieved", "drafted"]
"""Where the guesses of a sequence come from: nowhere, its own text and what followed its tokens before, or the drafter as well."""


class Choice(NamedTuple):
    """How a sequence guesses in a round; whether just to see what that is worth."""

    way: Way
    is_trial: bool = False


PLAIN = Choice("plain")


class Part(NamedTuple):
    """One sequence's rows.

    Attributes:
        tree: what is verified; of one row behind the last chunk of a prompt, None behind the others.
        candidates: those of the drafter in the tree, empty without one, None where nothing is to be learnt.
        choice, expected: where the guesses come from, and how many tokens an automatic budget expects of its tree.
        chunk: the next tokens of the prompt, None once it is read.
    """

    sequence: Sequence
    tree: DraftTree | None
    candidates: Candidates | None = None
    choice: Choice = PLAIN
    expected: float = 1.0
    chunk: list[int] | None = None

    @property
    def is_automatic(self) -> bool:
        """Whether the policy has a say in the guesses."""
        return self.chunk is None and self.sequence.tree.budget == "auto"

    @property
    def num_rows(self) -> int:
        """Rows in the pass."""
        return self.num_logits if self.chunk is None else len(self.chunk)

    @property
    def num_logits(self) -> int:
        """Rows whose logits are wanted, the last ones."""
        return 0 if self.tree is None else self.tree.num_rows


@dataclass(frozen=True, eq=False)
class Plan:
    """The parts of a round, trees before chunks; and the layers that the drafter reads."""

    parts: list[Part]
    taps: tuple[int, ...] = ()


class Pass(NamedTuple):
    """What the target says: logits of the wanted rows `[n, V]`, None if there are none; features of all rows `[N, width]`, if tapped."""

    logits: Tensor | None
    features: Tensor | None


def run(plan: Plan, target: Target) -> Pass:
    """The target's pass over all parts. It leaves provisional rows in the stores and changes nothing else."""
    parts = plan.parts
    stores, trees = [], []
    for part in parts:
        if part.chunk is None and part.tree is not None:
            stores.append(part.sequence.store)
            trees.append(part.tree)
    chunks = [(part.sequence.store, part.chunk) for part in parts[len(trees) :] if part.chunk is not None]
    packed = [PackedRows.from_chunk(store, chunk, target.device) for store, chunk in chunks]
    if trees:
        packed.insert(0, PackedRows.from_trees(stores, trees, target.device))
    hidden, features = target.forward(packed[0] if len(packed) == 1 else PackedRows.joined(packed), plan.taps)
    if chunks:
        hidden = hidden[wanted_rows(parts)]
    return Pass(target.logits(hidden) if len(hidden) else None, features)


def wanted_rows(parts: list[Part]) -> list[int]:
    """Which rows of a pass the logits are wanted of."""
    rows: list[int] = []
    stop = 0
    for part in parts:
        stop += part.num_rows
        rows.extend(range(stop - part.num_logits, stop))
    return rows


def run_one_by_one(plan: Plan, target: Target) -> tuple[Plan, Pass, list[tuple[Sequence, Exception]]]:
    """A pass for each part by itself, where one over all has failed: the plan of those that did not, what came of them, and the others."""
    parts, passes, failed = [], [], []
    for part in plan.parts:
        try:
            passes.append(run(Plan([part], plan.taps), target))
            parts.append(part)
        except Exception as error:  # whatever it is, it is this sequence's
            failed.append((part.sequence, error))
    logits = [one.logits for one in passes if one.logits is not None]
    features = [one.features for one in passes if one.features is not None]
    joined = Pass(torch.cat(logits) if logits else None, torch.cat(features) if features else None)
    return Plan(parts, plan.taps), joined, failed
