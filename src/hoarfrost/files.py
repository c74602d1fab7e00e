"""Files written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hoarfrost.errors import InvalidInput


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, whole or not at all. Raises ValueError for NaN and infinities, which JSON cannot carry."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file whole or not at all: under a temporary name in the same folder, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises `InvalidInput` where `write_text` could not write: to be asked before the work whose result goes there."""
    if path.is_dir():
        raise InvalidInput(f"The result file {path} cannot be written: it is a folder; name a file in it.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"The result file {path} cannot be written: {error.strerror}.") from None
    if not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"The result file {path} cannot be written: its folder is read-only.")
