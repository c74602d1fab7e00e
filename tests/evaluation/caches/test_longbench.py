"""LongBench: scores as its own scripts give them (the figures below come from those), prompts that fit, results that name their figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import call_command
from hypothesis import given
from hypothesis import strategies as st

from hoarfrost import Engine
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches import longbench_metrics as metrics
from hoarfrost.evaluation.caches.longbench import LongBench, LongBenchSettings
from hoarfrost.evaluation.caches.longbench_tasks import cut_middle, load_items, long_tasks, score
from hoarfrost.evaluation.caches.report import published, report_longbench

WORDS = st.lists(st.sampled_from("a b c d e".split()), max_size=8)


class TestMetrics:
    @pytest.mark.parametrize(
        ("metric", "prediction", "reference", "value"),
        [
            ("f1", "The Bob Dylan.", "Bob Dylan", 1.0),
            ("f1", "It was Bob", "Bob Dylan", 0.4),
            ("f1", "nothing", "Bob Dylan", 0.0),
            ("rouge_l", "the cat sat on the mat", "the cat lay on the mat", 0.8),
            ("rouge_l", "a b c. d e", "d e. a c", 0.88888888),
            ("rouge_l", "", "d e", 0.0),
            ("rouge_l", "...", "d e", 0.0),
            ("count", "There are 46, or 46, or 12", "46", 2 / 3),
            ("count", "none", "46", 0.0),
            ("retrieval", "Paragraph 19", "Paragraph 19", 1.0),
            ("retrieval", "19 and 20", "段落19", 0.5),
            ("edit_similarity", "# a comment\n```\nreturn x\n", "return x", 1.0),
            ("edit_similarity", "return y", "return x", 0.88),
            ("edit_similarity", "# only a comment", "return x", 0.0),
        ],
    )
    def test_values(self, metric: str, prediction: str, reference: str, value: float) -> None:
        assert getattr(metrics, metric)(prediction, reference) == pytest.approx(value, abs=1e-6)

    def test_chinese_by_characters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metrics, "CHINESE_UNIT", "character")
        assert metrics.f1_chinese("增长了25%。", "增长25%") == pytest.approx(8 / 9)
        assert metrics.rouge_l_chinese("一二三", "一三") == pytest.approx(0.8)

    def test_classification_shares_the_point_between_the_names_that_are_said(self) -> None:
        classes = ["City", "Other location", "Country", "location"]
        assert metrics.classification("City", "City", classes) == 1
        assert metrics.classification("City or Country", "City", classes) == 0.5
        assert metrics.classification("Other location", "Other location", classes) == 1, "a part of the right name does not count"
        assert metrics.classification("Country", "City", classes) == 0

    @given(first=WORDS, second=WORDS)
    def test_the_common_subsequence_is_one_and_none_is_longer(self, first: list[str], second: list[str]) -> None:
        found = metrics.longest_common_subsequence(first, second)
        for sequence in (first, second):
            rest = iter(sequence)
            assert all(word in rest for word in found)
        assert len(found) == self.longest(first, second)

    def longest(self, first: list[str], second: list[str]) -> int:
        if not first or not second:
            return 0
        if first[0] == second[0]:
            return 1 + self.longest(first[1:], second[1:])
        return max(self.longest(first[1:], second), self.longest(first, second[1:]))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "long"
    (folder / "minilongbench").mkdir(parents=True)
    ready = {
        "0": {"origin_prompt": "Which? " * 60, "gold": ["London", "City of London"], "prediction": "", "time": ""},
        "1": {"origin_prompt": "Short?", "gold": ["Paris"]},
    }
    (folder / "minilongbench" / "MiniLongBench_hotpotqa.json").write_text(json.dumps(ready), encoding="utf-8")
    classes = {"0": {"origin_prompt": "Type:", "gold": {"all_classes": ["City", "State"], "answers": ["City"]}}}
    (folder / "minilongbench" / "MiniLongBench_trec.json").write_text(json.dumps(classes), encoding="utf-8")
    record = {"input": "Who?", "context": "A {input} story", "answers": "['Bob', \"it's Bob\"]", "all_classes": "None", "_id": "x"}
    (folder / "longbench_narrativeqa.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return tmp_path


class TestItems:
    def test_ready_made_prompts(self, data_dir: Path) -> None:
        items = load_items("minilongbench", "hotpotqa", data_dir)
        assert [item.prompt_id for item in items] == ["0", "1"]
        assert items[0].answers == ("London", "City of London")
        assert score(items[0], "city of london!") == 1
        assert load_items("minilongbench", "trec", data_dir)[0].classes == ("City", "State")

    def test_prompts_from_records(self, data_dir: Path) -> None:
        [item] = load_items("longbench", "narrativeqa", data_dir)
        assert "Story: A {input} story\n" in item.prompt, "what a context says is no placeholder"
        assert item.prompt.endswith("Question: Who?\n\nAnswer:")
        assert (item.answers, item.classes, item.prompt_id) == (("Bob", "it's Bob"), (), "x")

    def test_only_the_first_line_of_a_few_shot_answer_counts(self, data_dir: Path) -> None:
        [item] = load_items("minilongbench", "trec", data_dir)
        assert score(item, "\nCity\nQuestion: State") == 1

    @pytest.mark.parametrize(
        ("bench", "task", "said"),
        [
            ("shortbench", "trec", "Unknown benchmark 'shortbench'"),
            ("longbench", "nq", "Unknown LongBench task 'nq'"),
            ("longbench", "qasper", r"longbench_qasper\.jsonl cannot be read"),
        ],
    )
    def test_what_there_is_not(self, bench: str, task: str, said: str, data_dir: Path) -> None:
        with pytest.raises(InvalidInput, match=said):
            load_items(bench, task, data_dir)

    def test_a_task_without_a_prompt(self, data_dir: Path) -> None:
        (data_dir / "long" / "longbench_qasper.jsonl").write_text("", encoding="utf-8")
        with pytest.raises(InvalidInput, match="The task qasper of longbench has no prompt"):
            load_items("longbench", "qasper", data_dir)

    def test_a_record_of_another_form(self, data_dir: Path) -> None:
        (data_dir / "long" / "longbench_qasper.jsonl").write_text('{"question": 1}\n', encoding="utf-8")
        with pytest.raises(InvalidInput, match="Record 0 of the task qasper"):
            load_items("longbench", "qasper", data_dir)

    def test_every_task_names_a_metric_and_a_template(self) -> None:
        assert len(long_tasks()) == 21
        for task in long_tasks().values():
            assert callable(getattr(metrics, task.metric))
            assert "{context}" in task.prompt
            assert 32 <= task.max_new_tokens <= 512

    @given(num_tokens=st.integers(0, 50), max_tokens=st.integers(2, 50))
    def test_cutting_keeps_both_ends(self, num_tokens: int, max_tokens: int) -> None:
        first, last = cut_middle(range(num_tokens), max_tokens)
        kept = [*first, *last]
        assert len(kept) == min(num_tokens, max_tokens - (max_tokens % 2 if num_tokens > max_tokens else 0))
        assert not kept or (kept[0], kept[-1]) == (0, num_tokens - 1)


@pytest.fixture
def engine(model_folder: Callable[[str], str]) -> Engine:
    return Engine.load(model_folder("llama"), dtype="float32", device="cpu")


def settings_for(**changes: Any) -> LongBenchSettings:
    return LongBenchSettings(**{"caches": ("full", "window"), "budgets": (64,), "tasks": ("hotpotqa", "trec"), **changes})


def test_every_item_is_answered_by_every_cache(engine: Engine, data_dir: Path) -> None:
    bench = LongBench(engine, settings_for(), data_dir)
    result = json.loads(json.dumps(bench.result(bench.describe(), bench.run()), allow_nan=False))
    assert len(result["records"]) == 3 * 2
    assert {(row["task"], row["cache"]) for row in result["summary"]} == {
        (task, cache) for task in ("hotpotqa", "trec", "average") for cache in ("full", "window")
    }
    report = report_longbench(result)
    tables = report.tables
    assert tables[0].rows[0][:2] == ("full", "all")
    assert tables[2].title == "Published for Llama-3.1-8B-Instruct"
    assert "2604.10539" in report.notes[0]


@pytest.mark.parametrize("room", [60, 101, 480])
def test_prompts_are_cut_in_the_middle_until_they_fit(room: int, engine: Engine, data_dir: Path) -> None:
    bench = LongBench(engine, settings_for(max_prompt_tokens=room), data_dir)
    ids = bench.encode(bench.items[0])
    assert room - 2 <= len(ids) <= room or (room == 480 and len(ids) < 480)
    text = engine.tokenizer.decode(ids)
    assert text.startswith("<|im_start|>user\nWhich?")
    assert text.endswith("Which? <|im_end|>\n<|im_start|>assistant\n")


def test_few_shot_prompts_stay_out_of_the_chat_template(engine: Engine, data_dir: Path) -> None:
    bench = LongBench(engine, settings_for(tasks=("trec",)), data_dir)
    assert engine.tokenizer.decode(bench.encode(bench.items[0])) == "Type:"


def test_a_template_that_leaves_no_room(engine: Engine, data_dir: Path) -> None:
    bench = LongBench(engine, settings_for(max_prompt_tokens=10), data_dir)
    with pytest.raises(InvalidInput, match="no room for hotpotqa"):
        bench.encode(bench.items[0])


@pytest.mark.parametrize(
    ("changes", "said"), [({"tasks": ()}, "tasks"), ({"limit": 0}, "limit"), ({"max_prompt_tokens": 0}, "prompt tokens")]
)
def test_settings_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        settings_for(**changes)


def test_published_rows_cover_the_same_tasks() -> None:
    rows = published()["longbench"]
    assert len(rows) == 22
    assert all(set(row["scores"]) <= set(long_tasks()) and len(row["scores"]) == 16 for row in rows)


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path, model_folder: Callable[[str], str]
) -> None:
    call = partial(call_command, monkeypatch, capsys)
    path = data_dir / "out.json"
    options = "--caches full,window --budgets 64 --tasks trec --dtype float32".split()
    outcome = call("eval", "longbench", model_folder("llama"), *options, "--data-dir", str(data_dir), "--json", str(path))
    assert outcome.code == 0, outcome.err
    assert json.loads(path.read_text(encoding="utf-8"))["evaluation"] == "longbench"
    assert "Published for Llama" in outcome.out
