"""Attention over pages: native and plain alike equal softmax over one matrix of all rows that are seen, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import _native
from hoarfrost.cache import paged_attention
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels import instruction_sets, page_attention
from hoarfrost.kernels.page_attention import HiddenRows, PageLists, Summaries

SCALE = 0.3
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}


@dataclass(frozen=True)
class Case:
    """Random queries, local rows and pages; `visible` is a tree's mask or None, `hidden` what some rows do not see of the past."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    pool: Tensor
    pages: PageLists
    visible: Tensor | None
    summaries: Summaries | None
    hidden: HiddenRows | None = None

    def expected(self) -> Tensor:
        """Row by row and head by head: everything that is seen in one list, softmax over it."""
        num_heads, num_rows, head_dim = self.queries.shape
        num_kv_heads, num_local, _ = self.keys.shape
        out = torch.empty(num_rows, num_heads, head_dim, dtype=torch.float64)
        for head in range(num_heads):
            kv_head = head * num_kv_heads // num_heads
            for row in range(num_rows):
                num_past = num_local - num_rows
                past = [place for place in range(num_past) if not self.hides(row, place)]
                seen = [*past, *(num_past + other for other in range(num_rows) if self.sees(row, other))]
                keys, values = [self.keys[kv_head, seen].double()], [self.values[kv_head, seen].double()]
                index = min(row, self.pages.slots.shape[1] - 1)
                firsts = np.zeros_like(self.pages.counts) if self.pages.places is None else self.pages.places
                lists = (array[kv_head, index] for array in (self.pages.slots, firsts, self.pages.counts))
                for slot, first, count in zip(*lists, strict=True):
                    if count > 0:
                        keys.append(self.pool[slot, 0, first : first + count].double())
                        values.append(self.pool[slot, 1, first : first + count].double())
                scores = torch.cat(keys) @ self.queries[head, row].double() * SCALE
                if self.summaries is not None:
                    keys_of_means = self.summaries.mean_keys[kv_head].double() @ self.queries[head, row].double() * SCALE
                    scores = torch.cat([scores, keys_of_means + self.summaries.log_counts[kv_head, index].double()])
                    values.append(self.summaries.mean_values[kv_head].double())
                out[row, head] = torch.softmax(scores, 0) @ torch.cat(values)
        return out

    def hides(self, row: int, place: int) -> bool:
        return self.hidden is not None and self.hidden.first <= place < self.hidden.first + self.hidden.counts[row]

    def sees(self, row: int, other: int) -> bool:
        return bool(self.visible[row, other]) if self.visible is not None else other <= row


def make_case(data: st.DataObject, dtype: torch.dtype) -> Case:
    draw = data.draw
    torch.manual_seed(draw(st.integers(0, 1000)))
    num_kv_heads, group = draw(st.sampled_from([(1, 1), (2, 2), (2, 3), (1, 8)]))
    head_dim = draw(st.sampled_from([4, 16, 24, 64]))
    num_rows = draw(st.integers(1, 9))
    num_local = num_rows + draw(st.sampled_from([0, 1, 30, 63, 64, 65, 130]))
    page_size, num_pages = draw(st.sampled_from([1, 5, 16, 70])), draw(st.integers(0, 7))
    num_lists = draw(st.sampled_from([1, num_rows]))
    # As the model hands them out: queries strided by heads, local rows in a buffer with room behind them.
    queries = torch.randn(num_rows, num_kv_heads * group, head_dim).to(dtype).transpose(0, 1)
    keys, values = (torch.randn(num_kv_heads, num_local + 3, head_dim).to(dtype)[:, :num_local] for _ in range(2))
    pool = torch.randn(11, 2, page_size, head_dim).to(dtype)
    shape = (num_kv_heads, num_lists, num_pages)
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    places = generator.integers(0, page_size, shape).astype(np.int32) if draw(st.booleans()) else None
    counts = generator.integers(0, page_size + 1 if places is None else 2, shape).astype(np.int32)
    slots = np.where(counts > 0, generator.integers(0, 11, shape), -1)
    for slot in set(range(11)) - set(slots[counts > 0].tolist()):
        pool[slot] = float("nan")  # never looked at
    square = (torch.rand(num_rows, num_rows) < 0.5).fill_diagonal_(True) if draw(st.booleans()) else None
    summaries = make_summaries(num_kv_heads, num_lists, draw(st.integers(1, 70)), head_dim) if draw(st.booleans()) else None
    return Case(
        queries, keys, values, pool, PageLists(slots, counts, places), square, summaries, make_hidden(data, num_local - num_rows, num_rows)
    )


def make_hidden(data: st.DataObject, num_past: int, num_rows: int) -> HiddenRows | None:
    if not num_past or data.draw(st.booleans()):
        return None
    first = data.draw(st.integers(0, num_past - 1))
    return HiddenRows(first, np.random.default_rng(first).integers(0, num_past - first + 1, num_rows).astype(np.int32))


def make_summaries(num_kv_heads: int, num_lists: int, num_pages: int, head_dim: int) -> Summaries:
    log_counts = torch.randint(1, 16, (num_kv_heads, num_lists, num_pages)).float().log()
    log_counts[torch.rand(log_counts.shape) < 0.3] = float("-inf")
    return Summaries(torch.randn(num_kv_heads, num_pages, head_dim), torch.randn(num_kv_heads, num_pages, head_dim), log_counts)


def attend(way: str, case: Case) -> Tensor:
    function = page_attention.attend_pages if way == "native" else paged_attention.attend_pages_plain
    return function(
        case.queries, case.keys, case.values, case.pool, case.pages,
        visible=case.visible, scale=SCALE, hidden=case.hidden, summaries=case.summaries,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("way", "dtype"),
    [("native", torch.float32), ("native", torch.bfloat16), ("plain", torch.float32), ("plain", torch.bfloat16), ("plain", torch.float64)],
)
@settings(max_examples=30)
@given(data=st.data())
def test_both_ways_equal_one_softmax(way: str, dtype: torch.dtype, data: st.DataObject) -> None:
    case = make_case(data, dtype)
    got = attend(way, case)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), case.expected(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@settings(max_examples=20)
@given(data=st.data())
def test_streaming_over_all_pages_is_the_same(data: st.DataObject) -> None:
    case = make_case(data, torch.float64)
    assume(case.pages.places is None)
    case = Case(
        case.queries, case.keys, case.values, case.pool, PageLists(case.pages.slots[:, :1], case.pages.counts[:, :1]), case.visible, None
    )
    assert_streams(case)


@pytest.mark.parametrize("full", [True, False])
def test_streaming_in_many_blocks(full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_attention, "BLOCK_PAGES", 3)
    monkeypatch.setattr(paged_attention, "BLOCK_ROWS", 4)
    torch.manual_seed(0)
    counts = np.full((2, 1, 8), 5, np.int32) if full else np.arange(16, dtype=np.int32).reshape(2, 1, 8) % 6
    pages = PageLists(np.arange(16).reshape(2, 1, 8), counts)
    rows = [torch.randn(heads, num, 16, dtype=torch.float64) for heads, num in ((4, 10), (2, 17), (2, 17))]
    assert_streams(Case(rows[0], rows[1], rows[2], torch.randn(16, 2, 5, 16, dtype=torch.float64), pages, None, None))


def assert_streams(case: Case) -> None:
    got = paged_attention.attend_everything(
        case.queries, case.keys, case.values, case.pool.nan_to_num(), case.pages, visible=case.visible, scale=SCALE
    )
    torch.testing.assert_close(got, case.expected(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_give_the_same_bits_and_instruction_sets_the_same_numbers(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    queries, rows, pool = (torch.randn(shape).to(dtype) for shape in ((8, 5, 64), (4, 80, 64), (40, 2, 16, 64)))
    slots = np.random.default_rng(0).integers(0, 40, (4, 1, 9))
    counts = np.full(slots.shape, 13, np.int32)
    results: list[Tensor] = []
    for name in instruction_sets():
        alone, shared = (run_kernel(queries, rows, pool, slots, counts, num_threads, name) for num_threads in (1, 3))
        assert torch.equal(alone, shared)
        results.append(alone)
    for result in results:
        torch.testing.assert_close(result, results[0], atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def run_kernel(
    queries: Tensor, rows: Tensor, pool: Tensor, slots: NDArray[np.int64], counts: NDArray[np.int32], num_threads: int, name: str
) -> Tensor:
    out = torch.empty(queries.shape[1], queries.shape[0], queries.shape[2], dtype=queries.dtype)
    arrays = [page_attention._array(tensor) for tensor in (queries, rows, rows, pool)]
    kernel = _native.attend_pages if queries.dtype == torch.float32 else _native.attend_pages_bfloat16
    kernel(*arrays, slots, counts, None, None, 0, None, None, None, None, SCALE, page_attention._array(out), num_threads, name)
    return out


def test_the_kernel_reads_no_page_outside_its_pool() -> None:
    queries, rows, pool = torch.randn(2, 1, 16), torch.randn(2, 3, 16), torch.randn(4, 2, 5, 16)
    for slot, count, place, message in (
        (4, 5, 0, "outside the pool"),
        (-1, 5, 0, "outside the pool"),
        (0, 6, 0, "more rows"),
        (0, 1, 5, "more rows"),
        (0, 1, -1, "more rows"),
    ):
        lists = PageLists(np.full((2, 1, 1), slot), *(np.full((2, 1, 1), number, np.int32) for number in (count, place)))
        with pytest.raises(InvalidInput, match=message):
            page_attention.attend_pages(queries, rows, rows, pool, lists, visible=None, scale=1.0)
    with pytest.raises(InvalidInput, match="float64"):
        page_attention.attend_pages(queries.double(), rows, rows, pool, lists, visible=None, scale=1.0)
