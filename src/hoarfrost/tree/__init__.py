"""Draft trees: pure functions and values, knowing no model.

`Marginals` or `Conditionals` are what a drafter guesses. `build_trees` makes the likeliest continuations of them a `DraftTree`, as
published; `grow_trees` does so for `Candidates` that were coupled, calibrated or mixed with other sources, and `allocate` says how much of
the trees is worth verifying, within the limits of a `TreeConfig`. `walk` follows the target's choices down a tree.
"""

from hoarfrost.tree.allocation import Allocation, allocate
from hoarfrost.tree.build import GrownTree, build_trees, grow_trees
from hoarfrost.tree.calibration import Calibration, judge
from hoarfrost.tree.candidates import Candidates, candidates_of, weighed
from hoarfrost.tree.config import MAX_BUDGET, TreeConfig
from hoarfrost.tree.draft_tree import DraftTree
from hoarfrost.tree.marginals import Marginals, top_of
from hoarfrost.tree.transitions import Conditionals, Selector, Transitions
from hoarfrost.tree.walk import Walk, walk

__all__ = [
    "MAX_BUDGET",
    "Allocation",
    "Calibration",
    "Candidates",
    "Conditionals",
    "DraftTree",
    "GrownTree",
    "Marginals",
    "Selector",
    "Transitions",
    "TreeConfig",
    "Walk",
    "allocate",
    "build_trees",
    "candidates_of",
    "grow_trees",
    "judge",
    "top_of",
    "walk",
    "weighed",
]
