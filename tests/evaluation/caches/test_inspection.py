"""Inspection says what the store did: the same answer, the rows it read and no others, everything where everything fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import call_command

from hoarfrost import Engine
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cli.inspect import runs
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.inspection import NUM_TOP, closing_length, inspect_prompt, snippet
from hoarfrost.evaluation.caches.runner import CacheRunner
from hoarfrost.evaluation.caches.variants import CacheVariant

PROMPT = [4 + (7 * index * index + 3 * index) % 250 for index in range(150)]
CONFIG = IceConfig(budget=64)


@pytest.fixture
def engine(model_folder: Callable[[str], str]) -> Engine:
    return Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")


def test_the_queries_are_those_of_the_answer(engine: Engine) -> None:
    fetches = inspect_prompt(engine, PROMPT, 3, CONFIG, 5)
    assert [fetch.position for fetch in fetches] == [146, 149, 150, 151, 152, 153]
    answer = CacheRunner(engine.target, [CacheVariant("ice", 64)]).answer(PROMPT, [], 5, num_decoded=4)[CacheVariant("ice", 64)]
    assert [fetch.chosen for fetch in fetches[1:]] == [engine.tokenizer.decode([token]) for token in answer]
    assert fetches[0].token == engine.tokenizer.decode([PROMPT[146]])
    assert [fetch.token for fetch in fetches[2:]] == [fetch.chosen for fetch in fetches[1:-1]]


def test_what_a_head_fetched_adds_up(engine: Engine) -> None:
    [fetch] = inspect_prompt(engine, PROMPT, 0, CONFIG, 0)
    assert fetch.position == 149
    assert [(head.layer, head.head) for head in fetch.heads] == [(layer, head) for layer in range(4) for head in range(2)]
    fetched: list[set[int]] = []
    for head in fetch.heads:
        assert head.pages is not None
        rows = [position for page in head.pages for position in page]
        assert len(rows) == len(set(rows)) == head.num_rows <= CONFIG.retrieved_rows
        assert CONFIG.num_sinks <= min(rows) <= max(rows) < 149 - (CONFIG.window - CONFIG.page_size)
        assert head.num_rows < head.num_read <= CONFIG.budget
        assert 0 < head.mass <= head.best_mass + 1e-6 <= 1 + 2e-6
        assert {row.position for row in head.top} <= set(rows)
        shares = [row.share for row in head.top]
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) <= head.mass + 1e-6
        fetched.append(set(rows))
    for row in fetch.top:
        assert row.num_heads == sum(row.position in rows for rows in fetched) > 0
    counts = [row.num_heads for row in fetch.top]
    assert counts == sorted(counts, reverse=True)
    assert 1 <= len(counts) <= NUM_TOP


def test_a_budget_of_everything_reads_everything(engine: Engine) -> None:
    for fetch in inspect_prompt(engine, PROMPT, 2, IceConfig(budget=400), 2):
        for head in fetch.heads:
            assert head.pages is None
            assert (head.num_rows, head.num_read) == (0, fetch.position)
            assert head.mass == head.recall == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("prompt", "num_new", "said"), [(PROMPT[:1], 0, "one token long"), (PROMPT, 400, "400 new tokens"), (PROMPT, -1, "-1")]
)
def test_nothing_to_look_at_is_a_sentence(prompt: list[int], num_new: int, said: str, engine: Engine) -> None:
    with pytest.raises(InvalidInput, match=said):
        inspect_prompt(engine, prompt, 0, CONFIG, num_new)


def test_what_a_template_puts_behind_a_prompt() -> None:
    assert closing_length([1, 2, 3, 9, 9], [1, 2, 4, 9, 9]) == 2
    assert closing_length([1, 2], [1, 2, 5]) == 0
    assert closing_length([9], [9]) == 1


def test_snippets_stay_on_one_line(engine: Engine) -> None:
    ids = engine.tokenizer("one\ntwo three")["input_ids"]
    assert snippet(ids, 4, engine.tokenizer.decode) == "one «t»wo t"
    assert snippet(ids, 0, engine.tokenizer.decode) == "«o»ne t"


def test_positions_as_runs_that_fit() -> None:
    positions = [30, 4, 5, 6, 7, 12, 13, 40]
    assert runs(positions, 80) == "4-7, 12-13, 30, 40"
    assert runs(positions, 14) == "4-7, 12-13, +2"
    assert runs(positions, 1) == "4-7, +4"
    assert runs([8], 1) == "8"


class TestCommand:
    @pytest.fixture
    def call(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        return partial(call_command, monkeypatch, capsys)

    def test_prints_tables_and_writes_everything(self, call: Any, tmp_path: Path, model_folder: Callable[[str], str]) -> None:
        book, path = tmp_path / "book.txt", tmp_path / "out.json"
        book.write_text("Nothing of note was said on that day. " * 5, encoding="utf-8")
        options = ("--prompt-file", str(book), "--kv-budget", "64", "--new-tokens", "2", "--dtype", "float32", "--json", str(path))
        outcome = call("inspect", "cache", model_folder("qwen3"), "What?", *options)
        assert outcome.code == 0, outcome.err
        assert "'?' at " in outcome.out
        assert outcome.out.count("Fetched by most heads") == 3
        result = json.loads(path.read_text(encoding="utf-8"))
        assert {"machine", "versions", "commit", "settings", "records", "summary"} <= result.keys()
        assert result["settings"]["budget"] == 64
        assert [row["token"] for row in result["summary"]][:2] == ["?", "\n"]
        assert len(result["records"][0]["heads"]) == 8
        assert result["records"][0]["heads"][0]["pages"]

    def test_bad_input_is_a_sentence(self, call: Any, model_folder: Callable[[str], str]) -> None:
        model = model_folder("qwen3")
        for arguments, said in (
            ([model], "Give a prompt"),
            ([model, "Hi", "--kv-budget", "20"], "A budget of 20 rows"),
            (["none", "Hi"], "none"),
        ):
            outcome = call("inspect", "cache", *arguments)
            assert (outcome.code, outcome.out) == (2, "")
            assert said in outcome.err
