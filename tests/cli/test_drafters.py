"""`hoarfrost drafters`, and the list that it prints."""

from __future__ import annotations

import pytest
from command import call_command

from hoarfrost.models.released import released_drafters
from hoarfrost.target.loading import SUPPORTED_MODEL_TYPES


def test_what_is_said_to_be_served_has_a_target_that_is() -> None:
    for one in released_drafters():
        assert (one.refusal is None) == (one.model_type is not None), one
        assert one.model_type is None or one.model_type in SUPPORTED_MODEL_TYPES, one
    assert len({one.drafter for one in released_drafters()}) == len(released_drafters())


@pytest.mark.parametrize("columns", ["80", "120"])
def test_names_are_whole_at_any_width(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    outcome = call_command(monkeypatch, capsys, "drafters", "qwen3-8b")
    assert outcome.code == 0
    assert max(map(len, outcome.out.splitlines())) <= int(columns)
    assert "…" not in outcome.out
    assert "z-lab/Qwen3-8B-DFlash-b16" in outcome.out
    assert "Coder" not in outcome.out


def test_all_of_them_and_a_model_without(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = call_command(monkeypatch, capsys, "drafters")
    assert "in the package" in outcome.out
    refused = call_command(monkeypatch, capsys, "drafters", "gpt-2")
    assert refused.code == 2
    assert "No drafter is known for 'gpt-2'; train one" in refused.err
