"""One large file from the web into one on disk, going on where an earlier try was cut off."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from hoarfrost.models.package_index import Web

CHUNK_BYTES = 1 << 18
NUM_TRIES = 4
PAUSE_SECONDS = 1.0

WEB_ERRORS = (OSError, http.client.HTTPException)


class CutOff(OSError):
    """The server ended the file early; what came of it is kept."""


def download(url: str, partial: Path, num_bytes: int, web: Web, on_progress: Callable[[int], None]) -> None:
    """Fills `partial` up to `num_bytes`, taking up what it holds already; `on_progress` is told how many bytes it has.

    A connection that breaks is taken up again a few times as long as each try brings something. Raises one of `WEB_ERRORS`.
    """
    for tries_left in reversed(range(NUM_TRIES)):
        before = size_of(partial)
        try:
            _append(url, partial, num_bytes, web, on_progress)
            return
        except HTTPError as error:
            if error.code == 416:  # the server's file is shorter than what is here: not one to go on from
                partial.unlink(missing_ok=True)
            raise
        except WEB_ERRORS:
            if not tries_left or size_of(partial) <= before:
                raise
        time.sleep(PAUSE_SECONDS)


def _append(url: str, partial: Path, num_bytes: int, web: Web, on_progress: Callable[[int], None]) -> None:
    start = size_of(partial)
    if start == num_bytes:
        return
    if start > num_bytes:
        start = 0
    with web.open(url, {"Range": f"bytes={start}-"} if start else {}) as response:
        if not _continues(response, start):
            start = 0
        with partial.open("ab" if start else "wb") as file:
            on_progress(start)
            while start < num_bytes and (chunk := response.read(min(CHUNK_BYTES, num_bytes - start))):
                file.write(chunk)
                start += len(chunk)
                on_progress(start)
    if start < num_bytes:
        raise CutOff(f"the connection ended after {start / 1e6:.1f} of {num_bytes / 1e6:.1f} MB")


def _continues(response: Any, start: int) -> bool:
    """Whether the server sends the rest from byte `start`, and not the whole file again."""
    return response.status == 206 and str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
