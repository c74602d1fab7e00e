"""The command, and the engine without models that its verbs get."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from command import call_command
from fake_engine import FakeEngine

from hoarfrost.errors import InvalidInput


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command with these arguments in this process."""

    return partial(call_command, monkeypatch, capsys)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The engine that every verb gets; `loaded_with` keeps what it was loaded with."""
    fake = FakeEngine()

    def load(model: str, **options: Any) -> FakeEngine:
        if model == "unknown":
            raise InvalidInput("No model 'unknown'.")
        fake.loaded_with = {"model": model, **options}  # type: ignore[attr-defined]
        return fake

    monkeypatch.setattr("hoarfrost.engine.Engine", SimpleNamespace(load=load))
    return fake
