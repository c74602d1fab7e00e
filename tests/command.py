"""The command `hoarfrost`, called in this process."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import pytest

from hoarfrost.cli import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def call_command(monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    monkeypatch.setattr(sys, "argv", ["hoarfrost", *arguments])
    code: Any = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    captured = capture.readouterr()
    return Outcome(code, captured.out, captured.err)
