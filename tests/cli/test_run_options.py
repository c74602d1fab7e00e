"""`run` with many prompts and samples, and the options that people bring along from other engines."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_engine import FakeEngine
from huggingface_hub import constants

from hoarfrost.cli.options import dashes_for_texts, prepare
from hoarfrost.cli.prompts import unescape
from hoarfrost.engine import Piece
from hoarfrost.errors import ModelFault


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class TestMany:
    def test_a_line_of_text_is_a_prompt(self, call: Any, engine: FakeEngine, tmp_path: Path) -> None:
        (tmp_path / "prompts.txt").write_text("One\r\n\nTwo, too\n", encoding="utf-8")
        outcome = call("run", "tiny", "--prompts", str(tmp_path / "prompts.txt"), "--max-new-tokens", "5", "--no-chat")
        assert outcome.code == 0
        assert sorted(engine.prompts) == ["One", "Two, too"]
        answers = sorted(lines(outcome.out), key=lambda one: one["index"])
        assert [one["index"] for one in answers] == [0, 1]
        assert all(len(one["token_ids"]) == 5 and one["finish_reason"] == "length" and one["statistics"] for one in answers)

    def test_an_object_has_a_prompt_or_a_conversation(self, call: Any, engine: FakeEngine, tmp_path: Path) -> None:
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}, {"role": "user", "content": "And?"}]
        records = [{"prompt": "One"}, {"messages": messages}]
        (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        out = tmp_path / "out.jsonl"
        outcome = call("run", "tiny", "--prompts", str(tmp_path / "prompts.jsonl"), "--system", "Be brief.", "--json", str(out))
        assert (outcome.code, outcome.out) == (0, "")
        assert [one["index"] for one in lines(out.read_text())] == [0, 1], "in their order, though the second came first"
        assert sorted(engine.prompts) == [
            "<system>Be brief.<user>Hi<assistant>Ho<user>And?<assistant>",
            "<system>Be brief.<user>One<assistant>",
        ]

    def test_samples_have_seeds_of_their_own(self, call: Any, engine: FakeEngine) -> None:
        options = ("--temperature", "1", "--seed", "7", "--max-new-tokens", "4")
        outcome = call("run", "tiny", "Hi", "-n", "3", *options)
        answers = {one["seed"]: one["text"] for one in lines(outcome.out)}
        assert sorted(answers) == [7, 8, 9]
        assert len(set(answers.values())) == 3
        single = call("run", "tiny", "Hi", "--temperature", "1", "--seed", "8", "--max-new-tokens", "4")
        assert single.out.removesuffix("\n") == answers[8]

    def test_an_answer_that_fails_leaves_the_others_whole(self, call: Any, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        step = engine.step

        def failing() -> list[tuple[int, Piece]]:
            pieces = step()
            last = pieces[-1][1]
            return pieces if engine.waiting else [(0, Piece("", [], 0, "error", last.statistics, ModelFault("NaN")))]

        monkeypatch.setattr(engine, "step", failing)
        outcome = call("run", "tiny", "Hi", "-n", "2", "--temperature", "1", "--max-new-tokens", "4")
        assert outcome.code == 1
        assert "1 of 2 answers failed" in outcome.err
        whole, failed = lines(outcome.out)
        assert len(whole["token_ids"]) == 4
        assert (failed["finish_reason"], failed["error"]) == ("error", "NaN")

    def test_what_was_answered_before_an_interruption_is_kept(self, call: Any, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        step = engine.step

        def interrupted() -> list[tuple[int, Piece]]:
            if len(engine.waiting) == 1:
                raise KeyboardInterrupt
            return step()

        monkeypatch.setattr(engine, "step", interrupted)
        outcome = call("run", "tiny", "Hi", "-n", "2", "--temperature", "1")
        assert outcome.code == 130
        assert len(lines(outcome.out)) == 1
        assert "Interrupted after 1 of 2 answers." in outcome.err

    @pytest.mark.parametrize(
        ("content", "options", "said"),
        [
            ("", (), "holds no prompt"),
            ("{", (), "line 1 is no JSON"),
            ('{"text": "Hi"}', (), 'neither "prompt"'),
            ('{"messages": [{"role": "user"}]}', (), 'neither "prompt"'),
            ('{"prompt": "Hi"}', ("Hi",), "--prompts brings the prompts"),
            ('{"prompt": "Hi"}', ("-n", "0"), "--samples 0"),
            ('{"prompt": "Hi"}', ("-n", "2"), "would be the same at temperature 0"),
        ],
    )
    def test_bad_input(self, content: str, options: tuple[str, ...], said: str, call: Any, engine: FakeEngine, tmp_path: Path) -> None:
        (tmp_path / "prompts.jsonl").write_text(content)
        outcome = call("run", "tiny", *options, "--prompts", str(tmp_path / "prompts.jsonl"))
        assert (outcome.code, outcome.out) == (2, "")
        assert said in outcome.err
        assert engine.prompts == []


def test_prompts_that_begin_with_a_dash(call: Any, engine: FakeEngine) -> None:
    assert call("run", "tiny", "- a list\n- of two", "--no-chat").code == 0
    assert call("run", "tiny", "--no-chat", "-5 + 3 = ?", "--max-new-tokens", "4").code == 0
    assert call("run", "tiny", "--no-chat", "--", "-5").code == 0
    assert engine.prompts == ["- a list\n- of two", "-5 + 3 = ?", "-5"]
    assert call("run", "tiny", "-5").code == 2
    assert call("run", "tiny", "Hi", "--system", "- be brief").code == 0
    assert engine.prompts[-1] == "<system>- be brief<user>Hi<assistant>"
    assert dashes_for_texts(["--stop=a b", "x"], ()) == ["--stop=a b", "x"]


def test_stops_are_written_as_in_a_shell(call: Any, engine: FakeEngine) -> None:
    assert call("run", "tiny", "Hi", "--stop", r"\n\n", "--stop", "\t", "--stop", r"a\\n").code == 0
    assert engine.params[0].stop == ("\n\n", "\t", r"a\n")
    assert unescape(r"C:\dir") == r"C:\dir"


def test_thinking_is_asked_of_the_template(call: Any, engine: FakeEngine) -> None:
    assert call("run", "tiny", "Hi", "--thinking").code == 0
    assert call("run", "tiny", "Hi", "--no-thinking").code == 0
    assert engine.prompts == ["<user>Hi<assistant><think>", "<user>Hi<assistant>"]
    assert "--thinking needs the chat template" in call("run", "tiny", "Hi", "--thinking", "--no-chat").err


def test_revision_reaches_the_engine(call: Any, engine: FakeEngine) -> None:
    assert call("run", "some/model", "Hi", "--revision", "v1").code == 0
    assert engine.loaded_with["revision"] == "v1"  # type: ignore[attr-defined]


def test_threads_and_offline_hold_for_what_is_imported_already(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMP_NUM_THREADS", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(variable, "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    before = torch.get_num_threads()
    try:
        prepare(threads=3, offline=True)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert (constants.HF_HUB_OFFLINE, os.environ["HF_HUB_OFFLINE"]) == (True, "1")


def test_settings_of_the_model_that_are_not_used_are_said(call: Any, engine: FakeEngine) -> None:
    vars(engine.generation_config).update(do_sample=True, temperature=0.6, top_k=20, top_p=1.0, repetition_penalty=1.05)
    outcome = call("run", "tiny", "Hi")
    said = "Decoding greedily; the model's own settings are --temperature 0.6 --top-k 20; its repetition_penalty of 1.05 is not served.\n"
    assert outcome.err.startswith(said)
    assert "Decoding greedily" not in call("run", "tiny", "Hi", "--temperature", "0").err
    engine.generation_config.do_sample = False
    assert "Decoding greedily" not in call("run", "tiny", "Hi").err
