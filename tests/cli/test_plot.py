"""`hoarfrost plot`: the table to stdout, into a folder with the figures, or between the markers of a document."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command import call_command
from decode_results import make_decode_result
from peer_results import make_peers

needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return partial(call_command, monkeypatch, capsys)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(tmp_path / "result.json", make_decode_result())


def written(path: Path, result: dict[str, Any]) -> str:
    path.write_text(json.dumps(result), encoding="utf-8")
    return str(path)


def test_prints_the_table_as_markdown(call: Any, file: str) -> None:
    outcome = call("plot", file)
    assert outcome.code == 0
    assert "| GSM8K | 1.60/2.00 → 2.14/3.00 (B=16) | 2.22/3.00 |" in outcome.out
    assert "arXiv 2604.12989" in outcome.out
    assert "token for token: 0 of 60" in outcome.out
    assert "Not counted: prefill" in outcome.out


def test_prints_the_table_of_peers(call: Any, tmp_path: Path) -> None:
    outcome = call("plot", written(tmp_path / "peers.json", make_peers()))
    assert outcome.code == 0
    assert "| Fast engine | float32 |" in outcome.out
    assert "Not measured: slow (not installed)" in outcome.out


ABOUT = {"machine": {"cpu": "abacus", "accelerators": []}, "versions": {}, "commit": "abc", "command": []}
RUN = {"model": "tiny", "dtype": "float32", "device": "cpu", "num_threads": 1, "budget_is": "rows", "exact": "the prompt is"}
CACHE_RESULTS: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "retrieval": (
        {
            "settings": {**RUN, "limit": 1, "ask_later": False, "num_decoded": 0},
            "records": [{"task": "passkey", "length": 512, "cache": "ice", "budget": 64, "depth": 0.5, "score": 1.0}],
            "summary": [
                {
                    "task": "passkey",
                    "length": 512,
                    "cache": cache,
                    "budget": budget,
                    "accuracy": 0.5,
                    "interval": [0.2, 0.8],
                    "retained": 1.0,
                    "agreement": 1.0,
                    "page_fill": None,
                    "insert_ms": None,
                    "insert_max_ms": None,
                }
                for cache, budget in (("full", None), ("ice", 64), ("ice", 128), ("dci", 64))
            ],
        },
        "| 512 | ice | 64 | 50.0 |",
        {"retrieval-budget", "retrieval-depth"},
    ),
    "loss": (
        {
            "settings": {**RUN, "limit": 1, "continuation": 8},
            "summary": [
                {
                    "texts": "books",
                    "context": 512,
                    "cache": cache,
                    "budget": budget,
                    "loss": 2.0,
                    "added_loss": 0.01,
                    "added_interval": [0.0, 0.02],
                    "kl": 0.25 if budget else 0.0,
                    "top1": 0.75,
                    "mass": None,
                    "best_mass": None,
                    "recall": None,
                }
                for cache, budget in (("full", None), ("ice", 64), ("ice", 128), ("dci", 64))
            ],
        },
        "| ice | 64 | 2.000 | 0.0100 | 0.0000..0.0200 | 0.2500 | 75.0 |",
        {"loss-budget"},
    ),
    "cache speed": (
        {
            "settings": {**RUN, "budget": 256, "reuse": 1, "num_steps": 3},
            "summary": [
                {
                    "cache": cache,
                    "context": context,
                    "ms_per_token": 1.5,
                    "max_ms": 3.0,
                    "start_ms": 20.0,
                    "hot_bytes": 2**20,
                    "cold_bytes": 0 if cache == "full" else 2**21,
                    "index_bytes": 0,
                    "peak_bytes": None,
                }
                for context in (4096, 2048)
                for cache in ("full", "ice")
            ],
        },
        "| 2,048 | ice | 1.50 | 3.00 | 0.02 | 1.0 | 2.0 | 0.0 | - |",
        {"cache-time", "cache-bytes"},
    ),
    "index": (
        {
            "settings": {"dim": 64, "pages": 12, "page_size": 16, "threads": 1},
            "summary": [
                {
                    "index": "dci",
                    "data": "gaussian",
                    "keys": keys,
                    "build_ms_per_head": 5.0,
                    "query_ms": 0.5,
                    "recall": 0.5,
                    "mass": 0.25,
                    "token_oracle_mass": 0.5,
                    "bytes_per_key": 20.0,
                }
                for keys in (8192, 32768)
            ],
        },
        "| gaussian | 8,192 | DCI | 5.0 | 0.500 | 0.50 | 0.250 | 0.500 | 20 |",
        {"index-growth"},
    ),
}


@needs_matplotlib
@pytest.mark.parametrize("evaluation", CACHE_RESULTS)
def test_knows_the_results_of_caches(evaluation: str, call: Any, tmp_path: Path) -> None:
    content, row, stems = CACHE_RESULTS[evaluation]
    path = written(tmp_path / "result.json", {**ABOUT, "evaluation": evaluation, **content})
    assert row in call("plot", path).out
    assert call("plot", path, "--out", str(tmp_path / "figures")).code == 0
    names = {f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")}
    assert {one.name for one in (tmp_path / "figures").iterdir()} == {"table.md", *names}
    document = tmp_path / "README.md"
    document.write_text(f"<!-- table -->\n<!-- {evaluation} -->\n", encoding="utf-8")
    assert call("plot", path, "--into", str(document)).code == 0
    assert document.read_text(encoding="utf-8").startswith(f"<!-- table -->\n<!-- {evaluation} -->\n\n**")


def test_an_evaluation_that_nobody_knows(call: Any, tmp_path: Path) -> None:
    outcome = call("plot", written(tmp_path / "result.json", {**ABOUT, "evaluation": "taste", "settings": {}, "summary": []}))
    assert outcome.code == 2
    assert "is no result" in outcome.err


@needs_matplotlib
def test_writes_table_and_figures(call: Any, tmp_path: Path) -> None:
    outcome = call("plot", written(tmp_path / "short.json", make_decode_result((0.0,))), "--out", str(tmp_path / "figures"))
    assert outcome.code == 0
    names = {"table.md"} | {f"{stem}.{kind}" for stem in ("speedup", "budget", "acceptance", "stages") for kind in ("png", "svg")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    assert len(outcome.out.splitlines()) == len(names)


@needs_matplotlib
def test_writes_the_figure_of_peers(call: Any, tmp_path: Path) -> None:
    assert call("plot", written(tmp_path / "peers.json", make_peers()), "--out", str(tmp_path)).code == 0
    assert (tmp_path / "peers.png").exists()


def test_without_matplotlib_there_is_a_sentence_and_the_table(
    call: Any, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    outcome = call("plot", file, "--out", str(tmp_path / "figures"))
    assert outcome.code == 2
    assert "hoarfrost[plot]" in outcome.err
    assert "Traceback" not in outcome.err
    assert (tmp_path / "figures" / "table.md").exists()


class TestInto:
    def test_replaces_what_stands_between_the_markers(self, call: Any, file: str, tmp_path: Path) -> None:
        document = tmp_path / "README.md"
        document.write_text("before\n\n<!-- table -->\n\nafter\n", encoding="utf-8")
        for _ in range(2):
            assert call("plot", file, "--into", str(document)).code == 0
        text = document.read_text(encoding="utf-8")
        assert text.startswith("before\n\n<!-- table -->\n\n**Speed-up/tau at temperature 0**")
        assert text.endswith("\n<!-- /table -->\n\nafter\n")
        assert text.count("**Speed-up/tau at temperature 0**") == 1

    def test_peers_have_markers_of_their_own(self, call: Any, file: str, tmp_path: Path) -> None:
        document = tmp_path / "README.md"
        document.write_text("<!-- table -->\n<!-- peers -->\n", encoding="utf-8")
        assert call("plot", written(tmp_path / "peers.json", make_peers()), "--into", str(document)).code == 0
        assert document.read_text(encoding="utf-8").startswith("<!-- table -->\n<!-- peers -->\n\n**Decoding speed beside other engines**")

    @pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("no marker", "no line <!-- table -->")])
    def test_a_document_without_a_place(self, content: str | None, said: str, call: Any, file: str, tmp_path: Path) -> None:
        document = tmp_path / "README.md"
        if content is not None:
            document.write_text(content, encoding="utf-8")
        outcome = call("plot", file, "--into", str(document))
        assert outcome.code == 2
        assert said in outcome.err


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("{", "is not JSON"), ('{"machine": 1}', "is no result")])
def test_what_is_no_result(content: str | None, said: str, call: Any, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    outcome = call("plot", str(path))
    assert outcome.code == 2
    assert said in outcome.err


@pytest.mark.parametrize("result", [make_peers(), {**ABOUT, "evaluation": "index", **CACHE_RESULTS["index"][0]}], ids=["peers", "index"])
def test_bench_report_sends_other_results_here(result: dict[str, Any], call: Any, tmp_path: Path) -> None:
    outcome = call("bench", "report", written(tmp_path / "result.json", result))
    assert outcome.code == 2
    assert "hoarfrost plot" in outcome.err
