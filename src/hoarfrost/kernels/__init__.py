"""Thin Python faces of the C++ kernels: they check what comes in and name it in the error; the kernels trust them.

Long kernels run without the interpreter lock. Each picks the best instruction set of the processor at run time, or the one that the
environment variable `HOARFROST_INSTRUCTION_SET` names when this package is imported; noise and choices have the same bits on all of them.
"""

import os

from hoarfrost._native import (
    Repetition,
    SourceShares,
    SuccessorTable,
    TreeHints,
    instruction_set_in_use,
    instruction_sets,
    use_instruction_set,
)
from hoarfrost.errors import InvalidInput
from hoarfrost.kernels.learning import Verdict, judge_walk
from hoarfrost.kernels.noise import best_with_noise, gumbel_noise, gumbel_noise_range, gumbel_noise_rows, noise_bits
from hoarfrost.kernels.top_k import best_tokens, can_read, top_log_probs
from hoarfrost.kernels.trees import BuiltTree, CandidateArrays, build_trees, build_trees_from_logits, grow_worthwhile
from hoarfrost.kernels.walks import walk_along, walk_with_noise

INSTRUCTION_SET_VARIABLE = "HOARFROST_INSTRUCTION_SET"


def use_instruction_set_of_environment() -> None:
    """Raises `InvalidInput` where the variable names a set that this processor lacks."""
    wanted = os.environ.get(INSTRUCTION_SET_VARIABLE) or None
    try:
        use_instruction_set(wanted)
    except ValueError as error:
        raise InvalidInput(f"{error} {INSTRUCTION_SET_VARIABLE} must name one of these, or be unset for the best.") from None


use_instruction_set_of_environment()

__all__ = [
    "INSTRUCTION_SET_VARIABLE",
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
    "instruction_set_in_use",
    "instruction_sets",
    "judge_walk",
    "noise_bits",
    "top_log_probs",
    "use_instruction_set",
    "use_instruction_set_of_environment",
    "walk_along",
    "walk_with_noise",
]
