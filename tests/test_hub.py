"""What comes from the Hugging Face hub, and what is said, within seconds, where nothing does."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import call_command
from hub_server import Hub, serving, use_hub
from huggingface_hub import constants

from hoarfrost import hub as hub_module
from hoarfrost.drafting import load_drafter
from hoarfrost.engine import Engine
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.prompts.sets import load_prompts
from hoarfrost.models import SHIPPED, SMOLLM2
from hoarfrost.target import Target

TINY = Path(str(SHIPPED["tiny"].drafter))


@pytest.fixture
def hub(model_folder: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with a small target and a drafter that was made for another one."""
    served = Hub({"some/model": Path(model_folder("qwen3")), "some/drafter": TINY})
    with serving(served) as url:
        use_hub(monkeypatch, url, tmp_path / "cache")
        yield served


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens where the hub should be."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        use_hub(monkeypatch, f"http://127.0.0.1:{unused.getsockname()[1]}", tmp_path / "cache")


TRAIN = ("--data", "prompts.jsonl", "--out", "made")
COMMANDS = {
    "run": ("run", "some/model", "Hi"),
    "demo": ("demo", "some/model"),
    "bench decode": ("bench", "decode", "some/model", "--sets", "gsm8k", "--data-dir", "DATA"),
    "bench cache": ("bench", "cache", "some/model", "--contexts", "64"),
    "eval retrieval": ("eval", "retrieval", "some/model", "--tasks", "passkey", "--texts", "none"),
    "inspect cache": ("inspect", "cache", "some/model", "Hi"),
    "inspect drafter": ("inspect", "drafter", "some/model", "--set", "gsm8k", "--data-dir", "DATA"),
    "train drafter": ("train", "drafter", "some/model", *TRAIN),
    "train selector": ("train", "selector", "tiny", "--drafter", "some/drafter", *TRAIN),
    "the drafter of run": ("run", "tiny", "Hi", "--drafter", "some/drafter"),
}


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_hub_out_of_reach_is_one_sentence_in_seconds(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "gsm8k.jsonl").write_text(json.dumps({"question": "1 + 1?"}) + "\n")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"What is {index}?"}) + "\n" for index in range(4)))
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    outcome = call_command(monkeypatch, capfd, *(str(tmp_path) if part == "DATA" else part for part in COMMANDS[command]))
    assert time.monotonic() - began < 15
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1), outcome.err
    assert "the Hugging Face hub cannot be reached (Connection refused), and its cache on this machine does not have it" in outcome.err


@pytest.mark.usefixtures("no_hub")
def test_prompt_sets_of_a_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def retry(*_: Any, **__: Any) -> None:
        raise AssertionError("the library's own retries would begin")

    monkeypatch.delenv("HOARFROST_DATA", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=retry))
    with pytest.raises(InvalidInput, match=r"could not be read: the Hugging Face hub cannot be reached .*; set HOARFROST_DATA"):
        load_prompts("gsm8k")


@pytest.mark.usefixtures("no_hub")
def test_names_that_no_hub_has_are_not_asked_for() -> None:
    with pytest.raises(InvalidInput, match="that is no name of the Hugging Face hub"):
        Target.load("models/of/mine")


def test_a_hub_that_is_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        with pytest.raises(InvalidInput, match="cannot be reached"):
            Target.load("some/model")
    monkeypatch.setattr(hub_module, "PATIENCE_SECONDS", 0.1)
    with pytest.raises(TimeoutError, match="no answer"):
        hub_module.patiently(lambda: time.sleep(3))


def test_a_model_comes_once_and_is_then_taken_from_the_cache(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fetched = Target.load("some/model", dtype="float32", device="cpu")
    assert fetched.name == "some/model"
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= hub.fetched
    hub.status = 503
    capsys.readouterr()
    again = Target.load("some/model", dtype="float32", device="cpu")
    assert again.eos_token_ids == fetched.eos_token_ids
    told = "some/model is taken as the cache on this machine has it: the Hugging Face hub did not give it (HTTP status 503).\n"
    assert capsys.readouterr().err == told
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Target.load("some/model", dtype="float32", device="cpu").name == "some/model"
    assert hub.asked == []
    assert capsys.readouterr().err == ""


def test_weights_that_the_cache_lacks_are_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_module.find_checkpoint("some/model", ["*.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidInput, match=r"cache on this machine lacks model\.safetensors, and the .* offline mode \(HF_HUB_OFFLINE\)"):
        Target.load("some/model")


def test_a_drafter_of_the_hub_is_known_by_its_alias_too(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target.load("tiny", dtype="float32", device="cpu")
    monkeypatch.setitem(SHIPPED, "smollm2", replace(SMOLLM2, drafter_folder=tmp_path / "none"))
    assert load_drafter("some/drafter", target).config == load_drafter("tiny", target).config
    assert load_drafter("some/drafter", target).name == "some/drafter"
    with pytest.raises(InvalidInput, match="no drafter for smollm2"):
        load_drafter("smollm2", target)


class TestNothingIsLoadedInVain:
    """What is wrong with a drafter is found while the target's weights are still where they were."""

    @pytest.fixture(autouse=True)
    def weights_are_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(*_: Any, **__: Any) -> None:
            raise AssertionError("the target's weights were read")

        for module in (
            "hoarfrost.target.target.load_model",
            "hoarfrost.target.target.load_gguf",
            "hoarfrost.training.features.load_weights",
        ):
            monkeypatch.setattr(module, load)

    @pytest.mark.parametrize("drafter", ["no/such", "./no-folder", "some/missing"])
    def test_a_drafter_that_is_not_there(self, drafter: str, hub: Hub) -> None:
        with pytest.raises(InvalidInput, match=f"No drafter '{drafter}'"):
            Engine.load("some/model", drafter=drafter)
        assert not any("some/model" in path for path in hub.asked)

    def test_a_drafter_for_another_target(self, hub: Hub) -> None:
        with pytest.raises(InvalidInput, match=r"some/drafter does not fit some/model: it was made for a hidden size of \d+"):
            Engine.load("some/model", drafter="some/drafter")
        assert not any(name.endswith(".safetensors") for name in hub.fetched)

    @pytest.mark.parametrize("way", ["drafter", "selector"])
    def test_training(self, way: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        option = "--start-from" if way == "drafter" else "--drafter"
        outcome = call_command(monkeypatch, capfd, "train", way, "some/model", option, "some/drafter", *TRAIN[:2], "--out", str(tmp_path))
        assert outcome.code == 2
        assert "some/drafter does not fit some/model" in outcome.err


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, "RepoNotFound", "the hub has nothing of that name"),
        (401, "RepoNotFound", "the hub has nothing of that name"),
        (403, "GatedRepo", "to those who accepted its terms"),
        (404, "RevisionNotFound", "no such revision"),
        (500, "Broken", "HTTP status 500"),
    ],
)
def test_what_the_hub_answers_is_told(status: int, error: str, said: str, hub: Hub) -> None:
    hub.status, hub.error = status, error
    with pytest.raises(InvalidInput, match=said.replace("the hub", "the Hugging Face hub")):
        Target.load("some/model")


def test_a_repository_without_a_configuration(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.gguf").touch()
    hub.repositories["some/gguf"] = tmp_path / "gguf"
    with pytest.raises(InvalidInput, match=r"holds no config\.json; fetch one of its GGUF files"):
        Target.load("some/gguf")
