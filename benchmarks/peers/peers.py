"""The engines that are compared, as data: which worker runs each, in which environment."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent.parent / "build" / "peers"
TORCH_INDEX = "TORCH_INDEX"  # as in the Makefile: where pip looks for torch besides its usual index


@dataclass(frozen=True)
class Peer:
    """One engine in one mode. Peers of the same worker share its process."""

    name: str
    label: str
    worker: str
    mode: str


HOARFROST = "hoarfrost"
PEERS = {
    peer.name: peer
    for peer in (
        Peer("hoarfrost-ar", "Hoarfrost AR", HOARFROST, "ar"),
        Peer("hoarfrost-chain", "Hoarfrost DFlash chain", HOARFROST, "chain"),
        Peer("hoarfrost-tree", "Hoarfrost DDTree", HOARFROST, "tree"),
        Peer("transformers-ar", "transformers", "transformers", "ar"),
        Peer("transformers-lookup", "transformers, prompt lookup", "transformers", "lookup"),
        Peer("transformers-chain", "transformers, its DFlash chain", "transformers", "chain"),
        Peer("ctranslate2", "CTranslate2", "ctranslate2", "ar"),
        Peer("onnxruntime", "onnxruntime-genai", "onnxruntime", "ar"),
        Peer("llamacpp", "llama.cpp (xllamacpp)", "llamacpp", "ar"),
    )
}
GGUF_WORKERS = (HOARFROST, "llamacpp")  # those that read GGUF files as they are


class PeerFailure(Exception):
    """Why a peer could not be installed, or could not run; one sentence."""


def worker_command(worker: str) -> list[str]:
    """The command of a worker's process, in its own environment, which is made first if need be. Raises PeerFailure."""
    requirements = HERE / f"requirements-{worker}.txt"
    python = make_environment(worker, requirements) if requirements.exists() else Path(sys.executable)
    return [str(python), str(HERE / "workers" / f"{worker}_worker.py")]


def make_environment(worker: str, requirements: Path) -> Path:
    """The Python of `build/peers/WORKER`, with the worker's pins installed; one made for the same pins before is used again."""
    folder = BUILD / worker
    stamp, digest = folder / ".installed", hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == digest:
        return python
    print(f"Installing {worker} into {folder} ...", file=sys.stderr)
    venv.create(folder, with_pip=True, clear=True)
    index = ["--extra-index-url", os.environ[TORCH_INDEX]] if os.environ.get(TORCH_INDEX) else []
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *index, "-r", str(requirements)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerFailure(f"not installed: {last_line(done.stderr)}")
    stamp.write_text(digest)
    return python


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"
