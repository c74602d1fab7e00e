"""Reads and writes DFlash drafters in the released layout: one folder with `config.json` and safetensors, nothing executable.

Released checkpoints carry neither embedding nor head, for the drafter borrows the target's. An `embed_tokens.weight` or `lm_head.weight`
that is there all the same is accepted if it equals the target's, which proves that the two belong together, and left out; any other is
refused. A table `d2t` of the tokens that can be guessed needs no key in the configuration: it says its length itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors.torch import save_file
from torch import Tensor

from hoarfrost.drafting.borrowed import is_embedding, is_head
from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.drafting.dflash import BorrowedTarget, DFlashDrafter
from hoarfrost.drafting.foreign import refuse_foreign
from hoarfrost.drafting.network import DFlashModel
from hoarfrost.drafting.vocabulary import checked_offsets
from hoarfrost.errors import InvalidInput
from hoarfrost.model_files import HARMLESS_TENSORS, listed, open_safetensors, quantisation_of, read_json_object, reason

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EMBEDDING = "embed_tokens.weight"
BORROWED = {EMBEDDING, "lm_head.weight"}
FLOATS = ("F32", "BF16", "F16", "F8_E4M3")  # whatever a file keeps, the model is in its target's type
RUN_RESULT, RUN_RECORD = "drafter", "settings.json"  # of `hoarfrost.training`


def read_config(folder: str | Path) -> DFlashConfig:
    """The configuration in `folder`. Raises `InvalidInput` if it is missing, unreadable or of another convention."""
    with _explained(folder):
        values = _read_config(finished_drafter(Path(folder)))
        refuse_foreign(values, (), str(folder))
        return DFlashConfig.from_json(values)


def load_drafter(source: str | Path, target: BorrowedTarget) -> DFlashDrafter:
    """Loads a drafter from a folder or a hub id; see `load_network`."""
    return DFlashDrafter(load_network(source, target), target, name=str(source))


def load_network(source: str | Path, target: BorrowedTarget) -> DFlashModel:
    """Loads a drafter's network from a folder or a hub id, in the target's dtype and on its device; nothing in it is to be trained.

    Raises `InvalidInput` if nothing is found, if the checkpoint is of another convention or damaged, or if it does not fit the target.
    """
    folder = find_folder(source)
    with _explained(source), ExitStack() as stack:
        values = _read_config(folder)
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise InvalidInput(f"{source} holds no .safetensors file; weights in other formats are not read. Convert them first.")
        handles = [stack.enter_context(open_safetensors(path, str(target.device))) for path in files]
        tensors = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118
        refuse_foreign(values, tensors.keys(), str(source))
        config = with_table(DFlashConfig.from_json(values), tensors, str(source))
        check_fit(config, target, str(source))
        return load_model(config, tensors, target, str(source))


def save_drafter(model: DFlashModel, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Writes `model` in the released layout; each file is complete or absent, and the configuration comes last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: _as_type(tensor.detach(), dtype).contiguous().cpu() for name, tensor in model.state_dict().items()}
    temporary = folder / f"{WEIGHTS}.tmp"
    save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, folder / WEIGHTS)
    temporary = folder / f"{CONFIG}.tmp"
    description = {**model.config.to_json(), "dtype": str(dtype).removeprefix("torch.")}
    temporary.write_text(json.dumps(description, indent=2) + "\n")
    os.replace(temporary, folder / CONFIG)


def find_folder(source: str | Path) -> Path:
    """The folder of a checkpoint: `source` itself, what a training run in `source` has written, or a snapshot of that hub id (safetensors
    and JSON files only)."""
    if Path(source).is_dir():
        return finished_drafter(Path(source))
    if Path(source).exists():
        raise InvalidInput(f"{source} is a file; give the folder that holds the drafter's config.json and .safetensors, or a hub id.")
    try:
        return Path(snapshot_download(str(source), allow_patterns=["*.safetensors", "*.json"]))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidInput(f"No drafter {str(source)!r}: it is no folder, and the Hugging Face hub did not give it ({reason})") from None


def finished_drafter(folder: Path) -> Path:
    """The folder, or in that of a training run the drafter that came out of it. Raises `InvalidInput` where the run is not finished."""
    if (folder / CONFIG).exists():
        return folder
    if (folder / RUN_RESULT / CONFIG).exists():
        return folder / RUN_RESULT
    if (folder / RUN_RECORD).exists():
        raise InvalidInput(f"{folder} holds a training run that is not finished; let it end first (the same command with --resume).")
    return folder


def check_fit(config: DFlashConfig, target: BorrowedTarget, where: str) -> None:
    """Raises `InvalidInput` with both numbers if a drafter was made for another target."""
    facts: tuple[tuple[str, int | None, int], ...] = (
        ("a hidden size of", config.hidden_size, target.hidden_size),
        ("a target of this many layers:", config.num_target_layers, target.num_layers),
        ("a vocabulary of", config.vocab_size, target.vocab_size),
    )
    for what, expected, found in facts:
        if expected is not None and expected != found:
            raise InvalidInput(f"{where} does not fit {target.name}: it was made for {what} {expected}, and the target's is {found}.")
    deepest = max(config.target_layer_ids)
    if deepest >= target.num_layers:
        raise InvalidInput(
            f"{where} does not fit {target.name}: it reads layer {deepest} (counted from 0), and the target has {target.num_layers} layers."
        )


def with_table(config: DFlashConfig, tensors: Mapping[str, Any], where: str) -> DFlashConfig:
    """The configuration with the size of the checkpoint's table `d2t`. Raises `InvalidInput` where the two disagree."""
    shape = tuple(tensors["d2t"].get_slice("d2t").get_shape()) if "d2t" in tensors else None
    if shape is None and config.draft_vocab_size in (None, config.vocab_size):
        return replace(config, draft_vocab_size=None)
    if shape is None or len(shape) != 1 or not 0 < shape[0] <= config.vocab_size or config.draft_vocab_size not in (None, shape[0]):
        found = "none" if shape is None else f"one of shape {list(shape)}"
        raise InvalidInput(
            f"{where} has a draft_vocab_size of {config.draft_vocab_size} in its config.json, and of tables d2t that name these tokens it "
            f"has {found}; the two must agree, with at most {config.vocab_size} tokens. Fetch the checkpoint again."
        )
    return replace(config, draft_vocab_size=shape[0])


def load_model(config: DFlashConfig, tensors: Mapping[str, Any], target: BorrowedTarget, where: str) -> DFlashModel:
    """A network with the tensors of the safetensors handles `tensors` (by name), in the target's dtype."""
    with torch.device("meta"):
        model = DFlashModel(config)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    slices = {name: handle.get_slice(name) for name, handle in tensors.items() if not HARMLESS_TENSORS.search(name)}
    shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
    _check_tensors(expected, {name: shape for name, shape in shapes.items() if name not in BORROWED}, where)
    packed = sorted(name for name, one in slices.items() if name != "d2t" and one.get_dtype() not in FLOATS)
    if packed:
        raise InvalidInput(f"{where} holds {listed(packed)} in another type than {', '.join(FLOATS)}; take the drafter in one of those.")
    for name in sorted(BORROWED & tensors.keys()):
        own = tensors[name].get_tensor(name)
        fits = shapes[name] == (target.vocab_size, target.hidden_size)
        if not fits or not (is_embedding(target.embed, own) if name == EMBEDDING else is_head(target.head, own, target.dtype)):
            raise InvalidInput(f"{where} carries its own {name}, which is not {target.name}'s; a DFlash drafter must use the target's.")
    loaded = {name: tensors[name].get_tensor(name).to(target.dtype) for name in expected if name != "d2t"}
    if "d2t" in expected:
        loaded["d2t"] = checked_offsets(tensors["d2t"].get_tensor("d2t"), config.vocab_size, config.mask_token_id, where)
    model.load_state_dict(loaded, assign=True)
    return model.eval().requires_grad_(False)


def _as_type(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights in the type asked for, tables as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _check_tensors(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], where: str) -> None:
    faults = {
        "missing": sorted(expected.keys() - found.keys()),
        "unexpected": sorted(found.keys() - expected.keys()),
        "of the wrong shape": [
            f"{name} {list(found[name])} instead of {list(shape)}" for name, shape in expected.items() if found.get(name, shape) != shape
        ],
    }
    told = [f"{kind}: {listed(names)}" for kind, names in faults.items() if names]
    if told:
        raise InvalidInput(f"{where} is not the DFlash drafter its config.json describes; tensors {'; '.join(told)}.")


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        values = read_json_object(folder / CONFIG)
    except FileNotFoundError:
        raise InvalidInput(f"{folder} holds no {CONFIG}; a drafter's folder has one beside its .safetensors.") from None
    scheme = quantisation_of(values)
    if scheme is not None:
        raise InvalidInput(f"The weights of the drafter {folder} are quantised ({scheme!r}), which is not supported; take it in bfloat16.")
    return values


@contextmanager
def _explained(source: str | Path) -> Iterator[None]:
    """Turns whatever a damaged or hostile checkpoint makes its readers raise into a sentence."""
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(
            f"{source} cannot be read as a DFlash drafter ({type(error).__name__}: {reason(error)}); fetch the checkpoint again."
        ) from None
