"""A read context as a file: all keys and values of one sequence, its tokens and the prompt's last queries, in safetensors.

Rows stand in order of position, whatever pages they lay in: the file does not depend on budget, page size or index, and the index is built
anew when decoding starts, from the same keys and queries and therefore the same. The file is written layer by layer beside its place and
moved there when it is whole; it is read chunk by chunk. Its last tensor is the SHA-256 of all that stands before: a file that anything
happened to is refused. Whether it belongs to a model is for the caller to check (`StoredContext.rows`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hoarfrost.cache.ice import IceStore
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.errors import InvalidInput

FORMAT, VERSION = "hoarfrost-context", 2
CHECKSUM = "sha256"
CHUNK_ROWS, BLOCK_BYTES = 512, 1 << 20
_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}


def save_context(path: str | Path, store: IceStore, token_ids: Sequence[int]) -> None:
    """Writes the committed rows of `store`, which belong to `token_ids`. Raises `InvalidInput` where there is no room; then nothing is."""
    if len(token_ids) != store.length:
        raise InvalidInput(f"The cache holds {store.length} rows and {len(token_ids)} token ids came with it; give those of its rows.")
    path = Path(path)
    metadata = {"format": FORMAT, "version": str(VERSION), "num_layers": str(store.num_layers)}
    try:
        file, draft = tempfile.mkstemp(prefix=path.name, dir=path.parent)
        try:
            with os.fdopen(file, "wb") as stream:
                _write(stream, store, torch.tensor(list(token_ids)), metadata)
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise InvalidInput(
            f"The context could not be saved to {path}: {error.strerror}; free some space or choose another place."
        ) from None


def _write(stream: BinaryIO, store: IceStore, token_ids: Tensor, metadata: dict[str, str]) -> None:
    """The safetensors layout, streamed: the header's length, the header, then tensor after tensor."""
    queries = store.last_queries()
    shape = list(store.rows_in_order(0).shape)
    tensors: dict[str, tuple[torch.dtype, list[int]]] = {"token_ids": (torch.int64, [len(token_ids)])}
    for layer in range(store.num_layers):
        tensors[f"rows.{layer}"] = (store.dtype, shape)
    for layer, one in queries.items():
        tensors[f"queries.{layer}"] = (one.dtype, list(one.shape))
    tensors[CHECKSUM] = (torch.uint8, [hashlib.sha256().digest_size])
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, (dtype, extents) in tensors.items():
        start, end = end, end + dtype.itemsize * torch.Size(extents).numel()
        header[name] = {"dtype": _NAMES[dtype], "shape": extents, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    summed = _Summed(stream)
    summed.write(len(text).to_bytes(8, "little") + text)
    _write_tensor(summed, token_ids)
    for layer in range(store.num_layers):
        _write_tensor(summed, store.rows_in_order(layer))
    for one in queries.values():
        _write_tensor(summed, one)
    stream.write(summed.digest())


class _Summed:
    """Writes to a stream and sums up what it writes."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._sum = stream, hashlib.sha256()

    def write(self, content: bytes | memoryview) -> None:
        self._stream.write(content)
        self._sum.update(content)

    def digest(self) -> bytes:
        return self._sum.digest()


def _write_tensor(stream: _Summed, tensor: Tensor) -> None:
    stream.write(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)


def _is_whole(path: str | Path) -> bool:
    """Whether the file ends with the sum of what stands before."""
    summed = hashlib.sha256()
    with open(path, "rb") as stream:
        left = os.fstat(stream.fileno()).st_size - summed.digest_size
        while left > 0:
            block = stream.read(min(left, BLOCK_BYTES))
            summed.update(block)
            left -= len(block)
        return left == 0 and stream.read() == summed.digest()


class StoredContext:
    """An opened file; use it in a `with` block. Raises `InvalidInput` for a file that is none, is damaged, or of another version."""

    def __init__(self, path: str | Path) -> None:
        try:
            opened: Any = safe_open(str(path), framework="pt")
        except (OSError, SafetensorError) as error:
            raise InvalidInput(f"{path} is no saved context, or it is cut off ({str(error).splitlines()[0]}); save it again.") from None
        self._file = opened
        metadata = self._file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InvalidInput(f"{path} is a safetensors file, but no saved context.")
        if metadata.get("version") != str(VERSION):
            raise InvalidInput(f"{path} is a saved context of version {metadata.get('version')}; this is version {VERSION}: save it again.")
        if not _is_whole(path):
            raise InvalidInput(f"{path} is damaged: its content does not give the checksum that was saved with it; save the context again.")
        self.path = Path(path)
        self.num_layers = int(metadata["num_layers"])
        self.token_ids: list[int] = self._file.get_tensor("token_ids").tolist()
        _, self.num_kv_heads, self.num_rows, self.head_dim = self._file.get_slice("rows.0").get_shape()
        self.dtype = self.rows(0, slice(0, 0)).dtype

    def __enter__(self) -> StoredContext:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.__exit__(kind, error, trace)

    def rows(self, layer: int, numbers: slice) -> Tensor:
        """Keys and values `[2, Hkv, rows, D]` of some rows of a layer."""
        rows: Tensor = self._file.get_slice(f"rows.{layer}")[:, :, numbers]
        return rows

    def load(self, config: IceConfig, device: torch.device | str) -> IceStore:
        """A store with these rows, as it was when the prompt was read; call `start_decoding` to go on."""
        shape = (self.num_layers, self.num_kv_heads, self.head_dim)
        store = config.new_store(*shape, dtype=self.dtype, device=device, capacity=self.num_rows)
        store.reserve(self.num_rows)
        for chunk in _chunks(self.num_rows):
            for layer in range(self.num_layers):
                keys, values = self.rows(layer, chunk).to(device)
                store.append(layer, keys, values)
            store.commit(range(chunk.stop - chunk.start))
        names = set(self._file.keys())
        store.set_last_queries(
            {layer: self._file.get_tensor(f"queries.{layer}").to(device) for layer in range(self.num_layers) if f"queries.{layer}" in names}
        )
        return store


def _chunks(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, num_rows))
