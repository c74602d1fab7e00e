"""Where the records of a prompt set come from: files in a data folder, or the Hugging Face hub.

A data folder has the files of prompt sets under `eval/`: JSON lines, or one JSON list or object of records where the name ends in `.json`.
The hub is read in a stream through the `datasets` package, so that only the records asked for travel; it is an optional dependency, needed
for this alone.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from hoarfrost.errors import InvalidInput
from hoarfrost.hub import HubRefusal, ask
from hoarfrost.model_files import reason

DATA_VARIABLE = "HOARFROST_DATA"
Record = dict[str, Any]


@dataclass(frozen=True)
class HubSource:
    """A data set on the hub: a split of a configuration, or (`file`) one JSON lines file of its repository."""

    repository: str
    split: str = "train"
    config: str | None = None
    file: str | None = None


def find_data_dir(data_dir: Path | None) -> Path | None:
    """The folder that holds the data: the one given, else the one HOARFROST_DATA names, else `None`, which means the hub."""
    named = os.environ.get(DATA_VARIABLE)
    return data_dir or (Path(named) if named else None)


def read_records(file_name: str, hub: HubSource, data_dir: Path | None, folder: str = "eval") -> Iterator[Record]:
    """Yields a set's records in their order, from `folder` of the data folder where there is one, else from the hub.

    Raises `InvalidInput` for what is missing, broken or out of reach.
    """
    data = find_data_dir(data_dir)
    return _read_hub(hub, f"{folder}/{file_name}") if data is None else _read_file(data / folder / file_name)


def _read_file(path: Path) -> Iterator[Record]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidInput(
            f"The prompt file {path} cannot be read ({reason}); --data-dir or {DATA_VARIABLE} names its folder's parent."
        ) from None
    try:
        if path.suffix == ".json":
            content = json.loads(text)
            yield from content.values() if isinstance(content, dict) else content
        else:
            yield from (json.loads(line) for line in text.split("\n") if line.strip())
    except json.JSONDecodeError as error:
        raise InvalidInput(f"The prompt file {path} is not valid JSON: {error}.") from None


def _read_hub(hub: HubSource, place_in_data: str) -> Iterator[Record]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise InvalidInput(
            f"Without a data folder prompts are read from the Hugging Face hub, which needs the `datasets` package; install it, or set "
            f"{DATA_VARIABLE} (or --data-dir) to a folder that has {place_in_data}."
        ) from None
    try:
        if not constants.HF_HUB_OFFLINE:
            ask(hub.repository, repo_type="dataset")
        if hub.file is not None:
            place = f"hf://datasets/{hub.repository}/{hub.file}"
            yield from datasets.load_dataset("json", data_files=place, split="train", streaming=True)
        else:
            yield from datasets.load_dataset(hub.repository, hub.config, split=hub.split, streaming=True)
    except Exception as error:  # the libraries below raise errors of a dozen unrelated kinds when offline
        why = str(error) if isinstance(error, HubRefusal) else f"the Hugging Face hub did not give it ({reason(error)})"
        raise InvalidInput(
            f"The prompt set {hub.repository} could not be read: {why}; set {DATA_VARIABLE} (or --data-dir) to a folder that has "
            f"{place_in_data}."
        ) from error
