"""The target's own way through a tree, in one native call where its choices are plain argmaxes, of logits alone or of logits with noise.

Anything else (filters, suppressed ends, processors of transformers, logits on another device) is asked for row by row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hoarfrost import kernels
from hoarfrost.engine.sequence import Sequence
from hoarfrost.sampling import not_finite
from hoarfrost.tree import DraftTree, Walk, walk


def walk_of(sequence: Sequence, tree: DraftTree, logits: Tensor, start: int, likeliest: NDArray[np.int64] | None) -> Walk:
    """Walks one tree.

    Args:
        logits: [N, V] of a packed row, in which the tree's rows begin at `start`.
        likeliest: int64 [N], the likeliest token behind every row, if somebody asked for it.
    """
    chooser, num_generated, position = sequence.chooser, len(sequence.token_ids), sequence.store.length + 1
    if likeliest is not None and chooser.is_greedy(num_generated):
        return Walk(*kernels.walk_along(tree.parents, tree.token_ids, likeliest[start : start + tree.num_rows]))
    if chooser.takes_all(num_generated) and kernels.can_read(logits):
        params = chooser.params
        walked = Walk(*kernels.walk_with_noise(tree.parents, tree.token_ids, logits, start, params.temperature, params.seed, position))
        if walked.token_ids[-1] < 0:
            raise not_finite()
        return walked
    depths = tree.depths.tolist()
    return walk(tree, lambda row: chooser.choose(logits[start + row], position + depths[row], num_generated + depths[row]))
