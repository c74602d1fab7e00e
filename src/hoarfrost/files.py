"""Files written whole or not at all, and standard output where a path says so.

A path that a user gives may be `-` (standard output), a link (what it points to is written, the link stays) or something that is no regular
file (a pipe, a device), which is written to as it stands: only regular files are replaced.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

from hoarfrost.errors import InvalidInput

STANDARD_OUTPUT = Path("-")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented UTF-8 JSON, whole or not at all. Raises ValueError for NaN and infinities, which JSON cannot carry."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, under a temporary name in the same folder that is then renamed; pipes, devices and standard
    output directly. Raises OSError that names `path`."""
    try:
        _write(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write(path: Path, content: bytes) -> None:
    if is_standard_output(path):
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    if not is_replaceable(path):
        with path.open("wb") as file:
            file.write(content)
        return
    place = path.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(place)
    try:
        temporary.write_bytes(content)
        if place.exists():
            temporary.chmod(stat.S_IMODE(place.stat().st_mode))
        temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


def append_line(path: Path, line: str) -> None:
    """Appends whole or not at all: on a full disk or an interruption the file keeps its length. Raises OSError."""
    left = memoryview(line.encode("utf-8"))
    with path.open("ab", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        try:
            while left:
                left = left[file.write(left) :]
        except BaseException:
            file.truncate(length)
            raise


def is_standard_output(path: Path) -> bool:
    """Whether `path` is `-`, or another name of what standard output is connected to."""
    if path == STANDARD_OUTPUT:
        return True
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


def is_replaceable(path: Path) -> bool:
    """Whether a file can be renamed over what stands at `path`, or at what it points to: nothing, or a regular file."""
    if is_standard_output(path):
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def check_writable(path: Path) -> None:
    """Raises `InvalidInput` where `write_text` could not write: to be asked before the work whose result goes there."""
    try:
        _try_to_write(path)
    except (OSError, RuntimeError) as error:  # a RuntimeError: links that lead to each other
        reason = (isinstance(error, OSError) and error.strerror) or "it is a link that leads back to itself"
        raise InvalidInput(f"The result file {path} cannot be written: {reason}.") from None


def _try_to_write(path: Path) -> None:
    if is_standard_output(path):
        if sys.stdout is None:
            raise InvalidInput("The result cannot be written to standard output, which is closed; name a file.")
    elif path.is_dir():
        raise InvalidInput(f"The result file {path} cannot be written: it is a folder; name a file in it.")
    elif path.exists() and not os.access(path, os.W_OK):
        raise InvalidInput(f"The result file {path} cannot be written: it is read-only.")
    elif is_replaceable(path):
        place = path.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(place.parent, os.W_OK):
            raise InvalidInput(f"The result file {path} cannot be written: its folder is read-only.")
        temporary = _temporary(place)
        try:
            temporary.touch()  # what a file system refuses beyond access rights: names that are too long, files of the kernel
        finally:
            temporary.unlink(missing_ok=True)


def _temporary(place: Path) -> Path:
    return place.with_name(f".{place.name}.{os.getpid()}.tmp")
