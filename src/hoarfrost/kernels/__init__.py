"""Thin Python faces of the C++ kernels: they check what comes in and name it in the error; the kernels trust them.

Long kernels run without the interpreter lock. Each picks the widest instruction set of the processor at run time and gives the same bits
on all of them.
"""

from hoarfrost._native import Repetition, SourceShares, SuccessorTable, TreeHints, instruction_sets
from hoarfrost.kernels.learning import Verdict, judge_walk
from hoarfrost.kernels.noise import best_with_noise, gumbel_noise, gumbel_noise_range, gumbel_noise_rows, noise_bits
from hoarfrost.kernels.top_k import best_tokens, can_read, top_log_probs
from hoarfrost.kernels.trees import BuiltTree, CandidateArrays, build_trees, build_trees_from_logits, grow_worthwhile
from hoarfrost.kernels.walks import walk_along, walk_with_noise

__all__ = [
    "BuiltTree",
    "CandidateArrays",
    "Repetition",
    "SourceShares",
    "SuccessorTable",
    "TreeHints",
    "Verdict",
    "best_tokens",
    "best_with_noise",
    "build_trees",
    "build_trees_from_logits",
    "can_read",
    "grow_worthwhile",
    "gumbel_noise",
    "gumbel_noise_range",
    "gumbel_noise_rows",
    "instruction_sets",
    "judge_walk",
    "noise_bits",
    "top_log_probs",
    "walk_along",
    "walk_with_noise",
]
