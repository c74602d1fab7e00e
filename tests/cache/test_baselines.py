"""Baselines hide what their method would not read, and nothing else: exact while the prompt is read, exact where the budget covers all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import plain_attention
from torch import Tensor

from hoarfrost.cache.baselines import OracleSelection, SelectingStore, Selection, SnapKVSelection, WindowSelection
from hoarfrost.errors import InvalidInput

NUM_LAYERS, NUM_KV_HEADS, NUM_HEADS, HEAD_DIM, SCALE = 2, 2, 6, 8, 0.5
SELECTIONS: dict[str, Callable[[int], Selection]] = {
    "window": lambda budget: WindowSelection(budget, num_sinks=2),
    "snapkv": lambda budget: SnapKVSelection(budget, window=4, kernel_size=3),
    "oracle": OracleSelection,
}


class Told:
    """A store together with all the rows that it was told, for the plain twin."""

    def __init__(self, selection: Selection, seed: int = 0) -> None:
        self.store = SelectingStore(NUM_LAYERS, NUM_KV_HEADS, HEAD_DIM, selection, dtype=torch.float32, device="cpu")
        self.random = torch.Generator().manual_seed(seed)
        self.keys, self.values = (torch.empty(NUM_LAYERS, NUM_KV_HEADS, 0, HEAD_DIM) for _ in range(2))
        self.queries: Tensor = torch.empty(0)

    def add(self, num_rows: int, visible: Tensor | str = "causal", keep: list[int] | None = None) -> list[Tensor]:
        """Appends, attends and commits; returns the outputs per layer. `queries` of the last layer are kept."""
        outputs = []
        new = [torch.randn(2, NUM_KV_HEADS, num_rows, HEAD_DIM, generator=self.random) for _ in range(NUM_LAYERS)]
        for layer, (keys, values) in enumerate(new):
            self.queries = torch.randn(NUM_HEADS, num_rows, HEAD_DIM, generator=self.random)
            self.store.append(layer, keys, values)
            outputs.append(self.store.attend(layer, self.queries, visible, scale=SCALE))  # type: ignore[arg-type]
        kept = list(range(num_rows)) if keep is None else keep
        self.keys = torch.cat([self.keys, torch.stack([one[0] for one in new])[:, :, kept]], 2)
        self.values = torch.cat([self.values, torch.stack([one[1] for one in new])[:, :, kept]], 2)
        self.store.commit(kept)
        return outputs

    def plain(self, seen: Tensor | None = None) -> Tensor:
        """The last layer's attention of the rows added last, all of them kept, over the `seen [Hkv, T]` committed rows before them."""
        keys, values = self.keys[-1], self.values[-1]
        num_rows, num_keys = self.queries.shape[1], keys.shape[1]
        outputs = []
        for head in range(NUM_HEADS):
            kv_head = head // (NUM_HEADS // NUM_KV_HEADS)
            mask = torch.ones(num_rows, num_keys, dtype=torch.bool).tril(num_keys - num_rows)
            if seen is not None:
                mask[:, : num_keys - num_rows] = seen[kv_head]
            outputs.append(plain_attention(self.queries[head][None], keys[kv_head][None], values[kv_head][None], mask, SCALE))
        return torch.cat(outputs, 1)


@pytest.mark.parametrize("name", SELECTIONS)
@given(chunks=st.lists(st.integers(1, 9), min_size=1, max_size=4), rows=st.integers(1, 5))
def test_the_prompt_and_a_budget_of_everything_are_exact(name: str, chunks: list[int], rows: int) -> None:
    told = Told(SELECTIONS[name](100))
    for chunk in chunks:
        output = told.add(chunk)[-1]
        torch.testing.assert_close(output.double(), told.plain(), atol=1e-5, rtol=1e-5)
    told.store.start_decoding()
    for num_rows in (1, rows):
        output = told.add(num_rows)[-1]
        torch.testing.assert_close(output.double(), told.plain(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", SELECTIONS)
@given(prompt=st.integers(1, 40), budget=st.integers(5, 20))
def test_no_head_sees_more_than_the_budget(name: str, prompt: int, budget: int) -> None:
    told = Told(SELECTIONS[name](budget))
    told.add(prompt)
    told.store.start_decoding()
    for num_rows in (1, 3, 1, 1):
        before = told.store.length
        told.add(num_rows)
        seen = told.store.selected_rows(NUM_LAYERS - 1)
        assert seen.shape[0] == NUM_KV_HEADS
        assert seen.shape[2] == before
        assert bool((seen.sum(-1) <= budget).all())
        assert bool((seen.sum(-1) >= min(budget, before) - (4 if name == "snapkv" else 0)).all())


def test_the_window_is_the_sinks_and_the_recent_rows() -> None:
    told = Told(WindowSelection(6, num_sinks=2))
    told.add(20)
    told.store.start_decoding()
    output = told.add(1)[-1]
    seen = torch.zeros(NUM_KV_HEADS, 20, dtype=torch.bool)
    seen[:, [0, 1, 16, 17, 18, 19]] = True
    assert torch.equal(told.store.selected_rows(1)[:, 0], seen)
    torch.testing.assert_close(output.double(), told.plain(seen), atol=1e-5, rtol=1e-5)
    told.add(1)
    assert torch.equal(told.store.selected_rows(1)[0, 0].nonzero()[:, 0], torch.tensor([0, 1, 17, 18, 19, 20]))


def test_snapkv_keeps_what_the_last_queries_voted_for_and_its_neighbours() -> None:
    selection = SnapKVSelection(4 + 3, window=4, kernel_size=3)
    probabilities = torch.zeros(1, 2, 4, 20)
    probabilities[0, 0, 1, 7] = probabilities[0, 1, 2, 7] = 0.4
    probabilities[0, 0, 0, 12] = 0.5
    selection.observe(0, probabilities)
    seen = selection.choose(0, torch.zeros(1, 2, 1, 22))
    assert seen[0, 0].nonzero()[:, 0].tolist() == [6, 7, 8, 18, 19, 20, 21], (
        "the two queries of a group outvote the one, whose max is higher"
    )


def test_snapkv_observes_the_last_queries_whatever_the_chunks() -> None:
    kept = []
    for chunks in ([30], [27, 2, 1], [10, 10, 10]):
        told = Told(SnapKVSelection(10, window=4, kernel_size=3))
        torch.manual_seed(3)
        rows = torch.randn(2, NUM_KV_HEADS, 30, HEAD_DIM)
        queries = torch.randn(NUM_HEADS, 30, HEAD_DIM)
        for chunk in torch.arange(30).split(chunks):
            for layer in range(NUM_LAYERS):
                told.store.append(layer, rows[0][:, chunk], rows[1][:, chunk])
                told.store.attend(layer, queries[:, chunk], "causal", scale=SCALE)
            told.store.commit(range(len(chunk)))
        told.store.start_decoding()
        told.add(1)
        kept.append(told.store.selected_rows(0))
    assert torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])


def test_the_oracle_captures_more_than_any_other_rows() -> None:
    told = Told(OracleSelection(8))
    told.add(40)
    told.store.start_decoding()
    told.add(1)
    scores = (told.queries.view(NUM_KV_HEADS, -1, HEAD_DIM) @ told.keys[-1].transpose(1, 2) * SCALE).softmax(-1)
    mass = scores.sum(1)[:, :40]
    assert torch.equal(told.store.selected_rows(1)[:, 0], mass >= mass.topk(8).values[:, -1:])


@pytest.mark.parametrize("name", SELECTIONS)
def test_tree_rows_see_each_other_as_the_tree_says_and_the_accepted_ones_stay(name: str) -> None:
    told = Told(SELECTIONS[name](9))
    told.add(25)
    told.store.start_decoding()
    visible = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    told.add(3, visible, keep=[0, 2])
    assert told.store.length == 27
    output = told.add(1)[-1]
    torch.testing.assert_close(output.double(), told.plain(told.store.selected_rows(1)[:, 0]), atol=1e-5, rtol=1e-5)


def test_forgetting_rows_is_possible_at_any_time() -> None:
    told = Told(SELECTIONS["snapkv"](8))
    told.add(30)
    told.store.start_decoding()
    told.add(1)
    told.store.truncate(20)
    told.keys, told.values = told.keys[:, :, :20], told.values[:, :, :20]
    output = told.add(1)[-1]
    torch.testing.assert_close(output.double(), told.plain(told.store.selected_rows(1)[:, 0]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WindowSelection(4), "budget of 4 rows leaves no window"),
        (lambda: SnapKVSelection(32), "budget of 32 rows leaves SnapKV nothing"),
        (lambda: SnapKVSelection(64, kernel_size=4), "4 rows wide"),
        (lambda: OracleSelection(0), "budget is 0"),
    ],
)
def test_budgets_that_cannot_be(make: Callable[[], Selection], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        make()
