"""How large and how wide draft trees may be. Plain decoding, a chain and a tree are three settings of one builder."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

from hoarfrost.errors import InvalidInput

MAX_BUDGET = 1024


@dataclass(frozen=True)
class TreeConfig:
    """Limits of a draft tree.

    Attributes:
        budget: nodes besides the root, 0..1024. 0 is plain decoding.
        max_width: candidates considered per depth, 1 or more. None: no limit.

    Raises:
        InvalidInput: for anything but integers in these ranges.
    """

    budget: int = 16
    max_width: int | None = None

    def __post_init__(self) -> None:
        if not _is_integer(self.budget) or not 0 <= self.budget <= MAX_BUDGET:
            raise InvalidInput(f"The tree budget is {self.budget!r}; it must be an integer from 0 (no tree) to {MAX_BUDGET}.")
        if self.max_width is not None and (not _is_integer(self.max_width) or self.max_width < 1):
            raise InvalidInput(f"The tree's max_width is {self.max_width!r}; it must be an integer from 1 on, or None for no limit.")

    @classmethod
    def autoregressive(cls) -> TreeConfig:
        """The root alone: one token per pass."""
        return cls(budget=0)

    @classmethod
    def chain(cls) -> TreeConfig:
        """One branch, as long as the drafter looks ahead."""
        return cls(budget=MAX_BUDGET, max_width=1)


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
