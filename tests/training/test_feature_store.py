"""Features kept on disk are those of the target rounded to bfloat16, found again by any run over the same sequences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training.training_models import TAPS, sequence, target

from hoarfrost.training import feature_store
from hoarfrost.training.feature_store import FeatureStore, digest_of_weights
from hoarfrost.training.features import tapped_features

TOKEN_IDS = sequence(9, 3).token_ids


def no_more(*_: object) -> torch.Tensor:
    raise AssertionError("features that are there were made again")


def test_features_are_kept_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = target()
    first = FeatureStore(frozen, (0, 2), tmp_path, 10**6)
    assert not first.has(TOKEN_IDS)
    made = first.features(TOKEN_IDS)
    assert torch.equal(made, tapped_features(frozen, [TOKEN_IDS], (0, 2))[0].bfloat16().float())
    assert first.has(TOKEN_IDS)
    assert not first.has(TOKEN_IDS[:-1])
    monkeypatch.setattr(feature_store, "tapped_features", no_more)
    assert torch.equal(first.features(TOKEN_IDS), made)
    width = frozen.hidden_size
    assert torch.equal(FeatureStore(frozen, (2,), tmp_path, 10**6).features(TOKEN_IDS), made[:, width:]), "fewer taps are found there too"
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"], "no temporary file is left"


def test_a_tap_that_is_missing_is_made(tmp_path: Path) -> None:
    frozen = target()
    FeatureStore(frozen, (0,), tmp_path, 10**6).features(TOKEN_IDS)
    more = FeatureStore(frozen, (0, 1), tmp_path, 10**6)
    assert not more.has(TOKEN_IDS)
    assert torch.equal(more.features(TOKEN_IDS), tapped_features(frozen, [TOKEN_IDS], (0, 1))[0].bfloat16().float())
    assert more.has(TOKEN_IDS)


def test_other_weights_have_other_features(tmp_path: Path) -> None:
    frozen, other = target(), target()
    with torch.no_grad():
        other.model.base_model.layers[1].mlp.down_proj.weight.add_(0.1)
    assert digest_of_weights(frozen) == digest_of_weights(target()) != digest_of_weights(other)
    FeatureStore(frozen, TAPS, tmp_path, 10**6).features(TOKEN_IDS)
    assert not FeatureStore(other, TAPS, tmp_path, 10**6).has(TOKEN_IDS)


def test_a_damaged_file_is_made_again_and_a_full_store_keeps_nothing(tmp_path: Path) -> None:
    store = FeatureStore(target(), TAPS, tmp_path, 10**6)
    made = store.features(TOKEN_IDS)
    store.path_of(TOKEN_IDS).write_bytes(b"not features")
    assert torch.equal(store.features(TOKEN_IDS), made)
    full = FeatureStore(target(), TAPS, tmp_path / "full", 10)
    assert torch.equal(full.features(TOKEN_IDS), made)
    assert not (tmp_path / "full").exists()
