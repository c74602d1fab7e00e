"""The dense store against a list of rows: whatever is appended, committed, truncated and grown, attention is exact over what remains."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import plain_attention as plain
from torch import Tensor

from hoarfrost.cache import DenseStore

NUM_LAYERS, NUM_KV_HEADS, NUM_HEADS, HEAD_DIM = 2, 2, 4, 8


class Reference:
    """Keys and values as plain lists of rows."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []  # [2, layers, Hkv, D] each

    def stacked(self, appended: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        rows = torch.stack([*self.rows, *appended], 0)[:, :, layer]
        return rows[:, 0].transpose(0, 1), rows[:, 1].transpose(0, 1)


def append(store: DenseStore, rows: Tensor) -> None:
    """Appends `rows [n, 2, layers, Hkv, D]` to every layer."""
    for layer in range(NUM_LAYERS):
        store.append(layer, rows[:, 0, layer].transpose(0, 1), rows[:, 1, layer].transpose(0, 1))


def random_rows(num_rows: int) -> Tensor:
    return torch.randn(num_rows, 2, NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_rounds_equal_reference(data: st.DataObject) -> None:
    torch.manual_seed(0)
    store = DenseStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float32, device="cpu", capacity=data.draw(st.integers(1, 8)))
    reference = Reference()
    for _ in range(data.draw(st.integers(1, 5))):
        num_rows = data.draw(st.integers(1, 12))
        rows, queries = random_rows(num_rows), torch.randn(NUM_HEADS, num_rows, HEAD_DIM)
        append(store, rows)
        kind = data.draw(st.sampled_from(["all", "causal", "tree"]))
        window = data.draw(st.sampled_from([None, 3, 10]))
        square = torch.ones(num_rows, num_rows, dtype=torch.bool)
        if kind == "causal":
            square = square.tril()
        elif kind == "tree":
            square = (torch.rand(num_rows, num_rows) < 0.5).fill_diagonal_(True)
        num_past = store.length
        mask = torch.cat([torch.ones(num_rows, num_past, dtype=torch.bool), square], 1)
        if window:
            positions = torch.arange(num_past + num_rows)
            mask &= positions[num_past:, None] - positions < window
        for layer in range(NUM_LAYERS):
            got = store.attend(layer, queries, square if kind == "tree" else kind, scale=0.4, window=window)
            keys, values = reference.stacked(rows, layer)
            torch.testing.assert_close(got.double(), plain(queries, keys, values, mask, 0.4), atol=2e-6, rtol=2e-6)
        kept = sorted(data.draw(st.sets(st.integers(0, num_rows - 1))))
        store.commit(kept)
        reference.rows += [rows[index] for index in kept]
        assert store.length == len(reference.rows)
        if data.draw(st.booleans()):
            length = data.draw(st.integers(0, store.length))
            store.truncate(length)
            del reference.rows[length:]


def test_long_chunk_behind_a_past_is_causal() -> None:
    torch.manual_seed(1)
    store = DenseStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float32, device="cpu")
    past, chunk = random_rows(30), random_rows(200)
    append(store, past)
    store.commit(range(30))
    append(store, chunk)
    queries = torch.randn(NUM_HEADS, 200, HEAD_DIM)
    mask = torch.ones(200, 230, dtype=torch.bool).tril(30)
    rows = torch.cat([past, chunk])
    expected = plain(queries, rows[:, 0, 1].transpose(0, 1), rows[:, 1, 1].transpose(0, 1), mask, 0.4)
    torch.testing.assert_close(store.attend(1, queries, "causal", scale=0.4).double(), expected, atol=2e-6, rtol=2e-6)


def test_commit_moves_nothing_but_accepted_rows() -> None:
    store = DenseStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float32, device="cpu", capacity=64)
    rows = random_rows(10)
    append(store, rows)
    pointer = store._buffer.data_ptr()
    store.commit([0, 1, 4, 7])
    assert store._buffer.data_ptr() == pointer
    assert torch.equal(store._buffer[0, 1, :, :4], rows[[0, 1, 4, 7]][:, 0, 1].transpose(0, 1))
    assert torch.equal(store._buffer[0, 1, :, 4:10], rows[4:10][:, 0, 1].transpose(0, 1)), "rows behind the commit are left alone"


def test_rows_written_into_the_lent_buffer_are_appended() -> None:
    torch.manual_seed(2)
    lent, appended = (DenseStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float32, device="cpu", capacity=4) for _ in range(2))
    queries = torch.randn(NUM_HEADS, 5, HEAD_DIM)
    for num_rows, kept in ((3, [0, 2]), (5, [1, 3, 4])):  # the second time the buffer grows
        rows = random_rows(num_rows)
        append(appended, rows)
        buffer = lent.lend(num_rows)
        buffer[:, :, :, lent.length : lent.length + num_rows] = rows.permute(1, 2, 3, 0, 4)
        for layer in range(NUM_LAYERS):
            got, wanted = (store.attend(layer, queries[:, :num_rows], "causal", scale=0.4) for store in (lent, appended))
            assert torch.equal(got, wanted)
        lent.reserve(100)  # uncommitted rows move along
        for store in (lent, appended):
            store.commit(kept)
        assert torch.equal(lent.buffer[:, :, :, : lent.length], appended.buffer[:, :, :, : appended.length])


def test_truncate_refuses_other_lengths() -> None:
    store = DenseStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.float32, device="cpu")
    append(store, random_rows(4))
    store.commit([0, 1])
    for length in (-1, 3):
        with pytest.raises(ValueError, match=f"to {length}"):
            store.truncate(length)


def test_bytes_are_those_of_the_buffer() -> None:
    store = DenseStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, dtype=torch.bfloat16, device="cpu", capacity=32)
    assert store.bytes_by_tier() == {"cpu": 2 * NUM_LAYERS * NUM_KV_HEADS * 32 * HEAD_DIM * 2}
