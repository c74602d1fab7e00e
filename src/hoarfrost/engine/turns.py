"""Who may touch the engine: one thread at a time, in the order in which they came.

A thread that loops over rounds gives up its turn between them, and gets the next one behind whoever has come meanwhile: a plain lock would
hand it straight back.
"""

from __future__ import annotations

import threading


class Turns:
    """A lock to be used with `with`; the thread that holds it may not ask for it again (`is_mine` tells)."""

    def __init__(self) -> None:
        self._door, self._room = threading.Lock(), threading.Lock()
        self._owner: int | None = None

    @property
    def is_mine(self) -> bool:
        return self._owner == threading.get_ident()

    def __enter__(self) -> None:
        with self._door:
            self._room.acquire()
            self._owner = threading.get_ident()

    def __exit__(self, *_: object) -> None:
        self._owner = None
        self._room.release()
