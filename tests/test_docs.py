"""README and docs say nothing that does not run: every Python snippet is executed, every command is read by the command line itself.

The snippets of a page run in their order in one namespace, with `tiny` for the models that have to be fetched. A block behind a comment
`<!-- not run: REASON -->` is left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hoarfrost.cli import app
from hoarfrost.cli.options import PlainCommand
from hoarfrost.models import SHIPPED, SMOLLM2

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "recipes").glob("*/README.md")])
BLOCK = re.compile(r"(?P<mark><!-- not run: .+? -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    content = page.read_text(encoding="utf-8")
    for found in BLOCK.finditer(content):
        if not found["mark"]:
            yield Block(page.name, content.count("\n", 0, found.start()) + 1, found["language"], found["text"])


def commands() -> Iterator[Any]:
    for page in PAGES:
        for block in blocks(page):
            for line in block.text.splitlines():
                if not block.language and line.startswith("hoarfrost "):
                    words = shlex.split(line, comments=True)
                    yield pytest.param(words[1:], id=f"{page.parent.name}/{page.name}: {' '.join(words[1:])[:60]}")


PYTHON = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_snippets_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            source = "\n" * block.line + block.text.replace('"smollm2"', '"tiny"').replace(SMOLLM2.hub_id, str(SHIPPED["tiny"].target))
            exec(compile(source, str(page), "exec"), namespace)


def test_pages_with_snippets_are_found() -> None:
    assert {"README.md", "how-it-works.md", "icecache.md", "transformers.md"} <= {page.name for page in PYTHON}


@pytest.mark.parametrize("words", list(commands()))
def test_commands_are_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    understood = []
    monkeypatch.setattr(PlainCommand, "invoke", lambda self, ctx: understood.append(ctx.command_path))
    app(words, standalone_mode=False)
    assert len(understood) == 1


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
