"""The benchmark of the indexes on few keys: its shape, and the order that no machine should change."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hoarfrost.cli import app
from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.index.benchmark import IndexSettings, make_head, run_index_benchmark

COLUMNS = {"index", "data", "keys", "build_ms_per_head", "query_ms", "recall", "mass", "bytes_per_key"}


def test_summary() -> None:
    threads = torch.get_num_threads()
    result = run_index_benchmark(IndexSettings(keys=(2048,), dim=32, heads=2, queries=16, repeats=2))
    assert torch.get_num_threads() == threads
    assert {"machine", "versions", "commit", "summary"} <= result.keys()
    json.dumps(result)
    rows = {(row["index"], row["data"]): row for row in result["summary"]}
    assert len(rows) == len(result["summary"]) == 8
    for row in rows.values():
        assert row.keys() >= COLUMNS
        assert 0 <= row["recall"] <= 1
        assert 0 <= row["mass"] <= row["token_oracle_mass"] + 1e-9
        assert row["build_ms_per_head"] > 0 < row["query_ms"]
    clustered = {index: rows[index, "clustered"] for index in ("ice", "dci", "quest")}
    assert clustered["ice"]["mass"] > max(clustered["dci"]["mass"], clustered["quest"]["mass"])
    assert clustered["ice"]["rows_per_page"] > 15.5


def test_data_is_the_same_for_the_same_seed_and_looks_as_described() -> None:
    first, again, other = (make_head("clustered", 3000, 16, 5, seed) for seed in (0, 0, 1))
    assert torch.equal(first.keys, again.keys)
    assert not torch.equal(first.keys, other.keys)
    assert first.keys.shape == (3000, 16)
    assert first.queries.shape == (5, 16)
    steps = (first.keys[1:] - first.keys[:-1]).norm(dim=1).numpy()
    assert np.median(steps) < 0.8 * (other.keys[:2999] - first.keys[:-1]).norm(dim=1).median(), "neighbours are alike"


def test_bad_settings() -> None:
    for settings in ({"indexes": ("best",)}, {"data": ("real",)}, {"keys": ()}, {"keys": (0,)}, {"queries": 1}):
        with pytest.raises(InvalidInput):
            IndexSettings(**settings)
    with pytest.raises(InvalidInput, match="gaussian"):
        make_head("real", 10, 8, 1, 0)


def test_command(tmp_path: Path) -> None:
    arguments = [
        "bench",
        "index",
        "--keys",
        "512",
        "--dim",
        "16",
        "--data",
        "gaussian",
        "--indexes",
        "ice,dci",
        "--repeats",
        "1",
        "--queries",
        "4",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    assert "ice" in done.stdout
    assert len(json.loads((tmp_path / "out.json").read_text())["summary"]) == 2
