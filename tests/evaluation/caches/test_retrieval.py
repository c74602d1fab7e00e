"""The retrieval benchmark: its figures are those of its records, it goes on where it was cut off, and the command says what it did."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import call_command

from hoarfrost import Engine
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.answers import AVERAGE, AnswerRecord, summarise
from hoarfrost.evaluation.caches.retrieval import RetrievalBenchmark, RetrievalSettings
from hoarfrost.evaluation.caches.retrieval_samples import Sample
from hoarfrost.evaluation.caches.runner import Growth
from hoarfrost.evaluation.caches.variants import CacheVariant
from hoarfrost.evaluation.common.intervals import wilson_interval
from hoarfrost.evaluation.common.journal import Journal
from hoarfrost.evaluation.results import report_of

SETTINGS = RetrievalSettings(
    caches=("full", "window", "oracle"), budgets=(16, 400), tasks=("passkey", "keys"), lengths=(450, 500), limit=2, texts=("essays",)
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "long" / "essays"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("Nothing of note was said on that day. " * 40, encoding="utf-8")
    return tmp_path


@pytest.fixture
def engine(model_folder: Callable[[str], str]) -> Engine:
    return Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")


class TellingRunner:
    """Says what is expected with every cache but the window, which says nothing."""

    def __init__(self, benchmark: RetrievalBenchmark) -> None:
        self.encode, self.variants = benchmark.maker.encode, benchmark.runner.variants
        self.sample: Sample | None = None
        self.num_answered = 0

    def answer(self, *_: Any, **__: Any) -> dict[CacheVariant, list[int]]:
        assert self.sample is not None
        self.num_answered += 1
        said = self.encode(f" {self.sample.expected[0]}.")
        return {variant: [] if variant.cache == "window" else said for variant in self.variants}


def told(engine: Engine, data_dir: Path, settings: RetrievalSettings = SETTINGS) -> tuple[RetrievalBenchmark, TellingRunner]:
    benchmark = RetrievalBenchmark(engine, settings, data_dir)
    runner = TellingRunner(benchmark)
    answer = benchmark.answer

    def tell(sample: Sample) -> Any:
        runner.sample = sample
        return answer(sample)

    benchmark.runner, benchmark.answer = runner, tell  # type: ignore[assignment, method-assign]
    return benchmark, runner


def test_accuracy_is_what_was_found(engine: Engine, data_dir: Path) -> None:
    benchmark, _ = told(engine, data_dir)
    result = json.loads(json.dumps(benchmark.result(benchmark.describe(), benchmark.run()), allow_nan=False))
    assert {"machine", "versions", "commit", "settings", "records", "summary"} <= result.keys()
    assert len(result["records"]) == 2 * 2 * 2 * 5
    for row in result["summary"]:
        assert row["accuracy"] == (0.0 if row["cache"] == "window" else 1.0)
        assert row["agreement"] == row["accuracy"] == row["retained"]
        assert row["count"] == (4 if row["task"] == AVERAGE else 2)
    keys = {(row["task"], row["length"], row["cache"], row["budget"]) for row in result["summary"]}
    variants = {("full", None), ("window", 16), ("window", 400), ("oracle", 16), ("oracle", 400)}
    assert keys == {(task, length, *variant) for task in ("passkey", "keys", AVERAGE) for length in (450, 500) for variant in variants}


def test_budgets_of_everything_answer_as_the_full_cache(engine: Engine, data_dir: Path) -> None:
    benchmark = RetrievalBenchmark(
        engine, RetrievalSettings(**{**SETTINGS.__dict__, "limit": 1, "lengths": (450,), "budgets": (450,)}), data_dir
    )
    for outcome in benchmark.run():
        assert all(record.agrees for record in outcome.records)
        assert len({record.answer for record in outcome.records}) == 1


def test_growth_is_that_of_the_stores(engine: Engine, data_dir: Path) -> None:
    """What is decoded of a long text is measured for the caches that have pages, survives the journal, and has a table."""
    settings = replace(SETTINGS, caches=("full", "window", "dci", "ice"), budgets=(64,), limit=1, lengths=(450,), num_decoded=380)
    benchmark = RetrievalBenchmark(engine, settings, data_dir)
    journal, _ = Journal.beside(data_dir / "out.json", benchmark.describe(), AnswerRecord)
    outcomes = benchmark.run(journal)
    again, _ = Journal.beside(data_dir / "out.json", benchmark.describe(), AnswerRecord)
    assert benchmark.run(again) == outcomes
    result = benchmark.result(benchmark.describe(), outcomes)
    for record in result["records"]:
        growth = record["growth"]
        if record["cache"] in ("full", "window"):
            assert growth is None
            continue
        assert growth["num_insertions"] >= 380 // 16
        assert 0 < growth["insert_ms"] <= growth["insert_max_ms"]
        assert 0.5 < growth["page_fill"] <= 1
    for row in result["summary"]:
        assert (row["page_fill"] is None) == (row["cache"] in ("full", "window"))
    table = report_of(result).tables[-1]
    assert table.title == "Pages while 380 tokens were decoded"
    assert [row[1] for row in table.rows] == ["DCI", "ice"]
    assert "average" in {row["task"] for row in result["summary"]}


def test_the_summary_of_growth() -> None:
    def record(index: int, growth: Growth | None) -> AnswerRecord:
        return AnswerRecord("a", f"9/{index}", 9, "ice", 64, None, [], "", 1.0, True, growth)

    [row] = summarise([record(0, Growth(3, 1.0, 9.0, 0.5)), record(1, Growth(3, 2.0, 5.0, 0.75)), record(2, Growth(3, 6.0, 7.0, 1.0))])
    assert (row.page_fill, row.insert_ms, row.insert_max_ms) == (0.75, 2.0, 9.0)
    [row] = summarise([record(0, None)])
    assert (row.page_fill, row.insert_ms, row.insert_max_ms) == (None, None, None)


def test_a_run_that_was_cut_off_goes_on(engine: Engine, data_dir: Path) -> None:
    path = data_dir / "out.json"
    benchmark, _ = told(engine, data_dir)
    header = benchmark.describe()
    journal, _ = Journal.beside(path, header, AnswerRecord)
    seen: list[str] = []

    def interrupt(task: str) -> None:
        seen.append(task)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        benchmark.run(journal, interrupt)
    journal, message = Journal.beside(path, header, AnswerRecord)
    assert "3 prompts are already measured" in (message or "")
    benchmark, runner = told(engine, data_dir)
    outcomes = benchmark.run(journal)
    assert runner.num_answered == benchmark.num_prompts - 3
    assert outcomes == told(engine, data_dir)[0].run()


def test_the_mean_weighs_tasks_alike_whatever_their_counts() -> None:
    def record(task: str, index: int, score: float) -> AnswerRecord:
        return AnswerRecord(task, f"9/{index}", 9, "full", None, None, [], "", score, True)

    records = [record("a", 0, 1.0), record("a", 1, 1.0), record("a", 2, 0.0), record("a", 3, 0.0), record("b", 0, 1.0)]
    by_task = {summary.task: summary for summary in summarise(records)}
    assert by_task["a"].accuracy == 0.5
    assert by_task[AVERAGE].accuracy == 0.75
    assert by_task[AVERAGE].count == 5
    assert by_task[AVERAGE].retained == 1.0


def test_wilson_interval() -> None:
    assert wilson_interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(1.0, 50) == pytest.approx((0.9287, 1.0), abs=1e-4)
    assert wilson_interval(0.0, 50) == pytest.approx((0.0, 0.0713), abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": ("passkey", "pass")}, "Unknown task 'pass'"),
        ({"lengths": ()}, "lengths"),
        ({"limit": 0}, "limit of samples"),
        ({"num_decoded": -1}, "-1"),
        ({"caches": ("iced",)}, "Unknown cache 'iced'"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        RetrievalSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lengths": (513,)}, "513 tokens exceeds the model's context of 512"),
        ({"lengths": (40,)}, "give a longer one"),
        ({"budgets": (4,)}, "budget of 4"),
        ({"texts": ("books",)}, "cannot be read"),
    ],
)
def test_what_does_not_fit_the_model_or_the_data(changes: dict[str, Any], said: str, engine: Engine, data_dir: Path) -> None:
    with pytest.raises(InvalidInput, match=said):
        RetrievalBenchmark(engine, replace(SETTINGS, **changes), data_dir)


class TestCommand:
    @pytest.fixture
    def call(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        return partial(call_command, monkeypatch, capsys)

    def test_writes_the_result_and_prints_its_tables(self, call: Any, data_dir: Path, model_folder: Callable[[str], str]) -> None:
        path = data_dir / "out.json"
        options = "--caches full,window --budgets 64 --tasks passkey,needle --lengths 400 --limit 1 --texts essays --dtype float32"
        outcome = call("eval", "retrieval", model_folder("qwen3"), *options.split(), "--data-dir", str(data_dir), "--json", str(path))
        assert outcome.code == 0, outcome.err
        result = json.loads(path.read_text(encoding="utf-8"))
        assert result["evaluation"] == "retrieval"
        assert {(row["cache"], row["budget"]) for row in result["summary"]} == {("full", None), ("window", 64)}
        assert "Accuracy in % at 400 tokens" in outcome.out
        assert call("eval", "report", str(path)).out == outcome.out
        assert "| full | all |" in call("eval", "report", str(path), "--markdown").out

    def test_a_file_that_is_no_result(self, call: Any, tmp_path: Path) -> None:
        path = tmp_path / "other.json"
        path.write_text("{}", encoding="utf-8")
        for name, said in ((path, "is no result"), (tmp_path / "none.json", "cannot be read")):
            outcome = call("eval", "report", str(name))
            assert outcome.code == 2
            assert said in outcome.err

    def test_help_shows_the_defaults(self, call: Any) -> None:
        said = call("eval", "retrieval", "--help").out.replace("\N{BOX DRAWINGS LIGHT VERTICAL}", " ")
        assert "Default: 2048, 4096, 8192." in " ".join(said.split())


def test_tables_name_every_task_and_the_means(engine: Engine, data_dir: Path) -> None:
    benchmark, _ = told(engine, data_dir)
    result = benchmark.result(benchmark.describe(), benchmark.run())
    report = report_of(result)
    tables, [caption] = report.tables, report.notes
    assert [table.title for table in tables] == [
        "Accuracy in % at 450 tokens",
        "Accuracy in % at 500 tokens",
        "Accuracy in %, mean of 2 tasks",
    ]
    assert tables[0].rows[0] == ("full", "all", "100.0", "100.0")
    assert "2 samples per task and length" in caption
    assert "| 450 | oracle | 16 | 100.0 |" in report.to_markdown()
