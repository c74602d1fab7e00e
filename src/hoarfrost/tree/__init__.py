"""Draft trees: pure functions and values, knowing no model.

`Marginals` or `Conditionals` are what a drafter guesses. `build_trees` makes the likeliest continuations of them a `DraftTree`, as
published; `grow_trees` does so for `Candidates` that were coupled, calibrated or mixed with other sources, within the limits of a
`TreeConfig`, and `grow_worthwhile` as far as it pays to verify them. `walk` follows the target's choices down a tree.
"""

from hoarfrost.tree.allocation import Worth, grow_worthwhile
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
    "Worth",
    "build_trees",
    "candidates_of",
    "grow_trees",
    "grow_worthwhile",
    "judge",
    "top_of",
    "walk",
    "weighed",
]
