"""Draft trees: pure functions and values, knowing no model.

`Marginals` are what a drafter guesses; `build_trees` makes the likeliest continuations of them a `DraftTree`, within the limits of a
`TreeConfig`; `walk` follows the target's choices down that tree.
"""

from hoarfrost.tree.build import build_trees
from hoarfrost.tree.config import MAX_BUDGET, TreeConfig
from hoarfrost.tree.draft_tree import DraftTree
from hoarfrost.tree.marginals import Marginals, top_of
from hoarfrost.tree.walk import Walk, walk

__all__ = ["MAX_BUDGET", "DraftTree", "Marginals", "TreeConfig", "Walk", "build_trees", "top_of", "walk"]
