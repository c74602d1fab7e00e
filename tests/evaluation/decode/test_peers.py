"""The comparison with other engines: fair turns, honest failures, ratios of the same prompts; on workers that are made up."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from peer_results import SECONDS_PER_TOKEN, make_peers, make_record

from hoarfrost.evaluation.common.journal import Journal, Outcome
from hoarfrost.evaluation.decode.peers import PeerRecord, report_peers, summarise_peers
from hoarfrost.evaluation.prompts.sets import Prompt

FOLDER = Path(__file__).parents[3] / "benchmarks" / "peers"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The driver's modules, imported as its script does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "workers"))
    names = ("peers", "worker_process", "comparison", "protocol")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name)


class TestFigures:
    def test_ratios_are_over_the_prompts_that_both_answered(self) -> None:
        records = [make_record("gsm8k", str(index), peer) for index in range(4) for peer in SECONDS_PER_TOKEN]
        del records[2]  # the fast engine's first
        summaries = {(one.set, one.peer): one for one in summarise_peers(records)}
        fast = summaries["all", "fast"]
        assert fast.num_answers == 3
        assert fast.tokens_per_second == pytest.approx(500)
        assert fast.over_plain is not None
        assert fast.over_plain.ratio == pytest.approx(2)
        assert fast.tree_over is not None
        assert fast.tree_over.quartiles == pytest.approx((2, 2, 2))
        assert summaries["all", "hoarfrost-ar"].tree_over == summaries["gsm8k", "hoarfrost-ar"].tree_over

    def test_an_answer_of_one_piece_has_no_rate(self) -> None:
        [one, _] = summarise_peers([make_record("gsm8k", "0", "fast", tokens=1)])
        assert (one.num_answers, one.tokens_per_second, one.over_plain) == (1, None, None)

    def test_tables_name_every_engine_and_who_is_missing(self) -> None:
        result = make_peers()
        report = report_peers(result)
        overall, by_set = report.tables
        assert overall.rows[2] == ("Fast engine", "float32", "333.3", "2.00x", "2.00x", "2.00-2.00", "2/6")
        assert by_set.rows[2] == ("Fast engine", "500.0", "250.0")
        assert "Not measured: slow (not installed)." in report.notes[0]

    def test_the_journal_gives_back_what_was_measured(self, tmp_path: Path) -> None:
        outcome = Outcome("gsm8k", "0", [make_record("gsm8k", "0", "fast", agrees=False)], 1)
        journal, _ = Journal.beside(tmp_path / "result.json", {"commit": None}, PeerRecord)
        journal.add(outcome)
        again, message = Journal.beside(tmp_path / "result.json", {"commit": None}, PeerRecord)
        assert again.find("gsm8k", "0") == outcome
        assert "1 prompts are already measured" in (message or "")


class FakeWorker:
    """Answers the token ids 0, 1, 2, ...; `log` is shared and keeps who was asked for what."""

    def __init__(self, name: str, log: list[tuple[str, int]], failure: Exception | None = None) -> None:
        self.name, self.log, self.failure = name, log, failure

    def ask(self, request: Mapping[str, Any], timeout_seconds: float) -> dict[str, Any]:
        if "messages" in request:
            said = "".join(message["content"] for message in request["messages"])
            self.log.append((said, -1))
            ids = list(range(5))
            return {"does_not_fit": True} if "long" in said else {"prompt_ids": [7], "token_ids": ids, "text": "answer"}
        if self.failure:
            raise self.failure
        self.log.append((f"{self.name} {request['mode']}", request["max_new_tokens"]))
        ids = list(range(request["max_new_tokens"]))
        return {"token_ids": ids, "num_first": 1, "prefill_seconds": 0.1, "seconds": 0.4}


class TestTurns:
    def compare(
        self, scripts: dict[str, ModuleType], prompts: list[Prompt], failure: str | None = None
    ) -> tuple[Any, list[Any], list[Any]]:
        log: list[tuple[str, int]] = []
        peers = [scripts["peers"].PEERS[name] for name in ("hoarfrost-ar", "hoarfrost-tree", "ctranslate2")]
        broken = scripts["peers"].PeerFailure(failure) if failure else None
        workers = {"hoarfrost": FakeWorker("hoarfrost", log), "ctranslate2": FakeWorker("ctranslate2", log, broken)}
        comparison = scripts["comparison"].Comparison(workers, peers, 32, {})
        return comparison, [comparison.measure(prompt, index) for index, prompt in enumerate(prompts)], log

    def test_all_are_asked_for_as_many_tokens_in_ever_new_order(self, scripts: dict[str, ModuleType]) -> None:
        _, outcomes, log = self.compare(scripts, [Prompt("gsm8k", str(index), ("Q",)) for index in range(6)])
        everybody = ["ctranslate2 ar", "hoarfrost ar", "hoarfrost tree"]
        assert log[0] == ("Q", -1)
        assert sorted(log[1:4]) == [(peer, 32) for peer in everybody], "to warm up"
        rounds = [log[4:7], *(log[start : start + 4] for start in range(7, len(log), 4))]
        assert all(one[0] == ("Q", -1) for one in rounds[1:])
        orders = [tuple(one[-3:]) for one in rounds]
        assert all(sorted(order) == [(peer, 5) for peer in everybody] for order in orders)
        assert len(set(orders)) > 2
        assert all([record.peer for record in outcome.records] == ["hoarfrost-ar", "hoarfrost-tree", "ctranslate2"] for outcome in outcomes)
        assert all(record.agrees and record.seconds_per_token == pytest.approx(0.1) for record in outcomes[1].records)

    def test_the_second_turn_follows_the_reference(self, scripts: dict[str, ModuleType]) -> None:
        _, [outcome], log = self.compare(scripts, [Prompt("mt_bench", "81", ("First", "Second"))])
        assert [said for said, count in log if count < 0] == ["First", "FirstanswerSecond"]
        assert {record.prompt_id for record in outcome.records} == {"81/1", "81/2"}

    def test_turns_that_do_not_fit_are_counted(self, scripts: dict[str, ModuleType]) -> None:
        _, outcomes, _ = self.compare(scripts, [Prompt("mt_bench", "81", ("First", "long")), Prompt("gsm8k", "0", ("long",))])
        assert [(outcome.num_skipped, len(outcome.records)) for outcome in outcomes] == [(1, 3), (1, 0)]

    def test_who_fails_is_left_out_with_the_reason(self, scripts: dict[str, ModuleType]) -> None:
        comparison, outcomes, _ = self.compare(scripts, [Prompt("gsm8k", "0", ("Q",))], "no such operator")
        assert comparison.failures == {"ctranslate2": "no such operator"}
        assert [record.peer for record in outcomes[0].records] == ["hoarfrost-ar", "hoarfrost-tree"]


WORKER = """
import sys, time
sys.path.insert(0, {workers!r})
from protocol import Stopwatch, serve

def load(job):
    print("a library says something")
    def decode(request):
        if request["mode"] == "hang":
            time.sleep(60)
        if request["mode"] == "die":
            print("fatal: out of memory", file=sys.stderr)
            sys.stderr.flush()
            import os
            os._exit(3)
        if request["mode"] == "raise":
            raise ValueError("no\\nsuch mode")
        stopwatch = Stopwatch()
        for token_id in request["prompt_ids"]:
            stopwatch.arrive(token_id)
        return stopwatch.answer()
    if job.dtype == "float8":
        raise ValueError("float8 is not supported")
    return {{"versions": {{}}, "dtype": job.dtype}}, decode

serve(load)
"""


class TestProcess:
    @pytest.fixture
    def start(self, scripts: dict[str, ModuleType], tmp_path: Path) -> Iterator[Any]:
        script = tmp_path / "worker.py"
        script.write_text(WORKER.format(workers=str(FOLDER / "workers")), encoding="utf-8")
        started = []

        def start(dtype: str = "float32") -> Any:
            options = ["--model", "m", "--dtype", dtype, "--num-threads", "1", "--cache", "c"]
            started.append(scripts["worker_process"].WorkerProcess([sys.executable, str(script), *options], tmp_path / "log", 1))
            return started[-1]

        yield start
        for process in started:
            process.close()

    def test_greets_and_answers(self, start: Any) -> None:
        process = start()
        assert process.receive(30) == {"versions": {}, "dtype": "float32"}
        answer = process.ask({"prompt_ids": [4, 5], "mode": "ar"}, 30)
        assert (answer["token_ids"], answer["num_first"]) == ([4, 5], 1)
        assert answer["seconds"] >= 0

    def test_an_error_is_told_and_the_worker_goes_on(self, start: Any, scripts: dict[str, ModuleType]) -> None:
        process = start()
        process.receive(30)
        with pytest.raises(scripts["peers"].PeerFailure, match="ValueError: no such mode"):
            process.ask({"prompt_ids": [], "mode": "raise"}, 30)
        assert process.ask({"prompt_ids": [1], "mode": "ar"}, 30)["token_ids"] == [1]

    def test_a_model_that_does_not_load_is_told(self, start: Any, scripts: dict[str, ModuleType]) -> None:
        with pytest.raises(scripts["peers"].PeerFailure, match="float8 is not supported"):
            start("float8").receive(30)

    @pytest.mark.parametrize(("mode", "said"), [("die", "exit code 3: fatal: out of memory"), ("hang", "no answer within 0.5 s")])
    def test_a_worker_that_dies_or_hangs_is_told(self, mode: str, said: str, start: Any, scripts: dict[str, ModuleType]) -> None:
        process = start()
        process.receive(30)
        with pytest.raises(scripts["peers"].PeerFailure, match=said):
            process.ask({"prompt_ids": [1], "mode": mode}, 30 if mode == "die" else 0.5)


class TestEnvironments:
    def test_every_worker_exists_and_has_pins_or_ours(self, scripts: dict[str, ModuleType]) -> None:
        for peer in scripts["peers"].PEERS.values():
            assert (FOLDER / "workers" / f"{peer.worker}_worker.py").is_file()
        for path in FOLDER.glob("requirements-*.txt"):
            assert all("==" in line for line in path.read_text().splitlines())

    def test_an_environment_for_the_same_pins_is_used_again(
        self, scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peers = scripts["peers"]
        monkeypatch.setattr(peers, "BUILD", tmp_path)
        made: list[Path] = []
        monkeypatch.setattr(peers.venv, "create", lambda folder, **_: (folder.mkdir(exist_ok=True), made.append(folder)))
        installs = iter((0, 1))
        monkeypatch.setattr(
            peers.subprocess, "run", lambda *_, **__: type("Done", (), {"returncode": next(installs), "stderr": "a\nERROR: none\n"})
        )
        requirements = tmp_path / "requirements-one.txt"
        requirements.write_text("one==1\n")
        assert peers.make_environment("one", requirements) == peers.make_environment("one", requirements)
        assert len(made) == 1
        requirements.write_text("one==2\n")
        with pytest.raises(peers.PeerFailure, match="not installed: ERROR: none"):
            peers.make_environment("one", requirements)


def test_results_are_json(tmp_path: Path) -> None:
    assert json.loads(json.dumps(make_peers(), allow_nan=False))["failures"] == {"slow": "not installed"}
