"""The cost model: measured once, kept, and measured anew when what was kept is of no use."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference import random_drafter

from hoarfrost import Engine
from hoarfrost.engine import costs
from hoarfrost.engine.costs import CostModel, load_costs, rising

MODEL = CostModel((1, 4, 8), (100, 1100), ((1.0, 4.0, 8.0), (2.0, 5.0, 9.0)), (1, 4), (2.0, 5.0))


def test_times_are_linear_between_the_measured_points() -> None:
    assert MODEL.row_ms(100).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert MODEL.row_ms(600)[0] == pytest.approx(1.5)
    assert MODEL.row_ms(0)[0] == 1.0, "no extrapolation towards nothing"
    assert MODEL.draft_time_ms(1) == 2.0
    assert MODEL.draft_time_ms(8) == pytest.approx(10.0)


@pytest.fixture
def engine(model_folder: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(costs, "ROWS", (1, 4, 8))
    engine = Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")
    engine.drafter = random_drafter(engine.target)
    return engine


def test_measured_once_and_kept(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = load_costs(engine.target, engine.drafter, tmp_path)
    assert measured.rows[0] == 1
    assert all(np.diff(table).min() >= 0 for table in measured.verify_ms if len(table) > 1)
    monkeypatch.setattr(costs, "measure", lambda *_: pytest.fail("measured again"))
    assert load_costs(engine.target, engine.drafter, tmp_path) == measured


@pytest.mark.parametrize("damage", ["not json", "{}", "list", "other key", "torn", "negative", "old"])
def test_what_is_of_no_use_is_measured_anew(engine: Engine, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    load_costs(engine.target, engine.drafter, tmp_path)
    [path] = tmp_path.glob("costs-*.json")
    content = json.loads(path.read_text())
    if damage == "other key":
        content["key"]["dtype"] = "torch.float16"
    elif damage == "negative":
        content["costs"]["draft_ms"] = [-1.0]
    elif damage == "old":
        content["measured_at"] = 0
    text = {"not json": "not json", "{}": "{}", "list": "[1]", "torn": json.dumps(content)[:-20]}.get(damage, json.dumps(content))
    path.write_text(text)
    with caplog.at_level(logging.WARNING, "hoarfrost"):
        again = load_costs(engine.target, engine.drafter, tmp_path)
    assert again.rows[0] == 1
    assert bool(warnings_of(caplog)) == (damage != "old"), "age needs no warning"
    assert json.loads(path.read_text())["costs"]["rows"] == list(again.rows)


def test_a_folder_that_cannot_be_written_is_no_error(engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert load_costs(engine.target, engine.drafter, tmp_path / "file" / "cache").rows[0] == 1
    assert "could not be kept" in caplog.text


def test_a_table_that_cannot_be_read_is_no_error(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """As in a folder of another user: neither there nor not there, but out of reach. Said once, however many engines there are."""
    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "exists", refuse)
    monkeypatch.setattr(costs, "write_json", refuse)
    for _ in range(3):
        assert load_costs(engine.target, engine.drafter, tmp_path).rows[0] == 1
    assert len(warnings_of(caplog)) == 1


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize("error", [RuntimeError("no home"), None])
def test_an_account_without_a_home_has_a_cache_folder(error: Exception | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        if error is not None:
            raise error
        return Path("/home/somebody")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    assert costs.cache_folder().parts[-2:] == (".cache", "hoarfrost")


def test_a_disturbed_time_counts_no_more_than_that_of_a_larger_pass() -> None:
    assert rising([1.0, 9.0, 1.5, 1.25, 2.0, 3.0]) == [1.0, 1.25, 1.25, 1.25, 2.0, 3.0]


def test_a_model_that_would_take_long_is_measured_at_few_points(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never fewer than the least, never more once the time is up; each pass runs once."""
    calls: list[int] = []

    def slow(*arguments: Any, **options: Any) -> float:
        calls.append(arguments[2])
        return 5.0 + arguments[2] / 100

    monkeypatch.setattr(costs, "_verify_ms", slow)
    monkeypatch.setattr(costs, "MEASURING_SECONDS", 0.0)
    measured = costs.measure(engine.target, engine.drafter)
    assert measured.rows == costs.ROWS_OF_SLOW_MODELS[: costs.LEAST_POINTS]
    assert len(measured.contexts) == len(measured.verify_ms) == 1
    assert calls == [1, *measured.rows]
