"""Loss through a cache: what the full cache would have lost where nothing is hidden, and what the stores caught of the attention."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from command import call_command
from torch.nn import functional
from transformers import AutoModelForCausalLM

from hoarfrost import Engine
from hoarfrost.cache.baselines import OracleSelection, SelectingStore, WindowSelection
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches.loss import NUM_PARTS, LossBenchmark, LossRecord, LossSettings
from hoarfrost.evaluation.caches.report import report_loss
from hoarfrost.evaluation.caches.runner import read_prompt, step
from hoarfrost.evaluation.caches.watch import WatchedStore, group_attention, measure_selection
from hoarfrost.evaluation.common.journal import Journal

SETTINGS = LossSettings(caches=("window", "oracle"), budgets=(8, 200), texts=("essays",), contexts=(100,), continuation=24, limit=2)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "long" / "essays"
    folder.mkdir(parents=True)
    (folder / "one.txt").write_text("It was a dark and stormy night; the rain fell in torrents. " * 20, encoding="utf-8")
    return tmp_path


@pytest.fixture
def engine(model_folder: Callable[[str], str]) -> Engine:
    return Engine.load(model_folder("qwen3"), dtype="float32", device="cpu")


def test_the_full_loss_is_that_of_the_model(engine: Engine, data_dir: Path, model_folder: Callable[[str], str]) -> None:
    tokens = [4 + (7 * index * index) % 250 for index in range(70)]
    outcome = LossBenchmark(engine, SETTINGS, data_dir).measure("essays", "50/0", tokens, 50)
    stock = AutoModelForCausalLM.from_pretrained(model_folder("qwen3"), dtype=torch.float32)
    with torch.no_grad():
        logits = stock(torch.tensor([tokens])).logits[0, 50:-1]
    expected = functional.cross_entropy(logits, torch.tensor(tokens[51:]))
    assert outcome.records
    for record in outcome.records:
        assert record.full_loss == pytest.approx(float(expected), abs=1e-4)


def test_a_budget_of_everything_adds_nothing_and_a_small_one_something(engine: Engine, data_dir: Path) -> None:
    benchmark = LossBenchmark(engine, SETTINGS, data_dir)
    by_variant = {
        (row.cache, row.budget): asdict(row) for row in benchmark.summarise([one for out in benchmark.run() for one in out.records])
    }
    for cache in ("window", "oracle"):
        everything, little = by_variant[cache, 200], by_variant[cache, 8]
        assert abs(everything["added_loss"]) < 1e-4
        assert everything["kl"] < 1e-6
        assert everything["top1"] == everything["mass"] == everything["recall"] == pytest.approx(1.0)
        assert little["kl"] > 1e-3
        assert len(little["kl_parts"]) == NUM_PARTS
        assert sum(little["kl_parts"]) / NUM_PARTS == pytest.approx(little["kl"], rel=1e-4)
        low, high = little["added_interval"]
        assert low <= little["added_loss"] <= high
    assert by_variant["oracle", 8]["recall"] == pytest.approx(1.0)
    assert by_variant["oracle", 8]["mass"] == pytest.approx(by_variant["oracle", 8]["best_mass"])
    assert by_variant["window", 8]["mass"] < by_variant["window", 8]["best_mass"]


def test_goes_on_and_reads_back_what_it_wrote(engine: Engine, data_dir: Path) -> None:
    benchmark = LossBenchmark(engine, replace(SETTINGS, budgets=(8,)), data_dir)
    journal, _ = Journal.beside(data_dir / "out.json", {"a": 1}, LossRecord)
    outcomes = benchmark.run(journal)
    again, message = Journal.beside(data_dir / "out.json", {"a": 1}, LossRecord)
    assert "2 prompts are already measured" in (message or "")
    assert benchmark.run(again) == outcomes


class TestWatching:
    def test_shares_of_a_known_attention(self) -> None:
        """One KV head, two query heads; keys chosen so that row 2 gets most, row 0 next."""
        keys = torch.tensor([[[2.0, 0.0], [0.0, 0.0], [3.0, 0.0], [0.0, 0.0]]])
        queries = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        weights = torch.tensor([2.0, 0.0, 3.0]).exp()
        selected = torch.tensor([[False, True, True]])
        mass, best_mass, recall = measure_selection(group_attention(queries, keys, 1.0), selected)[:, 0].tolist()
        assert mass == pytest.approx(float((weights[1] + weights[2]) / weights.sum()))
        assert best_mass == pytest.approx(float((weights[0] + weights[2]) / weights.sum()))
        assert recall == 0.5

    def test_nothing_selected_catches_nothing(self) -> None:
        caught = measure_selection(group_attention(torch.randn(4, 8), torch.randn(2, 6, 8), 0.3), torch.zeros(2, 5, dtype=torch.bool))
        assert torch.equal(caught, torch.zeros(3, 2))

    @pytest.mark.parametrize("every", [1, 3])
    def test_keys_are_those_of_the_store_whatever_was_committed(self, every: int, engine: Engine) -> None:
        """The oracle takes the best rows of the store's own keys; that its recall is 1 says that the watcher has the same ones."""
        target = engine.target
        rows, _ = read_prompt(target, list(range(10, 60)))
        store = SelectingStore(4, 2, 16, OracleSelection(6), dtype=torch.float32, device="cpu")
        rows.fill(store)
        watched = WatchedStore(store, rows, every)
        for token in range(80, 90):
            step(target, [watched], [token])
        watched.truncate(53)
        assert watched.length == store.length == 53
        for token in range(90, 96):
            step(target, [watched], [token])
        selection = watched.selection()
        assert selection is not None
        assert (len(selection.recall), len(selection.recall[0])) == (4, 2)
        assert min(min(heads) for heads in selection.recall) == pytest.approx(1.0)

    def test_a_store_that_does_not_say_is_left_alone(self, engine: Engine) -> None:
        rows, _ = read_prompt(engine.target, list(range(10, 60)))
        store = engine.target.new_store()
        rows.fill(store)
        watched = WatchedStore(store, rows)
        step(engine.target, [watched], [30])
        assert watched.selection() is None
        assert watched.bytes_by_tier() == store.bytes_by_tier()

    def test_the_window_catches_what_lies_in_it(self, engine: Engine) -> None:
        rows, _ = read_prompt(engine.target, list(range(10, 60)))
        store = SelectingStore(4, 2, 16, WindowSelection(49), dtype=torch.float32, device="cpu")
        rows.fill(store)
        watched = WatchedStore(store, rows, 1)
        step(engine.target, [watched], [30])
        selection = watched.selection()
        assert selection is not None
        assert min(min(heads) for heads in selection.recall) >= 48 / 49


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 0}, "limit is 0"),
        ({"continuation": 4}, "continuation is 4"),
        ({"contexts": (0,)}, "context is 0"),
        ({"texts": ()}, "texts"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        replace(SETTINGS, **changes)


def test_what_does_not_fit_the_model(engine: Engine, data_dir: Path) -> None:
    with pytest.raises(InvalidInput, match="take 525 tokens and the model's context is 512"):
        LossBenchmark(engine, replace(SETTINGS, contexts=(500,)), data_dir)


def test_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path, model_folder: Callable[[str], str]
) -> None:
    call = partial(call_command, monkeypatch, capsys)
    path = data_dir / "out.json"
    options = "--caches full,window --budgets 16 --texts essays --contexts 64 --continuation 8 --limit 1 --dtype float32".split()
    outcome = call("eval", "loss", model_folder("qwen3"), *options, "--data-dir", str(data_dir), "--json", str(path))
    assert outcome.code == 0, outcome.err
    result = json.loads(path.read_text(encoding="utf-8"))
    assert {"texts", "context", "cache", "budget", "loss", "kl", "mass", "recall"} <= result["summary"][0].keys()
    assert "Loss in nats on essays behind 64 tokens" in outcome.out
    full, window = report_loss(result).tables[0].rows
    assert full[:2] == ("full", "all")
    assert full[-1] == "-"
    assert window[:2] == ("window", "16")
