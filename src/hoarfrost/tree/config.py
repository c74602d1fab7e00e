"""How large and how wide draft trees may be, and what their guesses are made of: plain decoding, chain and tree are settings of one."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal

from hoarfrost.errors import InvalidInput

MAX_BUDGET = 1024


@dataclass(frozen=True)
class TreeConfig:
    """Limits of a draft tree, and what the guesses in it are made of. None of it changes what is emitted.

    Attributes:
        budget: nodes besides the root, 0..1024, 0 being plain decoding. "auto" stops every round where expected tokens per second stop
            rising on this machine, down to no tree at all.
        max_width: candidates considered per depth, 1 or more. None: no limit.
        calibration: correct the drafter's probabilities by how often such guesses were right so far.
        coupling: above temperature 0, rank guesses by the noise that will choose the token.
        retrieval: add guesses from the text so far (repeated passages) and from what followed a token before.

    Raises:
        InvalidInput: for anything but "auto" and integers in these ranges.
    """

    budget: int | Literal["auto"] = "auto"
    max_width: int | None = None
    calibration: bool = True
    coupling: bool = True
    retrieval: bool = True

    def __post_init__(self) -> None:
        if self.budget != "auto" and (not _is_integer(self.budget) or not 0 <= int(self.budget) <= MAX_BUDGET):
            raise InvalidInput(
                f"The tree budget is {self.budget!r}; it must be an integer from 0 (no tree) to {MAX_BUDGET}, "
                "or 'auto' to let it choose itself."
            )
        if self.max_width is not None and (not _is_integer(self.max_width) or self.max_width < 1):
            raise InvalidInput(f"The tree's max_width is {self.max_width!r}; it must be an integer from 1 on, or None for no limit.")

    @classmethod
    def autoregressive(cls) -> TreeConfig:
        """The root alone: one token per pass."""
        return cls(budget=0)

    @classmethod
    def chain(cls) -> TreeConfig:
        """One branch of the drafter's best tokens, as long as the drafter looks ahead: DFlash as published (arXiv 2602.06036)."""
        return cls(budget=MAX_BUDGET, max_width=1, calibration=False, coupling=False, retrieval=False)

    @classmethod
    def published(cls, budget: int) -> TreeConfig:
        """DDTree as published (arXiv 2604.12989): a fixed number of nodes over the drafter's own probabilities."""
        return cls(budget=budget, calibration=False, coupling=False, retrieval=False)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
