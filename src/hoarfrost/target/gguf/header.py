"""The head of a GGUF file: metadata and the places of its tensors, read from a memory map that nobody has vouched for.

`gguf.GGUFReader` believes what a file says of itself and makes an array object for every token of a vocabulary, which takes many seconds.
Here every count and length is held against what is left of the file before anything is made of it, so a broken or hostile file ends in one
`InvalidInput` at once. The layout is that of versions 2 and 3, little-endian (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md);
types and their sizes are those of the `gguf` package.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from hoarfrost.errors import InvalidInput

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_ENTRIES, MAX_ARRAY, MAX_STRING_BYTES, MAX_NAME_BYTES, MAX_DIMS = 1 << 16, 1 << 21, 1 << 24, 256, 4
MAX_HEAD_BYTES = 1 << 27
SCALARS = {
    GGUFValueType.UINT8: "<u1", GGUFValueType.INT8: "<i1", GGUFValueType.UINT16: "<u2", GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4", GGUFValueType.INT32: "<i4", GGUFValueType.UINT64: "<u8", GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4", GGUFValueType.FLOAT64: "<f8", GGUFValueType.BOOL: "?",
}  # fmt: skip
TENSOR_KINDS = {int(kind): kind for kind in GGMLQuantizationType}

Value = TypeVar("Value")


@dataclass(frozen=True)
class TensorPlace:
    """A tensor of ggml type `kind`; `shape` in torch's order, the inputs of a matrix last; bytes from `start` to `stop` of the file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class GGUFFile:
    """A file whose head is consistent. `data`, uint8, is mapped from it: pages are read when they are used."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, TensorPlace]
    data: NDArray[np.uint8]

    def fail(self, message: str) -> NoReturn:
        raise InvalidInput(f"{self.path}: {message}")

    def raw(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor, `[..., bytes per row]`, mapped."""
        place = self.tensors[name]
        return self.data[place.start : place.stop].reshape(*place.shape[:-1], -1)

    def text(self, key: str, default: str | None = None) -> str | None:
        value = self.metadata.get(key, default)
        if value is not None and not isinstance(value, str):
            self.fail(f"{key} is {short(value)}, and should be text.")
        return value

    def integer(self, key: str, default: int | None = None, *, least: int = 0, most: int = 1 << 24) -> int:
        """Raises `InvalidInput` where there is none and no default, or it lies outside."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.fail(f"{key} is {short(value)}, and should be a whole number from {least} to {most}.")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number, float32 ones as they are written (1e-05, not 9.99999974e-06). Raises `InvalidInput` like `integer`."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            self.fail(f"{key} is {short(value)}, and should be a positive number.")
        return float(str(np.float32(value))) if np.float32(value) == value else float(value)

    def flag(self, key: str, default: bool | None = None) -> bool | None:
        value = self.metadata.get(key, default)
        if value is not None and not isinstance(value, bool):
            self.fail(f"{key} is {short(value)}, and should be true or false.")
        return value

    def items(self, key: str, kind: type[Value]) -> list[Value]:
        """A list of values of one kind; an empty one where the file has none."""
        value = self.metadata.get(key, [])
        if not isinstance(value, list) or not all(type(item) is kind for item in value):
            self.fail(f"{key} is {short(value)}, and should be a list of {kind.__name__} values.")
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self.metadata.get(key, default)
        if value is None:
            self.fail(f"the metadata lack {key}.")
        return value


class _Broken(Exception):
    """What is wrong with a file, in words."""


class _Cursor:
    """Reads what stands next, within the file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.at, self._stop = data, 0, min(len(data), MAX_HEAD_BYTES)

    def take(self, num_bytes: int, what: str) -> bytes:
        if num_bytes > self._stop - self.at:
            raise _Broken(f"{what} runs past the end of the file: it is truncated or damaged.")
        self.at += num_bytes
        return self._data[self.at - num_bytes : self.at]

    def count(self, form: str, what: str, most: int, bytes_each: int = 0) -> int:
        """A whole number that may be at most `most`, of things that take at least `bytes_each` bytes of the rest of the file."""
        value: int = struct.unpack(form, self.take(struct.calcsize(form), what))[0]
        if value > most:
            raise _Broken(f"{what} is {value}, more than any real file has ({most}): it is damaged.")
        if value * bytes_each > self._stop - self.at:
            raise _Broken(f"{what} is {value}, which runs past the end of the file: it is truncated or damaged.")
        return value

    def text(self, what: str, most: int) -> str:
        raw = self.take(self.count("<Q", f"the length of {what}", most, 1), what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _Broken(f"{what} is no UTF-8 text ({raw[:20]!r}): it is damaged.") from None

    def value(self, what: str) -> Any:
        kind = self.count("<I", f"the type of {what}", 1 << 32)
        if kind == GGUFValueType.ARRAY:
            return self._array(what)
        return self._values(kind, 1, what)[0]

    def _array(self, what: str) -> list[Any]:
        kind = self.count("<I", f"the type of the items of {what}", 1 << 32)
        width = np.dtype(SCALARS[GGUFValueType(kind)]).itemsize if kind in SCALARS else 8
        return self._values(kind, self.count("<Q", f"the number of items of {what}", MAX_ARRAY, width), what)

    def _values(self, kind: int, num_values: int, what: str) -> list[Any]:
        if kind == GGUFValueType.STRING:
            return [self.text(what, MAX_STRING_BYTES) for _ in range(num_values)]
        if kind not in SCALARS:
            raise _Broken(f"{what} is of the unknown type {kind}: it is damaged, or newer than this program.")
        dtype = np.dtype(SCALARS[GGUFValueType(kind)])
        raw = self.take(num_values * dtype.itemsize, what)
        if kind == GGUFValueType.BOOL and raw.strip(b"\0\1"):
            raise _Broken(f"{what} holds a truth value that is neither 0 nor 1: it is damaged.")
        values: list[Any] = np.frombuffer(raw, dtype).tolist()
        return values


def read_header(path: Path) -> GGUFFile:
    """Reads the head of `path`. Raises `InvalidInput` if it cannot be read, is no GGUF file, or contradicts itself or the file's size."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start[:4] != MAGIC:
                raise InvalidInput(f"{path} is no GGUF file: it begins with {start[:4]!r}, not {MAGIC!r}.")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    try:
        return _read(path, data)
    except _Broken as error:
        raise InvalidInput(f"{path}: {error} Fetch the file again.") from None


def _read(path: Path, data: mmap.mmap) -> GGUFFile:
    cursor = _Cursor(data)
    cursor.take(4, "the magic number")
    version = cursor.count("<I", "the version", 1 << 32)
    if version not in VERSIONS:
        hint = "written for big-endian machines" if version and not version & 0xFFFF else "of an unknown version"
        raise InvalidInput(f"{path} is a GGUF file {hint} ({version}); versions 2 and 3, little-endian, can be read. Convert it again.")
    num_tensors = cursor.count("<Q", "the number of tensors", MAX_ENTRIES, 24)
    num_entries = cursor.count("<Q", "the number of metadata entries", MAX_ENTRIES, 13)
    metadata = _entries(cursor, num_entries, "metadata entry", lambda name: cursor.value(name))
    places = _entries(cursor, num_tensors, "tensor", lambda name: _tensor(cursor, name))
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise _Broken(f"general.alignment is {short(alignment)}, and should be a power of two.")
    base = -(-cursor.at // alignment) * alignment
    tensors = {name: _place(name, *place, base, alignment, len(data)) for name, place in places.items()}
    return GGUFFile(path, metadata, tensors, np.frombuffer(data, np.uint8))


def _entries(cursor: _Cursor, num_entries: int, what: str, read: Callable[[str], Value]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for index in range(num_entries):
        name = cursor.text(f"the name of {what} {index}", MAX_NAME_BYTES)
        if not name.isprintable():
            raise _Broken(f"the name of {what} {index} is no plain text ({short(name)}): it is damaged.")
        if name in found:
            raise _Broken(f"the {what} {name!r} stands in it twice: it is damaged.")
        found[name] = read(name)
    return found


def _tensor(cursor: _Cursor, name: str) -> tuple[tuple[int, ...], int, int]:
    """Shape in torch's order, type and offset, as the file states them."""
    num_dims = cursor.count("<I", f"the number of dimensions of {name}", MAX_DIMS, 8)
    shape = struct.unpack(f"<{num_dims}Q", cursor.take(8 * num_dims, name))
    kind, offset = struct.unpack("<IQ", cursor.take(12, name))
    return shape[::-1], kind, offset


def _place(name: str, shape: tuple[int, ...], kind: int, offset: int, base: int, alignment: int, num_file_bytes: int) -> TensorPlace:
    if kind not in TENSOR_KINDS:
        raise _Broken(f"the tensor {name} is of the unknown type {kind}: it is damaged, or newer than this program.")
    block_size, block_bytes = GGML_QUANT_SIZES[TENSOR_KINDS[kind]]
    num_bytes = math.prod(shape) // block_size * block_bytes
    if not shape or 0 in shape or shape[-1] % block_size:
        raise _Broken(f"the tensor {name} has the impossible shape {shape} for its type: it is damaged.")
    if offset % alignment:
        raise _Broken(f"the tensor {name} begins at byte {offset} of the data, no multiple of {alignment}: it is damaged.")
    if base + offset + num_bytes > num_file_bytes:
        raise _Broken(f"the tensor {name} runs past the end of the file: it is truncated or damaged.")
    return TensorPlace(TENSOR_KINDS[kind].name, shape, base + offset, base + offset + num_bytes)


def short(value: Any) -> str:
    """A value as messages show it."""
    text = repr(value[:3])[:-1] + ", ...]" if isinstance(value, list) and len(value) > 3 else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
