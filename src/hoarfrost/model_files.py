"""The files of a checkpoint's folder, read with distrust: whatever is wrong with one is a sentence that names it and says what to do.

Downloads break off, clones without git-lfs leave pointers where weights should be, folders are put together by hand. Only JSON and
safetensors are read here, neither of which can run anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hoarfrost.errors import InvalidInput

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
DESCRIPTIONS = (CONFIG, "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", INDEX)
AGAIN = "fetch the checkpoint again"
# Buffers of older versions of transformers, and scales for keys and values in 8 bits, which no cache here holds.
HARMLESS_TENSORS = re.compile(r"(^|\.)(rotary_emb\.\w+|position_ids|(k|v|kv|q)_scale|kv_cache\.\w+)$")
QUANTISATION_KEYS = ("quantization_config", "compression_config", "quantization")
LFS_POINTER = b"version https://git-lfs"


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises `InvalidInput` for anything else; `FileNotFoundError` where there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror or reason(error)}); mend its access rights, or {AGAIN}.") from None
    if content.startswith(LFS_POINTER):
        raise InvalidInput(told_as_pointer(path))
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} cannot be read as JSON ({reason(error)}); {AGAIN}.") from None
    if not isinstance(values, dict):
        raise InvalidInput(f"{path} holds no JSON object; {AGAIN}.")
    return values


def open_safetensors(path: Path, device: str = "cpu") -> Any:
    """An open handle on the tensors of a file, which is to be used as a context. Raises `InvalidInput` if it is not whole."""
    try:
        return safe_open(path, framework="pt", device=device)
    except (OSError, SafetensorError) as error:
        if is_lfs_pointer(path):
            raise InvalidInput(told_as_pointer(path)) from None
        raise InvalidInput(f"{path} is not a whole safetensors file ({reason(error)}); {AGAIN}.") from None


def check_files(folder: Path) -> None:
    """Raises `InvalidInput` for the first file in a model's `folder` that is damaged or missing."""
    if not (folder / CONFIG).exists():
        raise InvalidInput(f"The folder {folder} holds no config.json; give the folder of a model, or a hub id.")
    for path in (folder / name for name in DESCRIPTIONS):
        if path.exists():
            read_json_object(path)
    for path in sorted(folder.glob("*.safetensors")):
        with open_safetensors(path):
            pass
    missing = [name for name in weight_files(folder) if not (folder / name).is_file()]
    if missing and (folder / INDEX).exists():
        raise InvalidInput(f"{folder} lacks {listed(missing)}, which {INDEX} names; {AGAIN}.")


def weight_files(folder: Path) -> list[str]:
    """The names of the files with a model's weights: those of its index, or the one that needs none. Raises `InvalidInput`."""
    if not (folder / INDEX).exists():
        return [WEIGHTS]
    shards = read_json_object(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict):
        raise InvalidInput(f"{folder / INDEX} has no weight_map; {AGAIN}.")
    return sorted({str(shard) for shard in shards.values()})


def asks_for_own_code(folder: Path) -> bool:
    """Whether a model's description names Python files to be run (`auto_map`)."""
    described = [folder / name for name in (CONFIG, "tokenizer_config.json")]
    return any("auto_map" in read_json_object(path) for path in described if path.exists())


def quantisation_of(config: Mapping[str, Any]) -> str | None:
    """The name of the scheme that a model's weights are quantised by, as its config.json gives it; `None`: they are not."""
    scheme = next((config[key] for key in QUANTISATION_KEYS if config.get(key)), None)
    if scheme is None:
        return None
    if not isinstance(scheme, Mapping):
        return str(scheme)
    if scheme.get("load_in_4bit") or scheme.get("load_in_8bit"):
        return "bitsandbytes"
    return str(scheme.get("quant_method") or ("mlx" if {"bits", "group_size"} <= scheme.keys() else "a scheme without a name"))


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is what git leaves in place of a large one where git-lfs is not installed."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError:
        return False


def told_as_pointer(path: Path) -> str:
    return f"{path} is a pointer of git-lfs, not the file itself; run `git lfs pull` in its folder, or fetch the checkpoint from the hub."


def reason(error: BaseException) -> str:
    """The first line of an error's message, without its full stop; its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__


def listed(names: list[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
