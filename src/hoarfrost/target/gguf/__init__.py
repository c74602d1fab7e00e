"""Models in GGUF files, llama.cpp's format: architecture, weights in blocks of few bits, tokenizer and chat template in one file.

`find_gguf` tells whether a name means one, `open_gguf` reads everything but the weights, and `GGUFModel.load` those. Served are Llama (and
Mistral, which has no name of its own there), Qwen2 and Qwen3, with full attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from hoarfrost.errors import InvalidInput
from hoarfrost.target.gguf.config import Shape, read_config, read_generation_config, read_shape
from hoarfrost.target.gguf.header import GGUFFile, read_header
from hoarfrost.target.gguf.tokenizer import read_tokenizer
from hoarfrost.target.gguf.weights import block_kinds, check_kinds, read_model

__all__ = ["GGUFModel", "find_gguf", "open_gguf"]

SUFFIX = ".gguf"


@dataclass(frozen=True)
class GGUFModel:
    """A file that has been looked through, its weights not yet read."""

    file: GGUFFile
    shape: Shape
    config: PreTrainedConfig

    @property
    def kinds(self) -> set[str]:
        """The kinds of blocks that its matrices are in; none if they are all float."""
        return block_kinds(self.file)

    def load(self, dtype: torch.dtype, device: torch.device, *, keep_blocks: bool, attention: str) -> PreTrainedModel:
        """The model, ready for inference; see `read_model`."""
        model = read_model(self.file, self.shape, self.config, dtype, device, keep_blocks=keep_blocks, attention=attention)
        model.generation_config = read_generation_config(self.file, self.config.vocab_size)
        model.eval()  # type: ignore[no-untyped-call]
        model.requires_grad_(False)
        return model

    def tokenizer(self) -> Any:
        return read_tokenizer(self.file)


def find_gguf(name: str) -> Path | None:
    """The file that `name` means: a path that ends in .gguf, or a folder that holds one such file and no config.json.

    Raises `InvalidInput` for a path that is not there, and a folder that holds several.
    """
    path = Path(name)
    if path.suffix.lower() == SUFFIX:
        if not path.is_file():
            raise InvalidInput(f"There is no file {name}.")
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    found = sorted(path.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        raise InvalidInput(
            f"The folder {name} holds {len(found)} GGUF files ({', '.join(file.name for file in found[:4])} ...); name one of them."
        )
    return found[0] if found else None


def open_gguf(path: Path) -> GGUFModel:
    """Raises `InvalidInput` for a file that is damaged or of a kind that is not served."""
    file = read_header(path)
    shape = read_shape(file)
    check_kinds(file)
    return GGUFModel(file, shape, read_config(file, shape))
