"""The command with real, random, tiny models: exact whatever the mode, sentences for what cannot be loaded, a clean end at Ctrl-C."""

from __future__ import annotations

import io
import json
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import call_command
from gguf_files import random_model, write_model
from saved_drafters import save_random_drafter

from hoarfrost.engine import rounds as engine_rounds

FAST = ("--dtype", "float32", "--device", "cpu")


@dataclass(frozen=True)
class Pair:
    target: str
    drafter: str
    misfit: str


@pytest.fixture(scope="module")
def pair(model_folder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("drafters")
    return Pair(model_folder("qwen3"), save_random_drafter(folder / "fits"), save_random_drafter(folder / "misfit", hidden_size=48))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    return partial(call_command, monkeypatch, capfd)


@pytest.mark.parametrize("temperature", ["0", "0.8"])
def test_every_mode_prints_the_same_answer(temperature: str, pair: Pair, call: Any) -> None:
    answers = []
    for mode in ("--mode ar", "--mode chain", "--mode tree", "--tree-budget 3"):
        options = ("--json", "-", "--max-new-tokens", "24", "--temperature", temperature, "--seed", "1", *mode.split())
        code, out, err = call("run", pair.target, "Hello", "--drafter", pair.drafter, *options, *FAST)
        assert (code, err.count("\n")) == (0, 1), err
        answers.append(json.loads(out)["token_ids"])
    assert answers == [answers[0]] * 4


def test_the_text_that_streams_is_the_text_of_the_json(pair: Pair, call: Any) -> None:
    options = (pair.target, "Hello", "--max-new-tokens", "24", *FAST)
    _, streamed, _ = call("run", *options)
    _, said, _ = call("run", *options, "--json", "-")
    assert streamed == json.loads(said)["text"] + "\n"


def test_bench_finds_no_difference_between_the_modes(pair: Pair, call: Any, tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    turns = [["Say it.", "Again."], ["x" * 600, "never asked"]]
    lines = "".join(json.dumps({"question_id": index, "turns": said}) + "\n" for index, said in enumerate(turns))
    (tmp_path / "eval" / "mt_bench.jsonl").write_text(lines, encoding="utf-8")
    path = tmp_path / "made" / "result.json"
    options = ("--sets", "mt_bench", "--data-dir", str(tmp_path), "--budgets", "4", "--temperature", "0,1", "--max-new-tokens", "20")
    code, out, err = call("bench", "decode", pair.target, "--drafter", pair.drafter, *options, *FAST, "--json", str(path))
    assert (code, err) == (0, "")
    assert "DDTree 4" in out
    result = json.loads(path.read_text(encoding="utf-8"))
    assert len(result["records"]) == 2 * 2 * 3
    assert all(record["agrees"] for record in result["records"])
    assert all(record["tokens"] == 1 + round(record["tau"] * record["rounds"]) for record in result["records"])
    assert result["skipped"] == {"mt_bench": 2}
    assert {summary["budget"] for summary in result["summary"]} == {0, 4, 5}


def test_what_training_writes_is_taken_as_a_drafter(model_folder: Callable[[str], str], call: Any, tmp_path: Path) -> None:
    """The chain of the README: a drafter, its selector, an answer with both; the folder of a run stands for what came out of it."""
    target, data = model_folder("qwen3"), tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"What is {index}?"}) + "\n" for index in range(4)))
    small = ("--data", str(data), "--max-response-tokens", "8", "--num-epochs", "1", "--dtype", "float32", "--device", "cpu")
    drafter, selector = str(tmp_path / "my-drafter"), str(tmp_path / "my-selector")
    network = ("--num-layers", "1", "--block-size", "4", "--draft-vocab-size", "50")
    code, _, err = call("train", "drafter", target, "--out", drafter, *small, *network)
    assert code == 0, err
    code, _, err = call("train", "selector", target, "--drafter", drafter, "--out", selector, *small)
    assert code == 0, err
    answers = []
    for options in (("--drafter", selector), ("--drafter", drafter), ("--mode", "ar")):
        code, out, err = call("run", target, "Hello", "--json", "-", "--max-new-tokens", "12", *options, *FAST)
        assert code == 0, err
        answers.append(json.loads(out)["token_ids"])
    assert answers == [answers[0]] * 3
    (Path(drafter) / "drafter" / "config.json").unlink()
    code, _, err = call("run", target, "Hello", "--drafter", drafter, *FAST)
    assert code == 2
    assert "a training run that is not finished" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such/model", "Hi"], "no/such/model"),
        (["TARGET", "Hi", "--drafter", "no/such/drafter"], "no/such/drafter"),
        (["TARGET", "Hi", "--drafter", "MISFIT"], "48.*32|32.*48"),
        (["TARGET", "Hi", "--mode", "chain"], "needs a drafter"),
        (["TARGET", "x" * 600], "600|5[0-9][0-9]|6[0-9][0-9]"),
        (["TARGET", "", "--no-chat"], "empty"),
        (["TARGET", "Hi", "--dtype", "float8"], "float8"),
        (["TARGET", "Hi", "--device", "abacus"], "abacus"),
        (["TARGET", "Hi", "--device", "meta"], "holds no numbers"),
    ],
)
def test_bad_input_is_a_sentence_and_exit_code_2(arguments: list[str], said: str, pair: Pair, call: Any) -> None:
    names = {"TARGET": pair.target, "MISFIT": pair.misfit}
    code, out, err = call("run", *(names.get(argument, argument) for argument in arguments))
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert re.search(said, err), err


def test_a_gguf_file_is_a_model(call: Any, tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", random_model("llama"), lambda _: "Q8_0")
    answers = [call("run", str(place), "hello", *FAST, "--max-new-tokens", "8", "--json", "-") for place in (path, tmp_path)]
    assert [answer.code for answer in answers] == [0, 0]
    assert json.loads(answers[0].out)["token_ids"] == json.loads(answers[1].out)["token_ids"]
    path.write_bytes(path.read_bytes()[:5000])
    outcome = call("run", str(path), "hello", *FAST)
    assert (outcome.code, outcome.out) == (2, "")
    assert "truncated or damaged" in " ".join(outcome.err.split())


NO_UTF8 = "caf\xe9 au lait".encode("latin-1")


@pytest.mark.parametrize("way", ["stdin", "closed", "argument", "file", "folder", "system", "system of the template", "stop"])
def test_what_is_no_utf8_is_a_sentence_and_exit_code_2(
    way: str, pair: Pair, call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argument = NO_UTF8.decode("utf-8", "surrogateescape")  # as Python hands on what the shell gave
    (tmp_path / "latin.txt").write_bytes(NO_UTF8)
    monkeypatch.setattr("sys.stdin", None if way == "closed" else io.TextIOWrapper(io.BytesIO(NO_UTF8), "latin-1"))
    arguments, said = {
        "stdin": (["-"], "not UTF-8"),
        "closed": (["-"], "closed"),
        "argument": ([argument], "no valid Unicode"),
        "file": (["--prompt-file", str(tmp_path / "latin.txt")], "not UTF-8"),
        "folder": (["--prompt-file", str(tmp_path)], "Is a directory"),
        "system": (["Hi", "--system", argument], "no valid Unicode"),
        "system of the template": (["Hi", "--system", "Be brief."], "System role not supported"),
        "stop": (["Hi", "--stop", argument], "no valid Unicode"),
    }[way]
    model = Path(shutil.copytree(pair.target, tmp_path / "model"))
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% endfor %}Hi"
    )
    code, out, err = call("run", str(model), *arguments, "--max-new-tokens", "2", *FAST)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert said in err


def test_ctrl_c_in_the_midst_of_a_round_ends_the_stream_cleanly(pair: Pair, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = iter(range(100))
    decode = engine_rounds.run

    def interrupted(*arguments: Any) -> Any:
        passed = decode(*arguments)
        if next(rounds) == 11:  # the first one reads the prompt
            signal.raise_signal(signal.SIGINT)
        return passed

    monkeypatch.setattr(engine_rounds, "run", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process that was started in the background ignores it
    try:
        code, out, err = call("run", pair.target, "Hi", "--mode", "ar", "--max-new-tokens", "64", "--min-new-tokens", "64", *FAST)
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert out.endswith("\n")
    assert err.count("\n") == 1
    assert "interrupted after 11 tokens" in err
