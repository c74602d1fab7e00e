"""The models that ship with the package, by alias."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ShippedPair:
    """A target and the drafter trained for it, as folders inside the installed package."""

    target: Path
    drafter: Path


_HERE = Path(__file__).parent

SHIPPED: dict[str, ShippedPair] = {"tiny": ShippedPair(target=_HERE / "tiny" / "target", drafter=_HERE / "tiny" / "drafter")}
