"""Every set is read, worded and limited as the paper's protocol says; what is missing or broken is named in a sentence."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.prompts.sets import MATH_SUFFIX, PROMPT_SETS, PYTHON_PREFIX, load_prompts, load_sets

RECORDS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [{"question": "How many?", "answer": "4"}, {"question": "And {now}?", "answer": "5"}],
    "math500": [{"problem": "Solve $x$.", "unique_id": "test/1.json"}],
    "aime24": [{"id": 60, "problem": "Walk.", "question": "Walk."}],
    "aime25": [{"question_id": 1, "question": "Sum."}],
    "humaneval": [{"task_id": "HumanEval/0", "prompt": "def f():\n"}],
    "mbpp": [{"task_id": 2, "prompt": "train"}, {"task_id": 11, "prompt": "first"}, {"task_id": 511, "prompt": "after"}],
    "livecodebench": [
        {"question_id": "a", "question_content": "Sort.", "starter_code": ""},
        {"question_id": "b", "question_content": "Add.", "starter_code": "def add():"},
    ],
    "swebench_lite": [{"instance_id": "a-1", "repo": "a/a", "problem_statement": "It fails."}],
    "mt_bench": [{"question_id": 81, "turns": ["First", "Second"]}, {"question_id": 82, "turns": "['It\\'s', 'two']"}],
    "alpaca": [{"instruction": "List", "input": ""}, {"instruction": "List", "input": "these"}],
}
FIRST_TURNS = {
    "gsm8k": ["How many?" + MATH_SUFFIX, "And {now}?" + MATH_SUFFIX],
    "math500": ["Solve $x$." + MATH_SUFFIX],
    "aime24": ["Walk." + MATH_SUFFIX],
    "aime25": ["Sum." + MATH_SUFFIX],
    "humaneval": [PYTHON_PREFIX + "def f():\n\n```"],
    "mbpp": ["first"],
    "swebench_lite": ["Problem Statement:\nIt fails.\nPlease fix the issue described above."],
    "mt_bench": ["First", "It's"],
    "alpaca": ["List", "List\n\nInput:\nthese"],
}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    (tmp_path / "eval").mkdir()
    for name, records in RECORDS.items():
        path = tmp_path / "eval" / PROMPT_SETS[name].file_name
        lines = "\n".join(json.dumps(record) for record in records) + "\n"
        path.write_text(json.dumps(records) if path.suffix == ".json" else lines, encoding="utf-8")
    return tmp_path


def test_there_are_the_ten_sets_of_the_paper_with_its_counts() -> None:
    counts = {name: one.num_prompts for name, one in PROMPT_SETS.items()}
    assert set(counts) == set(RECORDS)
    assert (sum(counts.values()), counts["humaneval"], counts["mt_bench"], counts["aime24"]) == (1072, 164, 80, 30)


@pytest.mark.parametrize("name", FIRST_TURNS)
def test_prompts_are_worded_as_in_the_benchmarks(name: str, data_dir: Path) -> None:
    assert [prompt.turns[0] for prompt in load_prompts(name, data_dir=data_dir)] == FIRST_TURNS[name]


def test_livecodebench_shows_the_starter_code_where_there_is_some(data_dir: Path) -> None:
    program, function = (prompt.turns[0] for prompt in load_prompts("livecodebench", data_dir=data_dir))
    assert "Sort." in program
    assert "standard input" in program
    assert "```python\ndef add():\n```" in function


def test_mt_bench_has_two_turns_however_they_are_stored(data_dir: Path) -> None:
    assert [prompt.turns for prompt in load_prompts("mt_bench", data_dir=data_dir)] == [("First", "Second"), ("It's", "two")]


def test_identifiers_are_the_sets_own(data_dir: Path) -> None:
    ids = {name: [prompt.prompt_id for prompt in load_prompts(name, data_dir=data_dir)] for name in RECORDS}
    assert ids["humaneval"] == ["HumanEval/0"]
    assert ids["gsm8k"] == ["0", "1"]
    assert ids["mt_bench"] == ["81", "82"]


def test_limit_takes_the_first(data_dir: Path) -> None:
    assert [prompt.prompt_id for prompt in load_prompts("gsm8k", data_dir=data_dir, limit=1)] == ["0"]
    assert len(load_prompts("gsm8k", data_dir=data_dir, limit=1000)) == 2


def test_several_sets_come_one_after_the_other_and_all_means_all(data_dir: Path) -> None:
    assert [prompt.set_name for prompt in load_sets(["mbpp", "gsm8k"], data_dir=data_dir, limit=1)] == ["mbpp", "gsm8k"]
    assert [prompt.set_name for prompt in load_sets(["all"], data_dir=data_dir, limit=1)] == list(PROMPT_SETS)
    for names in ([], ["gsm8k", "gsm8k"], ["all", "gsm8k"]):
        with pytest.raises(InvalidInput, match=r"empty or names one twice|Unknown prompt set 'all'"):
            load_sets(names, data_dir=data_dir)


def test_the_variable_names_the_folder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOARFROST_DATA", str(data_dir))
    assert len(load_prompts("gsm8k")) == 2


@pytest.mark.parametrize(
    ("name", "limit", "content", "complaint"),
    [
        ("gsm9k", None, None, "Unknown prompt set 'gsm9k'"),
        ("gsm8k", 0, None, "is 0; it must be at least 1"),
        ("gsm8k", None, None, r"gsm8k\.jsonl cannot be read \(No such file"),
        ("gsm8k", None, '{"question": "whole"}\n{"quest', "not valid JSON"),
        ("gsm8k", None, "", "The prompt set gsm8k has no prompt"),
        ("alpaca", None, "[]", "The prompt set alpaca has no prompt"),
        ("gsm8k", None, '{"query": 1}', "Record 0 of the prompt set gsm8k"),
        ("mbpp", None, '{"prompt": "a dictionary, no list"}', "Record 0 of the prompt set mbpp"),
    ],
)
def test_bad_input_is_named(name: str, limit: int | None, content: str | None, complaint: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "eval").mkdir()
        (tmp_path / "eval" / PROMPT_SETS[name].file_name).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=complaint):
        load_prompts(name, data_dir=tmp_path, limit=limit)


class TestHub:
    @pytest.fixture(autouse=True)
    def no_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HOARFROST_DATA", raising=False)

    def install(self, monkeypatch: pytest.MonkeyPatch, load_dataset: Any) -> None:
        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))

    @pytest.mark.parametrize("name", RECORDS)
    def test_gives_the_same_prompts_and_streams_no_more_than_asked_for(
        self, name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def load_dataset(path: str, config: str | None = None, *, split: str, streaming: bool, data_files: str = "") -> Any:
            assert streaming
            assert PROMPT_SETS[name].hub.repository in (path, data_files.removeprefix("hf://datasets/").rsplit("/", 1)[0])
            yield from RECORDS[name]
            raise AssertionError("read past the limit")

        self.install(monkeypatch, load_dataset)
        expected = load_prompts(name, data_dir=data_dir)[:1]
        assert load_prompts(name, limit=1) == expected

    def test_without_the_package_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(InvalidInput, match="HOARFROST_DATA"):
            load_prompts("gsm8k")

    def test_offline_names_the_remedy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def load_dataset(*_: Any, **__: Any) -> Any:
            raise ConnectionError("Couldn't reach the hub\nwith details")

        self.install(monkeypatch, load_dataset)
        with pytest.raises(InvalidInput, match=r"Couldn't reach the hub\); set HOARFROST_DATA"):
            load_prompts("gsm8k")
