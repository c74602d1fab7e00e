"""What long work says on stderr where that is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from hoarfrost import progress
from hoarfrost.cli.measuring import case_progress, prompt_progress


@pytest.fixture
def said_until(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Waits until a line with these words was said, and gives all that was."""
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.01)

    def wait(words: str) -> str:
        said, deadline = "", time.monotonic() + 30
        while words not in said and time.monotonic() < deadline:
            time.sleep(0.02)
            said += capsys.readouterr().err
        assert words in said
        return said

    return wait


def test_work_of_known_length(said_until: Callable[[str], str]) -> None:
    with prompt_progress(4) as on_prompt:
        on_prompt("gsm8k")
        assert "1 of 4 prompts done (gsm8k) after 0 s\n" in said_until("1 of 4 prompts done")
    with progress.progress_bar("training steps", total=9, completed=3) as advance:
        advance(2, "loss 0.5")
        said_until("5 of 9 training steps done (loss 0.5) after")


def test_bytes_are_told_at_once_and_now_and_then(said_until: Callable[[str], str]) -> None:
    with progress.byte_progress("Fetching a model", 20_000_000) as advance:
        advance.to(5_000_000)
        said = said_until("Fetching a model: 5 of 20 MB after")
    assert said.startswith("Fetching a model (20 MB).\n")


def test_each_case_is_told_as_it_begins_and_again(said_until: Callable[[str], str]) -> None:
    with case_progress() as begin:
        begin("gaussian, 1,024 keys")
        assert said_until("gaussian, 1,024 keys: still at it after").startswith("gaussian, 1,024 keys\n")


def test_of_work_within_work_the_inner_one_speaks(said_until: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.regular_lines(lambda: "outer"):
        said_until("outer after")
        with progress.regular_lines(lambda: "inner"):
            said_until("inner after")
            capsys.readouterr()
            assert "outer" not in said_until("inner after")
        said_until("outer after")


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_SECONDS", 0.01)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TTY_INTERACTIVE", "1")
    with progress.progress_bar("prompts", total=4) as advance:
        advance(1)
        time.sleep(0.1)
    said = capsys.readouterr().err
    assert "prompts" in said
    assert "done after" not in said
