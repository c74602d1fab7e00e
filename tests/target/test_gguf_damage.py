"""Broken and hostile GGUF files: whatever stands in one, it is read, or refused with a sentence that names it, at once."""

from __future__ import annotations

import contextlib
import struct
import time
from pathlib import Path

import pytest
import torch
from gguf_files import random_model, write_model
from hypothesis import given, settings
from hypothesis import strategies as st

from hoarfrost.errors import InvalidInput
from hoarfrost.target.gguf import open_gguf
from hoarfrost.target.gguf.header import read_header

HUGE = 2**64 - 1
NUM_TENSORS_AT, NUM_ENTRIES_AT = 8, 16


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of one narrow layer: most of it is head."""
    model = random_model("llama", hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    return write_model(tmp_path_factory.mktemp("gguf") / "model.gguf", model, lambda _: "Q4_0").read_bytes()


def head_length(data: bytes, path: Path) -> int:
    path.write_bytes(data)
    return min(place.start for place in read_header(path).tensors.values())


def read_all(path: Path) -> None:
    source = open_gguf(path)
    source.tokenizer()
    source.load(torch.float32, torch.device("cpu"), keep_blocks=True, attention="sdpa")


def refusal(data: bytes, path: Path) -> str:
    """The sentence with which the file is refused, within a second."""
    path.write_bytes(data)
    began = time.process_time()
    with pytest.raises(InvalidInput) as refused:
        read_all(path)
    assert time.process_time() - began < 1
    message = str(refused.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def put(data: bytes, at: int, form: str, *values: int) -> bytes:
    packed = struct.pack(form, *values)
    return data[:at] + packed + data[at + len(packed) :]


def after(data: bytes, name: str) -> int:
    """Where the name of an entry or a tensor ends."""
    return data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)


def test_whole_file_is_read(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(whole)
    read_all(path)


def test_no_gguf_file_at_all(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    assert "is no GGUF file" in refusal(b"", path)
    assert "is no GGUF file: it begins with b'GGML'" in refusal(b"GGML" + whole[4:], path)
    assert "unknown version (1)" in refusal(put(whole, 4, "<I", 1), path)
    assert "big-endian" in refusal(put(whole, 4, ">I", 3), path)
    path.unlink()
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        open_gguf(path)


def test_truncated_anywhere(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    for length in (*range(4, head_length(whole, path), 97), len(whole) // 2, len(whole) - 1):
        assert "truncated" in refusal(whole[:length], path)


@pytest.mark.parametrize("value", [HUGE, 2**63, 2**40, 2**20])
def test_counts_and_lengths_beyond_the_file(whole: bytes, value: int, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tokens = after(whole, "tokenizer.ggml.tokens") + 8
    places = [NUM_TENSORS_AT, NUM_ENTRIES_AT, NUM_ENTRIES_AT + 8, tokens, tokens + 8, after(whole, "tokenizer.chat_template") + 4]
    for at in places:
        assert "is damaged" in (said := refusal(put(whole, at, "<Q", value), path)) or "truncated or damaged" in said


@pytest.mark.parametrize(
    ("at", "form", "value", "said"),
    [
        (0, "<I", 5, "number of dimensions of blk.0.attn_q.weight is 5"),
        (0, "<I", 2**32 - 1, "number of dimensions"),
        (4, "<Q", HUGE, "impossible shape"),
        (4, "<Q", 2**63, "runs past the end"),
        (12, "<Q", 2**62, "runs past the end"),
        (12, "<Q", 0, "impossible shape"),
        (4, "<Q", 33, "impossible shape"),
        (12, "<Q", 32, "has the shape (32, 64), and the metadata ask for (64, 64)"),
        (20, "<I", 99, "unknown type 99"),
        (20, "<I", 20, "is of type IQ4_NL"),
        (24, "<Q", 1, "no multiple of 32"),
        (24, "<Q", 2**63, "runs past the end"),
    ],
)
def test_tensors_that_cannot_be(whole: bytes, at: int, form: str, value: int, said: str, tmp_path: Path) -> None:
    name = "blk.0.attn_q.weight"
    assert said in refusal(put(whole, after(whole, name) + at, form, value), tmp_path / "model.gguf")


def test_names_that_stand_twice(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    assert "'blk.0.attn_q.weight' stands in it twice" in refusal(whole.replace(b"blk.0.attn_k.weight", b"blk.0.attn_q.weight"), path)
    twice = whole.replace(b"llama.context_length", b"general.architecture")
    assert "the metadata entry 'general.architecture' stands in it twice" in refusal(twice, path)


@settings(max_examples=80)
@given(data=st.data())
def test_damaged_bytes_give_a_sentence_or_a_model(whole: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "model.gguf"
    end = head_length(whole, path)
    damaged = bytearray(whole)
    for at, value in data.draw(st.lists(st.tuples(st.integers(4, end - 1), st.integers(0, 255)), min_size=1, max_size=4)):
        damaged[at] = value
    path.write_bytes(damaged)
    with contextlib.suppress(InvalidInput):
        read_all(path)
