"""The benchmark treats all modes alike, counts what it leaves out, and its figures are those of its records; told on a fake engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fake_engine import SECONDS_PER_ROUND, TOKENS_PER_ROUND, FakeEngine

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.common.journal import Journal, make_result, restore
from hoarfrost.evaluation.decode.benchmark import DecodeBenchmark, DecodeSettings, drafter_name, first_difference, make_trees
from hoarfrost.evaluation.decode.modes import MODES, mode_label
from hoarfrost.evaluation.decode.records import DecodeRecord, summarise
from hoarfrost.evaluation.prompts.sets import Prompt
from hoarfrost.models import SHIPPED
from hoarfrost.tree import TreeConfig

NUM_TOKENS = 41
SETTINGS = DecodeSettings(max_new_tokens=NUM_TOKENS, budgets=(16,))
PROMPTS = [Prompt("gsm8k", str(index), (f"Question {index}",)) for index in range(6)]
REQUIRED_RECORD_KEYS = {"set", "prompt_id", "mode", "budget", "temperature", "tokens", "seconds", "rounds", "tau", "stage_ms"}
HEADER: dict[str, Any] = {"settings": {"model": "fake", "budgets": (16,)}, "commit": None}
REQUIRED_SUMMARY_KEYS = {"set", "mode", "budget", "temperature", "tokens_per_second", "tau", "speedup"}


def bench(engine: FakeEngine, settings: DecodeSettings = SETTINGS, prompts: Sequence[Prompt] = PROMPTS) -> DecodeBenchmark:
    return DecodeBenchmark(engine, settings, prompts)  # type: ignore[arg-type]


def num_warm_up(settings: DecodeSettings = SETTINGS) -> int:
    return len(bench(FakeEngine(), settings).variants)


class TestProtocol:
    def test_every_prompt_runs_in_every_variant(self) -> None:
        settings = DecodeSettings(modes=("ar", "chain", "tree"), budgets=(8, 16), temperatures=(0.0, 0.7), max_new_tokens=9)
        outcomes = bench(FakeEngine(), settings, PROMPTS).run()
        seen = {(r.prompt_id, r.mode, r.budget, r.temperature) for outcome in outcomes for r in outcome.records}
        variants = {("ar", 0), ("chain", 15), ("tree", 8), ("tree", 16)}
        assert seen == {(p.prompt_id, mode, budget, t) for p in PROMPTS for mode, budget in variants for t in (0.0, 0.7)}
        assert sum(len(outcome.records) for outcome in outcomes) == len(seen)

    def test_tree_modes_run_with_every_budget_and_auto_is_one(self) -> None:
        settings = DecodeSettings(modes=("ar", "tree", "tree-uncoupled"), budgets=(8, "auto"), max_new_tokens=9)
        [outcome] = bench(FakeEngine(), settings, PROMPTS[:1]).run()
        measured = [(record.mode, record.budget) for record in outcome.records]
        assert measured == [("ar", 0), ("tree", 8), ("tree", "auto"), ("tree-uncoupled", 8), ("tree-uncoupled", "auto")]
        assert restore(DecodeRecord, json.loads(json.dumps(asdict(outcome.records[0])))) == outcome.records[0]
        labels = [mode_label(summary.mode, summary.budget) for summary in summarise(outcome.records)]
        assert labels == ["AR", "DDTree 8", "DDTree auto", "DDTree uncoupled 8", "DDTree uncoupled auto"]

    def test_tree_modes_differ_in_options_that_trees_have(self) -> None:
        default = TreeConfig(16)
        for mode in MODES.values():
            [tree] = make_trees(mode.name, (16,))
            if mode.is_tree:
                assert tree == replace(default, **mode.options)
        assert make_trees("tree-published", (16,)) == [TreeConfig.published(16)]

    def test_modes_alternate_prompt_by_prompt_in_ever_new_order(self) -> None:
        engine = FakeEngine()
        bench(engine, prompts=PROMPTS).run()
        measured = engine.modes[num_warm_up() :]
        orders = [tuple(measured[start : start + 3]) for start in range(0, len(measured), 3)]
        assert all(sorted(order) == ["ar", "chain", "tree"] for order in orders)
        assert len(set(orders)) > 2
        assert engine.prompts[num_warm_up() :] == [prompt for prompt in engine.prompts[num_warm_up() :: 3] for _ in range(3)]

    def test_warm_up_comes_first_and_leaves_no_record(self) -> None:
        engine = FakeEngine()
        outcomes = bench(engine, prompts=PROMPTS[:1]).run()
        assert engine.modes[:3] == ["ar", "chain", "tree"]
        assert len(engine.modes) == 6
        assert len(outcomes[0].records) == 3

    def test_a_prompt_has_the_same_noise_in_all_modes_and_prompts_have_different_noise(self) -> None:
        engine = FakeEngine()
        bench(engine, DecodeSettings(temperatures=(1.0,), seed=5, max_new_tokens=4), PROMPTS).run()
        assert [params.seed for params in engine.params[3:]] == [5 + index for index in range(6) for _ in range(3)]
        assert all(params.stop_on_repetition for params in engine.params)

    def test_the_second_turn_follows_plain_decodings_answer_in_every_mode(self) -> None:
        engine = FakeEngine(flips="tree")
        settings = DecodeSettings(modes=("tree", "ar"), max_new_tokens=5)
        [outcome] = bench(engine, settings, [Prompt("mt_bench", "81", ("First", "Second"))]).run()
        assert [record.prompt_id for record in outcome.records] == ["81/1", "81/1", "81/2", "81/2"]
        seconds = [prompt for prompt in engine.prompts if "Second" in prompt]
        assert len(seconds) == 2
        assert len(set(seconds)) == 1
        assert "!" not in seconds[0]

    def test_without_a_chat_template_prompts_are_plain_text(self) -> None:
        engine = FakeEngine(chat_template=None)
        bench(engine, prompts=PROMPTS[:1]).run()
        assert set(engine.prompts) == {"Question 0"}

    def test_prompts_that_do_not_fit_the_context_are_counted_not_decoded(self) -> None:
        long = Prompt("gsm8k", "long", ("x" * 100,))
        late = Prompt("mt_bench", "late", ("short", "y" * 100))
        outcomes = bench(FakeEngine(max_positions=120), prompts=[PROMPTS[0], long, late]).run()
        assert [outcome.num_skipped for outcome in outcomes] == [0, 1, 1]
        assert [len(outcome.records) for outcome in outcomes] == [3, 0, 3]
        assert make_result({}, outcomes, summarise)["skipped"] == {"gsm8k": 1, "mt_bench": 1}


class TestFigures:
    def test_are_those_of_the_engines_statistics(self) -> None:
        summaries = {one.mode: one for one in summarise(r for o in bench(FakeEngine(), prompts=PROMPTS).run() for r in o.records)}
        for mode, summary in summaries.items():
            rate = TOKENS_PER_ROUND[mode] / SECONDS_PER_ROUND[mode]
            plain_rate = TOKENS_PER_ROUND["ar"] / SECONDS_PER_ROUND["ar"]
            assert summary.tau == TOKENS_PER_ROUND[mode]
            assert summary.tokens_per_second == pytest.approx(rate)
            assert summary.speedup == pytest.approx(rate / plain_rate)
            assert summary.speedup_interval == pytest.approx((rate / plain_rate, rate / plain_rate))
            assert sum(summary.stage_ms.values()) == pytest.approx(summary.ms_per_round)
            assert summary.ms_per_round == pytest.approx(1000 * SECONDS_PER_ROUND[mode])
            assert summary.tokens == len(PROMPTS) * NUM_TOKENS
            assert summary.finish_reasons == {"length": len(PROMPTS)}

    def test_speedup_is_the_ratio_of_mean_times_per_token(self) -> None:
        [outcome] = bench(FakeEngine(), DecodeSettings(modes=("ar", "tree"), max_new_tokens=9), PROMPTS[:1]).run()
        plain, tree = outcome.records
        slow = {"prompt_id": "slow", "tokens_per_second": 1.0}
        fields = plain.__dict__
        records = [plain, tree, type(plain)(**{**fields, **slow}), type(plain)(**{**tree.__dict__, **slow, "tokens_per_second": 4.0})]
        summary = summarise(records)[1]
        expected = (1 / plain.tokens_per_second + 1.0) / (1 / tree.tokens_per_second + 0.25)
        assert summary.speedup == pytest.approx(expected)
        low, high = summary.speedup_interval or (0, 0)
        assert low <= expected <= high

    def test_answers_that_differ_from_plain_decoding_are_counted(self) -> None:
        outcomes = bench(FakeEngine(flips="tree"), prompts=PROMPTS).run()
        summaries = {one.mode: one for one in summarise(r for o in outcomes for r in o.records)}
        assert (summaries["chain"].num_compared, summaries["chain"].num_differing, summaries["chain"].flip_rate) == (6, 0, 0.0)
        assert (summaries["tree"].num_compared, summaries["tree"].num_differing) == (6, 6)
        assert summaries["tree"].flip_rate == pytest.approx(1 / NUM_TOKENS)
        assert {record.first_difference for o in outcomes for record in o.records if record.mode == "tree"} == {NUM_TOKENS - 1}

    def test_without_plain_decoding_nothing_is_compared(self) -> None:
        outcomes = bench(FakeEngine(), DecodeSettings(modes=("chain", "tree"), max_new_tokens=9), PROMPTS).run()
        for summary in summarise(r for o in outcomes for r in o.records):
            assert summary.speedup is None
            assert summary.num_compared == 0
            assert summary.flip_rate is None

    def test_answers_of_one_token_have_no_rate(self) -> None:
        outcomes = bench(FakeEngine(), DecodeSettings(max_new_tokens=1), PROMPTS).run()
        for summary in summarise(r for o in outcomes for r in o.records):
            assert (summary.tokens, summary.tau, summary.speedup) == (len(PROMPTS), 0.0, None)

    def test_a_shipped_drafter_goes_by_its_alias(self) -> None:
        assert drafter_name(str(SHIPPED["tiny"].drafter)) == "tiny"
        assert drafter_name("z-lab/Qwen3-8B-DFlash-b16") == "z-lab/Qwen3-8B-DFlash-b16"

    def test_first_difference(self) -> None:
        assert first_difference([1, 2], [1, 2]) is None
        assert first_difference([1, 2], [1, 3]) == 1
        assert first_difference([1, 2], [1, 2, 3]) == 2


class TestResult:
    def test_has_the_documented_keys_and_is_json(self) -> None:
        benchmark = bench(FakeEngine())
        result = json.loads(json.dumps(benchmark.result(benchmark.describe(), benchmark.run()), allow_nan=False))
        assert {"machine", "versions", "commit", "command", "settings", "records", "summary"} <= result.keys()
        assert all(record.keys() >= REQUIRED_RECORD_KEYS for record in result["records"])
        assert all(summary.keys() >= REQUIRED_SUMMARY_KEYS for summary in result["summary"])
        assert result["settings"]["stop_on_repetition"] is True
        assert result["settings"]["dtype"] == "float32"
        assert result["settings"]["num_prompts"] == {"gsm8k": 6}


def open_journal(path: Path, header: dict[str, Any] = HEADER) -> tuple[Journal[DecodeRecord], str | None]:
    return Journal.beside(path, header, DecodeRecord)


class TestJournal:
    def interrupted(self, path: Path, num_done: int) -> FakeEngine:
        engine = FakeEngine()
        journal, message = open_journal(path)
        assert message is None
        bench(engine, prompts=PROMPTS[:num_done]).run(journal)
        return engine

    def test_a_run_that_was_cut_off_goes_on_and_ends_as_an_uninterrupted_one(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        self.interrupted(path, 2)
        with path.with_name("result.json.partial.jsonl").open("a", encoding="utf-8") as file:
            file.write('{"set": "gsm8k", "prompt_id": "2", "num_sk')
        engine = FakeEngine()
        journal, message = open_journal(path)
        assert "2 prompts are already measured" in (message or "")
        outcomes = bench(engine).run(journal)
        assert len(engine.modes) == 3 + 4 * 3
        assert outcomes == bench(FakeEngine()).run()
        journal.finish(path, {"done": True})
        assert [one.name for one in tmp_path.iterdir()] == ["result.json"]

    def test_other_settings_start_anew_and_say_what_differs(self, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        self.interrupted(path, 2)
        journal, message = open_journal(path, {**HEADER, "commit": "abc"})
        assert "a run with another commit." in (message or "")
        assert journal.find("gsm8k", "0") is None

    def test_without_a_file_outcomes_stay_in_memory(self) -> None:
        journal: Journal[DecodeRecord] = Journal()
        bench(FakeEngine(), prompts=PROMPTS[:1]).run(journal)
        assert journal.find("gsm8k", "0") is not None


class TestSettings:
    @pytest.mark.parametrize(
        ("changes", "complaint"),
        [
            ({"modes": ("ar", "trie")}, "'trie'"),
            ({"modes": ()}, "modes"),
            ({"budgets": ()}, "budgets"),
            ({"budgets": (16, 16)}, "budgets"),
            ({"budgets": (-1,)}, "-1"),
            ({"budgets": (5000,)}, "5000"),
            ({"temperatures": (float("nan"),)}, "nan"),
            ({"max_new_tokens": 0}, "0"),
        ],
    )
    def test_are_checked_before_anything_runs(self, changes: dict[str, object], complaint: str) -> None:
        with pytest.raises(InvalidInput, match=complaint):
            DecodeSettings(**changes)  # type: ignore[arg-type]

    def test_modes_that_need_a_drafter_are_refused_without_one(self) -> None:
        with pytest.raises(InvalidInput, match="'chain' needs a drafter"):
            bench(FakeEngine(drafter=False))
        assert len(bench(FakeEngine(drafter=False), DecodeSettings(modes=("ar",))).variants) == 1

    def test_defaults_are_those_of_the_dataclasses(self) -> None:
        assert DecodeSettings().budgets == (TreeConfig().budget,)
