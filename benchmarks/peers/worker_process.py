"""A worker's process as the driver sees it: it is asked, answers within a time limit, and says why it failed if it does."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from peers import PeerFailure, last_line

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerProcess:
    """Starts `command`, which speaks `workers/protocol.py`; what it prints besides goes to the file `log`."""

    def __init__(self, command: Sequence[str], log: Path, num_threads: int) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(num_threads)), "TOKENIZERS_PARALLELISM": "false"}
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, bufsize=0
            )

    def receive(self, timeout_seconds: float) -> dict[str, Any]:
        """The next answer. Raises PeerFailure for an error, a silence of `timeout_seconds`, a process that ended."""
        output = self._process.stdout
        assert output is not None
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):
            if not select.select([output], [], [], timeout_seconds)[0]:
                self._process.kill()
                raise PeerFailure(f"no answer within {timeout_seconds:g} s")
            parts.append(os.read(output.fileno(), 1 << 16))
            if not parts[-1]:
                code = self._process.wait()
                raise PeerFailure(f"ended with exit code {code}: {last_line(self.log.read_text(encoding='utf-8', errors='replace'))}")
        answer: dict[str, Any] = json.loads(b"".join(parts))
        if "error" in answer:
            raise PeerFailure(answer["error"])
        return answer

    def ask(self, request: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        """Sends one request and returns its answer; raises PeerFailure as `receive` does."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; what it said last tells why
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        return self.receive(timeout_seconds)

    def close(self) -> None:
        """Ends the process, by force if it does not end by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
