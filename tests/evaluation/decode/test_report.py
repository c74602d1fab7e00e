"""The tables are made from the result's JSON alone and carry its figures."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from fake_engine import FakeEngine
from rich.console import Console

from hoarfrost.evaluation.decode.benchmark import DecodeBenchmark, DecodeSettings
from hoarfrost.evaluation.decode.report import mode_table, report_speed, speedup_by_set
from hoarfrost.evaluation.prompts.sets import Prompt


def result_of(**settings: Any) -> dict[str, Any]:
    prompts = [Prompt(name, str(index), ("Question",)) for name in ("gsm8k", "mt_bench") for index in range(2)]
    prompts.append(Prompt("gsm8k", "long", ("x" * 5000,)))
    chosen = DecodeSettings(**{"max_new_tokens": 41, "budgets": (16,), **settings})
    benchmark = DecodeBenchmark(FakeEngine(flips="chain"), chosen, prompts)  # type: ignore[arg-type]
    result: dict[str, Any] = json.loads(json.dumps(benchmark.result(benchmark.describe(), benchmark.run())))
    return result


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return result_of()


def shown(result: dict[str, Any]) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    for table in report_speed(result).tables:
        console.print(table.to_rich())
    return console.export_text()


def test_terminal_table_has_a_row_per_summary_and_stage_times(result: dict[str, Any]) -> None:
    text = shown(result)
    for name in ("gsm8k", "mt_bench", "AR", "DFlash chain", "DDTree 16", "draft", "verify", "walk", "host"):
        assert name in text
    assert text.count("DDTree") == 2 * 2
    assert "3.20x" in text
    assert "at temperature 0" in text
    assert "2/2" in text


def test_markdown_has_the_same_rows(result: dict[str, Any]) -> None:
    lines = report_speed(result).to_markdown().splitlines()
    rows = [line for line in lines if line.startswith("| gsm8k") or line.startswith("| mt_bench")]
    assert len(rows) == 2 * len(result["summary"])
    header = next(line for line in lines if "tokens/s" in line)
    assert all(row.count("|") == header.count("|") for row in rows[: len(result["summary"])])


def test_caption_says_what_was_left_out(result: dict[str, Any]) -> None:
    [said] = report_speed(result).notes
    assert "Not counted: prefill" in said
    assert "repeat itself" in said
    assert "Left out of gsm8k because they do not fit the context: 1 prompts" in said
    assert "float32" in said


def test_several_temperatures_get_a_column() -> None:
    lines = report_speed(result_of(temperatures=(0.0, 0.7))).to_markdown().splitlines()
    assert any(line.startswith("| gsm8k | 0.7 | DDTree 16 |") for line in lines)


def test_short_table_and_sentence(result: dict[str, Any]) -> None:
    table = mode_table(result["summary"][:3], "Demo")
    assert [row[0] for row in table.rows] == ["AR", "DFlash chain", "DDTree 16"]
    assert speedup_by_set(result["summary"]) == "DDTree over AR by set: gsm8k 3.20x, mt_bench 3.20x."


def test_without_plain_decoding_the_speedup_is_a_dash() -> None:
    lines = report_speed(result_of(modes=("tree",))).to_markdown().splitlines()
    assert any(line.startswith("| gsm8k") and line.endswith("| - | - | - |") for line in lines)
