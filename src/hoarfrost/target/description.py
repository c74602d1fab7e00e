"""A target as far as its description goes: found, and known to be one that is served exactly, before weights are fetched or read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

from hoarfrost.hub import Checkpoint
from hoarfrost.target.gguf import GGUFModel, find_gguf, open_gguf
from hoarfrost.target.loading import check_supported, load_config, load_tokenizer, locate


@dataclass(frozen=True)
class Description:
    """Where a model lies, and its configuration; `gguf` is the file that both came from, if it is one."""

    source: Checkpoint
    config: PreTrainedConfig
    gguf: GGUFModel | None

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def num_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @property
    def hidden_size(self) -> int:
        return int(self.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        return int(self.config.vocab_size)

    def load_tokenizer(self) -> Any:
        return load_tokenizer(self.source) if self.gguf is None else self.gguf.tokenizer()


def describe(name: str, revision: str | None = None) -> Description:
    """Raises `InvalidInput` for what cannot be found, is damaged or is not served."""
    source = locate(name, revision)
    path = find_gguf(str(source.path))
    if path is None:
        return Description(source, load_config(source), None)
    gguf = open_gguf(path)
    check_supported(gguf.config, name)
    return Description(source, gguf.config, gguf)
