"""The speed benchmark of caches, on a model small enough to be drawn on the spot."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import call_command

from hoarfrost.errors import InvalidInput
from hoarfrost.evaluation.caches import speed as cache_speed
from hoarfrost.evaluation.caches.speed import SpeedSettings

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def test_every_cache_is_measured_at_every_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cache_speed.SHAPES, "qwen3-0.6b", SHAPE)
    file = tmp_path / "result.json"
    options = "--layers 2 --contexts 96,48 --caches full,exact,ice-estimate --budget 64 --steps 3 --dtype float32 --device cpu".split()
    outcome = call_command(monkeypatch, capsys, "bench", "cache", "--shape", "qwen3-0.6b", *options, "--json", str(file))
    assert outcome.code == 0, outcome.err
    assert outcome.err.splitlines() == ["context 48", "context 96"]
    assert len(re.findall(r"^ *(?:48|96) +(?:full|exact|ice-estimate) ", outcome.out, re.MULTILINE)) == 6
    result = json.loads(file.read_text())
    assert {"machine", "versions", "commit", "settings", "summary"} <= result.keys()
    assert [(record["cache"], record["context"]) for record in result["summary"]] == [
        (cache, context) for context in (48, 96) for cache in ("full", "exact", "ice-estimate")
    ]
    full, paged, estimating = result["summary"][3:]
    assert estimating["hot_bytes"] > paged["hot_bytes"], "summaries of pages lie in the fast memory"
    assert full["cold_bytes"] == full["index_bytes"] == 0 < full["hot_bytes"]
    assert paged["cold_bytes"] > 0
    assert paged["index_bytes"] > 0
    assert 0 < paged["ms_per_token"] <= paged["max_ms"]


@pytest.mark.parametrize(
    "settings",
    [{"caches": ()}, {"contexts": (0,)}, {"num_steps": 0}, {"caches": ("full", "annoy")}, {"caches": ("annoy-estimate",)}, {"budget": 30}],
)
def test_settings_that_cannot_be_measured(settings: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        SpeedSettings(**settings)
