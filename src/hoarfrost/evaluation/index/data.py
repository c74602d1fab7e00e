"""Synthetic keys and queries on which page indexes are compared: the two kinds on which the published index was measured.

- `gaussian`: independent standard normal entries, for keys and queries: no structure at all, the worst case.
- `clustered`: 512 centres of Zipf-distributed frequency; keys follow one centre for a run of 8 to 64 rows, with noise of 0.6 per entry and
  log-normal lengths (sigma 0.25); queries are centres, as frequent as among the keys, with noise of 0.8.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hoarfrost.errors import InvalidInput

DATA = ("gaussian", "clustered")
NUM_CENTRES = 512
KEY_NOISE, QUERY_NOISE, LENGTH_SIGMA = 0.6, 0.8, 0.25


class HeadData(NamedTuple):
    """Keys of one KV head and queries for them, float32 `[N, D]` and `[Q, D]`."""

    keys: Tensor
    queries: Tensor


def make_head(data: str, num_keys: int, head_dim: int, num_queries: int, seed: int) -> HeadData:
    """One head of `gaussian` or `clustered` data; the same for the same arguments."""
    if data not in DATA:
        raise InvalidInput(f"There is no data {data!r}; choose of {', '.join(DATA)}.")
    random = np.random.default_rng(seed)
    if data == "gaussian":
        keys, queries = (random.standard_normal((count, head_dim), np.float32) for count in (num_keys, num_queries))
        return HeadData(torch.from_numpy(keys), torch.from_numpy(queries))
    centres = random.standard_normal((NUM_CENTRES, head_dim), np.float32)
    frequencies = 1 / np.arange(1, NUM_CENTRES + 1)
    frequencies /= frequencies.sum()
    lengths = random.integers(8, 65, num_keys // 8 + 1)
    followed = np.repeat(random.choice(NUM_CENTRES, len(lengths), p=frequencies), lengths)[:num_keys]
    keys = centres[followed] + np.float32(KEY_NOISE) * random.standard_normal((num_keys, head_dim), np.float32)
    keys *= np.exp(LENGTH_SIGMA * random.standard_normal((num_keys, 1))).astype(np.float32)
    asked = centres[random.choice(NUM_CENTRES, num_queries, p=frequencies)]
    queries = asked + np.float32(QUERY_NOISE) * random.standard_normal((num_queries, head_dim), np.float32)
    return HeadData(torch.from_numpy(keys), torch.from_numpy(queries))
