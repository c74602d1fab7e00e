"""Finds a file in the package indexes that pip uses on this machine, by the simple API (PEP 503, PEP 691).

Read are pip's index-url, extra-index-url, find-links, no-index and cert, from its files and its environment variables; names and passwords
in a URL are used, and never shown. Keyrings, netrc and client certificates are not.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit, urlunsplit
from urllib.request import Request, url2pathname, urlopen

ASK_PIP = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"
ACCEPTED = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
TIMEOUT_SECONDS = 8


@dataclass(frozen=True)
class PipSettings:
    """Where pip looks for packages: `places` are folders or URLs of pages with links to files, `indexes` hold one page per project."""

    places: tuple[str, ...]
    indexes: tuple[str, ...]
    certificates: str | None = None

    @classmethod
    def of_this_machine(cls) -> PipSettings:
        configured = pip_configuration()

        def setting(name: str) -> str:
            in_environment = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
            return in_environment or configured.get(f"download.{name}") or configured.get(f"global.{name}") or ""

        urls = (setting("index-url") or default_index(), *setting("extra-index-url").split())
        without_index = setting("no-index").lower() in ("1", "true", "yes", "on")
        return cls(tuple(setting("find-links").split()), () if without_index else tuple(filter(None, urls)), setting("cert") or None)


def default_index() -> str:
    """The index that pip takes where it is told of none; empty where the environment has no pip."""
    try:
        return subprocess.run([sys.executable, "-c", ASK_PIP], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def pip_configuration() -> dict[str, str]:
    """What pip's own files say; nothing where the environment has no pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    found = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        try:
            found[name] = str(ast.literal_eval(value))
        except (SyntaxError, ValueError):
            continue
    return found


@dataclass(frozen=True)
class Web:
    """Opens URLs; proxies are those of the environment."""

    certificates: str | None = None

    def open(self, url: str, headers: dict[str, str]) -> Any:
        """The response to a GET request. Raises `OSError`, or an error of `http.client`, if there is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise OSError(f"{parts.scheme or 'no'} URL")
        request = Request(without_login(url), headers=headers)
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        context = ssl.create_default_context(cafile=self.certificates) if parts.scheme == "https" else None
        return urlopen(request, timeout=TIMEOUT_SECONDS, context=context)


def without_login(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def name_of(place: str) -> str:
    """How a message calls a place: the host of a URL, else the folder."""
    parts = urlsplit(place)
    return without_login(place).partition("//")[2].partition("/")[0] if parts.scheme in ("http", "https") else place


def local_folder(place: str) -> Path | None:
    """The folder that a path or a file URL means; `None` for any other URL."""
    if place.startswith("file:"):
        return Path(url2pathname(urlsplit(place).path))
    return None if "://" in place else Path(place).expanduser()


def candidates(settings: PipSettings, project: str) -> Iterator[tuple[str, bool]]:
    """The pages that may name a file of `project`, likeliest first, each with whether it lies on this machine."""
    pages = [*settings.places, *(f"{url.rstrip('/')}/{project}/" for url in settings.indexes)]
    for page in sorted(pages, key=lambda page: local_folder(page) is None):
        yield page, local_folder(page) is not None


def find_file(page: str, file_name: str, web: Web) -> str | None:
    """Path or URL of the file that `page` holds or links to under this name. Raises what `Web.open` does, and `ValueError`."""
    folder = local_folder(page)
    if folder is None:
        with web.open(page, {"Accept": ACCEPTED}) as response:
            text, base = response.read().decode("utf-8", "replace"), response.url
            links = json_links(text) if "json" in response.headers.get_content_type() else html_links(text)
    else:
        if (folder / file_name).is_file():
            return str(folder / file_name)
        listing = folder / "index.html" if folder.is_dir() else folder
        if not listing.is_file():
            return None
        text, base = listing.read_text(encoding="utf-8", errors="replace"), listing.absolute().as_uri()
        links = html_links(text)
    found = next((urljoin(base, link) for link in links if unquote(link.rpartition("/")[2]) == file_name), None)
    if found is None:
        return None
    place = local_folder(found)
    return with_login(found, page) if place is None else str(place)


def with_login(url: str, page: str) -> str:
    """`url` with the name and password of the page that linked to it, if both are of the same host."""
    login, _, host = urlsplit(page).netloc.rpartition("@")
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{login}@{host}")) if login and parts.netloc == host else url


def json_links(text: str) -> list[str]:
    content = json.loads(text)
    files = content.get("files") if isinstance(content, dict) else None
    return [urldefrag(str(file.get("url")))[0] for file in files or () if isinstance(file, dict)]


def html_links(text: str) -> list[str]:
    parser = _Links()
    parser.feed(text)
    return [urldefrag(link)[0] for link in parser.links]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links.extend(value for name, value in attrs if tag == "a" and name == "href" and value)
