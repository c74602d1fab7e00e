"""Blocks start inside responses, their labels are the tokens that follow, and no label lies past the end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from training.training_models import MASK, sequence

from hoarfrost.training.anchors import draw_anchors, pack_blocks


@given(st.integers(1, 20), st.integers(2, 30), st.integers(1, 40), st.integers(0, 5))
def test_anchors_and_their_successors_belong_to_the_response(num_prompt: int, num_response: int, count: int, seed: int) -> None:
    one = sequence(num_prompt + num_response, num_prompt)
    anchors = draw_anchors(one, count, np.random.default_rng(seed))
    assert len(anchors) == min(count, num_response - 1)
    assert list(anchors) == sorted(set(anchors))
    assert all(num_prompt <= anchor < len(one.token_ids) - 1 for anchor in anchors)


def test_anchors_are_drawn_anew() -> None:
    one = sequence(60, 10)
    assert draw_anchors(one, 8, np.random.default_rng([0, 0])) != draw_anchors(one, 8, np.random.default_rng([0, 1]))


@given(st.integers(2, 9), st.integers(0, 5))
def test_blocks_against_a_plain_loop(block_size: int, seed: int) -> None:
    sequences = [sequence(12 + 7 * index, 4, seed=index) for index in range(3)]
    anchors = [draw_anchors(one, 3 + index, np.random.default_rng([seed, index])) for index, one in enumerate(sequences)]
    blocks = pack_blocks(sequences, anchors, block_size, MASK)
    row = 0
    for one, starts in zip(sequences, anchors, strict=True):
        for anchor in starts:
            assert blocks.token_ids[row].tolist() == [one.token_ids[anchor]] + [MASK] * (block_size - 1)
            assert blocks.positions[row].tolist() == list(range(anchor, anchor + block_size))
            expected = list(one.token_ids[anchor + 1 : anchor + block_size])
            assert blocks.has_label[row].tolist() == [True] * len(expected) + [False] * (block_size - 1 - len(expected))
            assert blocks.labels[row, : len(expected)].tolist() == expected
            row += 1
    assert row == len(blocks.token_ids)
    assert blocks.context_lengths == tuple(max(starts) for starts in anchors)
    assert blocks.context_positions.tolist() == [position for length in blocks.context_lengths for position in range(length)]
