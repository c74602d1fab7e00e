"""A Hugging Face hub of our own on this machine: the few answers that fetching a checkpoint asks for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Repositories as folders; `asked` are the paths that were asked for. `status` and `error` stand for every answer, if given."""

    repositories: dict[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    error: str = ""

    @property
    def fetched(self) -> set[str]:
        """The names of the files that were fetched."""
        return {path.partition(f"/resolve/{COMMIT}/")[2] for path in self.asked if "/resolve/" in path}


class Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: Hub, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        self.do_GET(has_body=False)

    def do_GET(self, has_body: bool = True) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.asked.append(path)
        name = next((name for name in self.hub.repositories if f"/{name}" in path), None)
        if self.hub.status != 200 or name is None:
            known = self.hub.status != 200
            code = self.hub.error if known else "RepoNotFound"
            self._send(self.hub.status if known else 404, b"", {"X-Error-Code": code}, has_body)
            return
        folder = self.hub.repositories[name]
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        names = [str(file.relative_to(folder)) for file in files]
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": file.stat().st_size, "oid": etag(file)}
                for name, file in zip(names, files, strict=True)
            ]
            self._send(200, json.dumps(entries).encode(), {}, has_body)
        elif "/resolve/" in path:
            file = folder / path.partition(f"/resolve/{COMMIT}/")[2]
            self._send(200, file.read_bytes(), {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(file)}"'}, has_body)
        else:
            content = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self._send(200, json.dumps(content).encode(), {}, has_body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], has_body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if has_body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serves the hub for as long as the context lasts; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, hub))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Has the hub's library ask `url`, and keep what it fetches in `cache`."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
