"""A drafter as far as its description goes: found, its `config.json` read, and held against the target, before anybody reads weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.drafting.foreign import refuse_foreign
from hoarfrost.errors import InvalidInput
from hoarfrost.hub import Checkpoint, HubRefusal, find_checkpoint
from hoarfrost.model_files import CONFIG, open_safetensors, quantisation_of, read_json_object, reason
from hoarfrost.models import SHIPPED

TENSOR_FILES = "*.safetensors"
RUN_RESULT, RUN_RECORD = "drafter", "settings.json"  # of `hoarfrost.training`


class TargetShape(Protocol):
    """What a target's configuration says that a drafter depends on."""

    @property
    def name(self) -> str: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...


@dataclass(frozen=True)
class OpenedDrafter:
    """A drafter whose configuration is right in itself."""

    source: Checkpoint
    values: Mapping[str, Any]
    """The content of its config.json."""
    config: DFlashConfig

    def check_fit(self, target: TargetShape) -> None:
        """Raises `InvalidInput` with both numbers if the drafter was made for another target."""
        name, config = self.source.name, self.config
        facts: tuple[tuple[str, int | None, int], ...] = (
            ("a hidden size of", config.hidden_size, target.hidden_size),
            ("a target of this many layers:", config.num_target_layers, target.num_layers),
            ("a vocabulary of", config.vocab_size, target.vocab_size),
        )
        for what, expected, found in facts:
            if expected is not None and expected != found:
                raise InvalidInput(f"{name} does not fit {target.name}: it was made for {what} {expected}, and the target's is {found}.")
        deepest = max(config.target_layer_ids)
        if deepest >= target.num_layers:
            raise InvalidInput(
                f"{name} does not fit {target.name}: it reads layer {deepest} (counted from 0), and the target has {target.num_layers} "
                "layers."
            )


def open_drafter(source: str | Path) -> OpenedDrafter:
    """Finds a folder, an alias or a hub id, and reads the configuration.

    Raises `InvalidInput` if nothing is found, and for a configuration that is unreadable or of another convention.
    """
    found = find_drafter(str(source))
    with explained(found.name):
        values = read_values(found.path)
        refuse_foreign(values, tensor_names(found.path), found.name)
        return OpenedDrafter(found, values, DFlashConfig.from_json(values))


def find_drafter(name: str) -> Checkpoint:
    """The folder `name`, what a training run in it has written, the drafter of an alias, or the snapshot of a hub id, its weights left for
    later."""
    if name in SHIPPED:
        folder = SHIPPED[name].drafter
        if folder is None:
            raise InvalidInput(f"There is no drafter for {name} in this package yet; take `none`, which decodes with retrieval alone.")
        return Checkpoint(name, folder)
    if Path(name).is_dir():
        return Checkpoint(name, finished_drafter(Path(name)))
    if Path(name).exists():
        raise InvalidInput(f"{name} is a file; give the folder that holds the drafter's config.json and .safetensors, or a hub id.")
    try:
        return find_checkpoint(name, ("*.json",))
    except HubRefusal as refusal:
        raise InvalidInput(f"No drafter {name!r}: it is no folder, and {refusal}.") from None


def finished_drafter(folder: Path) -> Path:
    """The folder, or in that of a training run the drafter that came out of it. Raises `InvalidInput` where the run is not finished."""
    if (folder / CONFIG).exists():
        return folder
    if (folder / RUN_RESULT / CONFIG).exists():
        return folder / RUN_RESULT
    if (folder / RUN_RECORD).exists():
        raise InvalidInput(f"{folder} holds a training run that is not finished; let it end first (the same command with --resume).")
    return folder


def read_values(folder: Path) -> dict[str, Any]:
    try:
        values = read_json_object(folder / CONFIG)
    except FileNotFoundError:
        raise InvalidInput(f"{folder} holds no {CONFIG}; a drafter's folder has one beside its .safetensors.") from None
    scheme = quantisation_of(values)
    if scheme is not None:
        raise InvalidInput(f"The weights of the drafter {folder} are quantised ({scheme!r}), which is not supported; take it in bfloat16.")
    return values


def tensor_names(folder: Path) -> Collection[str]:
    """The names in the files that are here already, some of which belong to one convention alone."""
    with ExitStack() as stack:
        handles = [stack.enter_context(open_safetensors(path)) for path in sorted(folder.glob(TENSOR_FILES))]
        return [name for handle in handles for name in handle.keys()]  # noqa: SIM118


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns whatever a damaged or hostile checkpoint makes its readers raise into a sentence."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"{name} cannot be read as a DFlash drafter ({type(error).__name__}: {reason(error)}); fetch the checkpoint again."
        ) from None
