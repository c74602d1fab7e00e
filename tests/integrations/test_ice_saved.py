"""Contexts that are read once, saved, and asked again; files that do not fit."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import save_random_model, tiny_config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from hoarfrost.cache import ice_file, page_pool
from hoarfrost.cache.ice_config import IceConfig
from hoarfrost.cache.ice_file import save_context
from hoarfrost.errors import InvalidInput
from hoarfrost.integrations.ice import IceCache, ice_attention

SMALL = IceConfig(budget=40, num_sinks=2, window=16, page_size=4)
GREEDY = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
DOCUMENT = torch.randint(5, 250, (1, 120), generator=torch.Generator().manual_seed(0))
QUESTIONS = [torch.randint(5, 250, (1, 7), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]


@pytest.fixture
def model(model_folder: Callable[[str], str]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(model_folder("qwen3"), dtype=torch.float32).eval()


def read(model: PreTrainedModel) -> IceCache:
    cache = IceCache(model.config, SMALL)
    with ice_attention(model), torch.no_grad():
        model(DOCUMENT, past_key_values=cache)
    return cache


def answer(model: PreTrainedModel, cache: IceCache, question: torch.Tensor) -> torch.Tensor:
    with ice_attention(model):
        return model.generate(torch.cat([DOCUMENT, question], dim=1), **GREEDY, past_key_values=cache)


def test_a_saved_context_answers_as_the_one_that_was_read(model: PreTrainedModel, tmp_path: Path) -> None:
    read(model).save(tmp_path / "book", DOCUMENT)
    for question in QUESTIONS:
        loaded, ids = IceCache.load(tmp_path / "book", model, SMALL)
        assert torch.equal(ids, DOCUMENT)
        assert torch.equal(answer(model, loaded, question), answer(model, read(model), question))


def test_rows_are_saved_in_order_whatever_pages_they_lie_in(model: PreTrainedModel, tmp_path: Path) -> None:
    cache = read(model)
    fresh = [cache.stores[0].rows_in_order(layer) for layer in range(4)]
    cache.stores[0].start_decoding()
    assert cache.stores[0]._indexes
    assert all(torch.equal(cache.stores[0].rows_in_order(layer), fresh[layer]) for layer in range(4))
    cache.save(tmp_path / "book", DOCUMENT)
    loaded, _ = IceCache.load(tmp_path / "book", model, budget=64)
    assert all(torch.equal(loaded.stores[0].rows_in_order(layer), fresh[layer]) for layer in range(4))


def test_files_that_do_not_fit_are_refused(model: PreTrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "book"
    read(model).save(path, DOCUMENT)
    other = AutoModelForCausalLM.from_pretrained(save_random_model(tmp_path / "other", tiny_config("qwen3"), seed=5), dtype=torch.float32)
    with pytest.raises(InvalidInput, match="saved by another model"):
        IceCache.load(path, other)
    with pytest.raises(InvalidInput, match=r"torch.bfloat16\. Load the model"):
        IceCache.load(path, other.to(torch.bfloat16))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:4], b""):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="cut off"):
            IceCache.load(path, model)
    path.write_bytes(whole.replace(b'"version": "2"', b'"version": "9"'))
    with pytest.raises(InvalidInput, match="version 9"):
        IceCache.load(path, model)
    header = json.dumps({"__metadata__": {}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InvalidInput, match="no saved context"):
        IceCache.load(path, model)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_noticed(data: st.DataObject, model: PreTrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "book"
    read(model).save(path, DOCUMENT)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(InvalidInput):
        IceCache.load(path, model)


def without_tail(tensors: dict[str, torch.Tensor], entries: dict[str, str]) -> None:
    tensors["rows.2"] = tensors["rows.2"][:, :, :60].contiguous()


def with_nan(tensors: dict[str, torch.Tensor], entries: dict[str, str]) -> None:
    tensors["rows.2"][:, :, 80:90] = float("nan")


@pytest.mark.parametrize(
    "damage",
    [
        without_tail,
        with_nan,
        lambda tensors, entries: tensors.pop("rows.2"),
        lambda tensors, entries: tensors.pop("sha256"),
        lambda tensors, entries: tensors.update(token_ids=tensors["token_ids"][:50]),
        lambda tensors, entries: entries.pop("num_layers"),
    ],
    ids=["fewer rows", "NaN", "a layer", "the checksum", "fewer tokens", "an entry"],
)
def test_what_was_written_by_something_else_is_damaged(
    damage: Callable[[dict[str, torch.Tensor], dict[str, str]], None], model: PreTrainedModel, tmp_path: Path
) -> None:
    path = tmp_path / "book"
    read(model).save(path, DOCUMENT)
    with safe_open(path, "pt") as file:
        entries = file.metadata()
    tensors = load_file(path)
    damage(tensors, entries)
    save_file(tensors, path, entries)
    with pytest.raises(InvalidInput, match=r"is damaged: .*; save the context again"):
        IceCache.load(path, model)


def test_a_full_disk_while_loading_is_a_sentence(model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stays as it is, and no page file is left behind."""
    read(model).save(tmp_path / "book", DOCUMENT)
    before = (tmp_path / "book").read_bytes()
    (tmp_path / "cold").mkdir()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(page_pool.os, "posix_fallocate", full)
        with pytest.raises(InvalidInput, match=r"could not grow .*No space left on device; free some space"):
            IceCache.load(tmp_path / "book", model, replace(SMALL, cold_tier=str(tmp_path / "cold")))
    assert (tmp_path / "book").read_bytes() == before
    gc.collect()
    assert not list((tmp_path / "cold").iterdir())
    loaded, _ = IceCache.load(tmp_path / "book", model, replace(SMALL, cold_tier=str(tmp_path / "cold")))
    assert torch.equal(answer(model, loaded, QUESTIONS[0]), answer(model, read(model), QUESTIONS[0]))


def test_saving_leaves_nothing_half_written(model: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = read(model)
    cache.save(tmp_path / "book", DOCUMENT)
    before = (tmp_path / "book").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ice_file, "_write_tensor", full)
    with pytest.raises(InvalidInput, match="No space left on device; free some space"):
        cache.save(tmp_path / "book", DOCUMENT)
    assert (tmp_path / "book").read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["book"]
    with pytest.raises(InvalidInput, match="holds 120 rows and 7 token ids"):
        save_context(tmp_path / "book", cache.stores[0], QUESTIONS[0][0].tolist())
