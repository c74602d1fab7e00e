"""Reads and writes DFlash drafters in the released layout: one folder with `config.json` and safetensors, nothing executable.

Released checkpoints carry neither embedding nor head, for the drafter borrows the target's. An `embed_tokens.weight` or `lm_head.weight`
that is there all the same is accepted if it equals the target's, which proves that the two belong together, and left out; any other is
refused. A table `d2t` of the tokens that can be guessed needs no key in the configuration: it says its length itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hoarfrost.drafting.borrowed import is_embedding, is_head
from hoarfrost.drafting.config import DFlashConfig
from hoarfrost.drafting.dflash import BorrowedTarget, DFlashDrafter
from hoarfrost.drafting.foreign import refuse_foreign
from hoarfrost.drafting.network import DFlashModel
from hoarfrost.drafting.opening import TENSOR_FILES, OpenedDrafter, explained, open_drafter
from hoarfrost.drafting.vocabulary import checked_offsets
from hoarfrost.errors import InvalidInput
from hoarfrost.hub import HubRefusal
from hoarfrost.model_files import CONFIG, HARMLESS_TENSORS, WEIGHTS, listed, open_safetensors

EMBEDDING = "embed_tokens.weight"
BORROWED = {EMBEDDING, "lm_head.weight"}
FLOATS = ("F32", "BF16", "F16", "F8_E4M3")  # whatever a file keeps, the model is in its target's type


def read_config(folder: str | Path) -> DFlashConfig:
    """The configuration in `folder`. Raises `InvalidInput` if it is missing, unreadable or of another convention."""
    return open_drafter(folder).config


def load_drafter(source: str | Path | OpenedDrafter, target: BorrowedTarget) -> DFlashDrafter:
    """Loads a drafter from a folder, an alias or a hub id; see `load_network`."""
    opened = source if isinstance(source, OpenedDrafter) else open_drafter(source)
    return DFlashDrafter(load_network(opened, target), target, name=opened.source.name)


def load_network(source: str | Path | OpenedDrafter, target: BorrowedTarget) -> DFlashModel:
    """Loads a drafter's network in the target's dtype and on its device; nothing in it is to be trained.

    Raises `InvalidInput` for what `open_drafter` does, and if the checkpoint is damaged or does not fit the target.
    """
    opened = source if isinstance(source, OpenedDrafter) else open_drafter(source)
    opened.check_fit(target)
    name, folder = opened.source.name, opened.source.path
    try:
        opened.source.fetch([TENSOR_FILES])
    except HubRefusal as refusal:
        raise InvalidInput(f"The weights of the drafter {name!r} cannot be had: {refusal}.") from None
    with explained(name), ExitStack() as stack:
        files = sorted(folder.glob(TENSOR_FILES))
        if not files:
            raise InvalidInput(f"{name} holds no .safetensors file; weights in other formats are not read. Convert them first.")
        handles = [stack.enter_context(open_safetensors(path, str(target.device))) for path in files]
        tensors = {name: handle for handle in handles for name in handle.keys()}  # noqa: SIM118
        refuse_foreign(opened.values, tensors.keys(), name)
        return load_model(with_table(opened.config, tensors, name), tensors, target, name)


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
