"""What the settings of every evaluation have to keep, said in sentences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from hoarfrost.errors import InvalidInput


def check_list(name: str, values: Sequence[Any]) -> None:
    """Refuses a list that is empty or names one twice; `name` is the plural of what it lists."""
    if not values or len(set(values)) < len(values):
        raise InvalidInput(f"The list of {name} ({', '.join(map(str, values))}) is empty or names one twice.")


def check_names(kind: str, names: Sequence[str], known: Collection[str]) -> None:
    """Refuses names that are not among the known ones."""
    for name in names:
        if name not in known:
            raise InvalidInput(f"Unknown {kind} {name!r}; choose from {', '.join(known)}.")


def check_least(name: str, value: int | None, least: int = 1) -> None:
    """Refuses a number below `least`; `None`, which sets no bound, is none."""
    if value is not None and value < least:
        raise InvalidInput(f"The {name} is {value}; it must be at least {least}.")
